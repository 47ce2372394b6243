"""Who may talk to a consumer, and how much they may make it hold.

curve.py        CURVE keys and which end of a socket has which
access.py       the allow-list, and the ZAP handler that asks it
handshakes.py   what becomes of connections: counted by a server, explained to a client
http_access.py  TLS and password of the HTTP port
options.py      the commands' options
keys.py         a command's keys, from its options
consumer.py     opens a consumer's sockets with all of it
producer.py     likewise a producer's
"""
