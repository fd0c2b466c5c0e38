"""What goes wrong when an administrator changes who exists; every text says what is wrong and what to do."""


class PeopleError(Exception):
    """A change of domains, accounts, aliases or passwords that cannot be made; `text` is for the person who asked."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class AddressError(ValueError):
    """Not a mail address (or domain) that we accept; `text` says why, without quoting the input."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text
