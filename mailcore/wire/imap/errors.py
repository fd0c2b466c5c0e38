"""The one exception of the IMAP grammar."""


class ImapSyntaxError(Exception):
    """A client's command does not follow the grammar.

    `text` is for a person who reads a protocol log. `status` is the tagged answer that fits ("BAD", or "NO" where
    an RFC asks for it) and `code` the resp-text-code without brackets, if any (e.g. "BADCHARSET (US-ASCII UTF-8)").
    `saving`: a search that was to save its result failed, which empties what was saved before (RFC 5182 §2.1).
    """

    def __init__(self, text: str, *, status: str = "BAD", code: str | None = None, saving: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.status = status
        self.code = code
        self.saving = saving
