"""IMAP grammar, RFC 3501 and RFC 9051 with extensions: frames, then commands, and the encoders of what a server sends.

Bytes go into `frames.Framer`, which yields whole command frames; `parse.parse_command` turns a frame into a
`commands.Command`; `response` builds the lines that go back. Nothing in here reads sockets or waits.
"""
