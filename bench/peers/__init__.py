"""One script a peer, run by that peer's interpreter: `python -m bench.peers.NAME COMMAND ...`.

They import their own library, and of the project only what the standard library is enough for.
"""
