"""System checks: settings that accounts relies on, found at start-up instead of at the first sign-in."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error


def session_engine(**_: Any) -> list[CheckMessage]:
    """accounts.sessions reads django_session; another engine would leave JMAP without sign-ins."""
    if settings.SESSION_ENGINE == "django.contrib.sessions.backends.db":
        return []
    return [
        Error(
            f"SESSION_ENGINE is {settings.SESSION_ENGINE}, but accounts.sessions reads sessions from the database.",
            hint="Use django.contrib.sessions.backends.db.",
            id="accounts.E001",
        )
    ]


def password_hasher(**_: Any) -> list[CheckMessage]:
    """New passwords are hashed with the cost of accounts.passwords, the one that unknown users take too."""
    if settings.PASSWORD_HASHERS[:1] == ["accounts.passwords.Hasher"]:
        return []
    return [Error("PASSWORD_HASHERS must begin with accounts.passwords.Hasher.", id="accounts.E002")]
