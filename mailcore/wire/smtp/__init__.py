"""The grammar of SMTP (RFC 5321 and its extensions) without I/O: command lines, paths, parameters, replies, mail data."""
