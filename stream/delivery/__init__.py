"""How messages come from producers: taken as they are, or acknowledged once they are on the disk.

admission.py   which messages count: in their sequence, once
plain.py       PULL and SUB: what a crash may have lost is counted, not sent again
protocol.py    the reliable exchange's control messages
consumer.py    its consumer's side, on a ROUTER socket
sources.py     whom it knows, and where each stands
answers.py     what goes back there
producer.py    its producer's side: a class for any DAQ process
link.py        the thread behind it, on a DEALER socket
spool.py       a producer's messages on disk until they are acknowledged
"""
