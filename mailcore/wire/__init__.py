"""Bytes to values and back, without I/O: the grammars of the protocols that Mailstead speaks."""
