"""Tells whoever listens that what lets somebody in has changed: a password, an app password, an account switched off.

The layers above end open sessions by it at once; they also look for themselves, so that a change which nobody tells of
(by SQL, say) acts seconds later.
"""

from __future__ import annotations

from collections.abc import Callable

from django.db import transaction

_listeners: list[Callable[[int], None]] = []


def listen(listener: Callable[[int], None]) -> None:
    """Call `listener(account id)` after the commit of each change, in the thread that made it."""
    _listeners.append(listener)


def credentials_changed(account_id: int) -> None:
    """To be called in the transaction of the change, or after it."""

    def tell() -> None:
        for listener in _listeners:
            listener(account_id)

    transaction.on_commit(tell)
