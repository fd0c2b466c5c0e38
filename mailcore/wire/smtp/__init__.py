"""The grammar of SMTP (RFC 5321 and its extensions) without I/O."""
