"""The IMAP server: RFC 3501 and RFC 9051 with the extensions that `capabilities` lists.

`server` holds connections and their bytes, `session` runs one command after the other, `registry` is the table of
commands, `commands/` has one file per command or tight family, `selected` is the client's view of its mailbox, `render`
writes FETCH answers, `updates` says what is told unasked, `errors` turns the store's errors into IMAP's words.
"""
