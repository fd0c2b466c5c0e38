"""Errors of JMAP: of a whole request (problem details, RFC 8620 §3.6.1), of a method call (§3.6.2), of one object
(§5.3).

The one place where the store's errors become JMAP's words.
"""

from __future__ import annotations

from typing import Any

from mailcore.errors import Code, MailError

Json = dict[str, Any]

# Store error -> (type for a method call, type for one object of a /set)
TABLE: dict[Code, tuple[str, str]] = {
    Code.NOT_FOUND: ("invalidArguments", "notFound"),
    Code.EXISTS: ("invalidArguments", "invalidProperties"),
    Code.BAD_NAME: ("invalidArguments", "invalidProperties"),
    Code.BAD_VALUE: ("invalidArguments", "invalidProperties"),
    Code.OVER_QUOTA: ("serverFail", "overQuota"),
    Code.TOO_BIG: ("requestTooLarge", "tooLarge"),
    Code.TOO_MANY: ("requestTooLarge", "tooLarge"),
    Code.NO_PERMISSION: ("forbidden", "forbidden"),
    Code.NOT_EMPTY: ("invalidArguments", "forbidden"),
    Code.AUTH_FAILED: ("forbidden", "forbidden"),
    Code.NO_SUCH_USER: ("invalidArguments", "invalidProperties"),
    Code.DISABLED: ("forbidden", "forbidden"),
    Code.STATE_MISMATCH: ("stateMismatch", "stateMismatch"),
    Code.UNAVAILABLE: ("serverUnavailable", "serverUnavailable"),
    Code.LOOP: ("invalidArguments", "invalidProperties"),
    Code.INTERNAL: ("serverFail", "serverFail"),
}


class Problem(Exception):
    """The whole request is refused, with an HTTP status and problem details (RFC 7807)."""

    def __init__(self, status: int, kind: str, detail: str, **more: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.body: Json = {"type": kind, "status": status, "detail": detail, **more}


def request_problem(name: str, detail: str, **more: Any) -> Problem:
    """One of the request-level errors of RFC 8620 §3.6.1."""
    return Problem(400, f"urn:ietf:params:jmap:error:{name}", detail, **more)


def limit_problem(name: str, detail: str, status: int = 400) -> Problem:
    return Problem(status, "urn:ietf:params:jmap:error:limit", detail, limit=name)


class MethodError(Exception):
    """A method call that fails as a whole; the other calls of the request go on."""

    def __init__(self, kind: str, description: str = "", **more: Any) -> None:
        super().__init__(description or kind)
        self.body: Json = {"type": kind, **more}
        if description:
            self.body["description"] = description


class SetError(Exception):
    """One object of a /set or /import that cannot be created, updated or destroyed."""

    def __init__(self, kind: str, description: str = "", properties: list[str] | None = None, **more: Any) -> None:
        super().__init__(description or kind)
        self.body: Json = {"type": kind, **more}
        if description:
            self.body["description"] = description
        if properties is not None:
            self.body["properties"] = properties


def invalid(description: str, *names: str) -> SetError:
    return SetError("invalidProperties", description, list(names))


def bad_arguments(description: str) -> MethodError:
    return MethodError("invalidArguments", description)


def of_method(error: MailError) -> MethodError:
    """A store error as the failure of a method call."""
    return MethodError(TABLE[error.code][0], error.text)


def of_object(error: MailError, *names: str) -> SetError:
    """A store error as the failure of one object; `names` are the properties that it is about."""
    kind = TABLE[error.code][1]
    return SetError(kind, error.text, list(names) if kind == "invalidProperties" else None)
