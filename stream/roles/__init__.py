"""One tester with many embedders: the consumer's two halves as processes of their own.

An embedder takes events, embeds them and sends the embeddings on, under the same source and `seq`:
16 bytes an event at d = 4 instead of 228. A tester gathers them and has everything else: windows,
accounts, state. Acknowledgements pass through the embedder, which keeps nothing, so it may be
killed, and a source may go on with another one, at any time.

forwarded.py   embeddings as they come, in an engine's place
embedder.py    the embedder's work
forward.py     to the tester by PUSH: what a crash may have lost is counted there
relay.py       to the tester and back, reliably
"""
