"""What a consumer must not forget: kept so that a kill at any instant loses and doubles nothing.

The state of a run is a function of the messages that it accepted, in their order, and of the
windows that it has decided about. So two things are stored: each message, until no window to come
needs it, and after each window the accounts. A restart takes up the accounts, embeds the stored
messages again, cuts the same windows, and leaves out those that were decided.

store.py     one SQLite file: messages, sources, accounts; each write all or nothing
writer.py    the thread that writes, so that neither the stream nor the test waits for a disk
run.py       which messages are still needed, what the run has decided
replay.py    stored messages as blocks again
"""
