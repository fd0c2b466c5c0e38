"""A request of RFC 8620 §3: its method calls in order, back-references resolved, each failure confined to its call."""

from __future__ import annotations

import json
import logging
from typing import Any

from mailcore.errors import MailError
from mailcore.jmap import ids, limits, methods
from mailcore.jmap.context import CORE, METHODS, Context, Json
from mailcore.jmap.errors import MethodError, bad_arguments, limit_problem, of_method, request_problem
from mailcore.jmap.http import Gone
from mailcore.jmap.session import CAPABILITIES, session_state

log = logging.getLogger(__name__)

Response = tuple[str, Json, str]

assert methods  # importing the package fills the table


def parse(body: bytes) -> Json:
    """The Request object; raises Problem notJSON, notRequest, unknownCapability or limit."""
    try:
        request = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise request_problem("notJSON", "the body is not I-JSON") from None
    # Escapes can spell what UTF-8 cannot hold and what the store refuses.
    if b"\\u" in body:
        request = _plain(request, 0)
    if not isinstance(request, dict):
        raise request_problem("notRequest", "a request is an object")
    using, calls, created = request.get("using"), request.get("methodCalls"), request.get("createdIds")
    if not isinstance(using, list) or not all(isinstance(name, str) for name in using):
        raise request_problem("notRequest", "using must be a list of capabilities")
    if not isinstance(calls, list) or not all(map(_is_call, calls)):
        raise request_problem("notRequest", "methodCalls must be a list of [name, arguments, id]")
    if created is not None and not (isinstance(created, dict) and all(isinstance(v, str) for v in created.values())):
        raise request_problem("notRequest", "createdIds must be a map of ids")
    for name in using:
        if name not in CAPABILITIES:
            raise request_problem("unknownCapability", f"{name[:200]} is not supported")
    if len(calls) > limits.MAX_CALLS:
        raise limit_problem("maxCallsInRequest", f"at most {limits.MAX_CALLS} method calls in one request")
    return request


def _is_call(call: Any) -> bool:
    return (
        isinstance(call, list)
        and len(call) == 3
        and isinstance(call[0], str)
        and isinstance(call[1], dict)
        and isinstance(call[2], str)
    )


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any, depth: int) -> Any:
    """Strings without NUL, which the store cannot hold; a lone surrogate is no I-JSON (RFC 7493 §2.1)."""
    if depth > limits.MAX_DEPTH:
        raise request_problem("notJSON", "the body is nested too deeply")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise request_problem("notJSON", "a string holds a lone surrogate") from None
        return value.replace("\0", "") if "\0" in value else value
    if isinstance(value, list):
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_plain(key, depth + 1): _plain(item, depth + 1) for key, item in value.items()}
    return value


async def run(request: Json, context: Context) -> Json:
    """The Response object of a parsed request."""
    using = frozenset(request["using"]) | {CORE}
    created = request.get("createdIds")
    context.created.update(created or {})
    responses: list[Response] = []
    room = limits.MAX_SIZE_REQUEST
    for name, arguments, call_id in request["methodCalls"]:
        context.also.clear()
        try:
            resolved = _resolved(arguments, responses)
            if resolved is not arguments:
                room -= _weight(resolved, room)
                if room < 0:
                    raise MethodError("requestTooLarge", "the references of this request stand for too much")
            answer = await _call(name, resolved, using, context)
            responses.append((name, answer, call_id))
            responses.extend((other, body, call_id) for other, body in context.also)
        except MethodError as error:
            responses.append(("error", error.body, call_id))
        except MailError as error:
            log.info("%s failed: %r", name, error)
            responses.append(("error", of_method(error).body, call_id))
        except Gone:
            raise
        except Exception:
            log.exception("%s failed", name)
            description = "something went wrong here; it has been logged"
            responses.append(("error", {"type": "serverFail", "description": description}, call_id))
    result: Json = {"methodResponses": responses, "sessionState": session_state(context.caller)}
    if created is not None:
        result["createdIds"] = context.created
    return result


async def _call(name: str, arguments: Json, using: frozenset[str], context: Context) -> Json:
    entry = METHODS.get(name)
    if entry is None or entry.capability not in using:
        raise MethodError("unknownMethod")
    if name == "Core/echo":
        return arguments
    account_id = arguments.get("accountId")
    if not isinstance(account_id, str):
        raise bad_arguments("accountId is missing")
    if account_id != ids.account(context.account_id):
        raise MethodError("accountNotFound")
    for argument in arguments:
        if argument not in entry.arguments and argument != "accountId":
            raise bad_arguments(f"{argument[:100]} is not an argument of {name}")
    return {"accountId": account_id, **await entry.run(context, arguments)}


# --- back-references (RFC 8620 §3.7)


def _resolved(arguments: Json, responses: list[Response]) -> Json:
    if not any(key.startswith("#") for key in arguments):
        return arguments
    result = {}
    for key, value in arguments.items():
        if not key.startswith("#"):
            result[key] = value
            continue
        if key[1:] in arguments:
            raise bad_arguments(f"{key[1:]} is given both by value and by reference")
        result[key[1:]] = _referenced(value, responses)
    return result


def _weight(value: Any, room: int) -> int:
    """About how many octets a value is when written out; counting stops beyond `room`.

    References to references share what they say, so that each call could double what has to be written.
    """
    total, waiting = 0, [value]
    while waiting and total <= room:
        item = waiting.pop()
        total += 16 + (len(item) if isinstance(item, str) else 0)
        if isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
    return total


def _referenced(reference: Any, responses: list[Response]) -> Any:
    if not isinstance(reference, dict) or not all(
        isinstance(reference.get(k), str) for k in ("resultOf", "name", "path")
    ):
        raise bad_arguments("a result reference has resultOf, name and path")
    for name, answer, call_id in responses:
        if call_id == reference["resultOf"] and name == reference["name"]:
            path = reference["path"]
            if path and not path.startswith("/"):
                break
            return _evaluate(answer, path.split("/")[1:] if path else [])
    raise _bad_reference()


def _bad_reference() -> MethodError:
    return MethodError("invalidResultReference", "the result reference leads nowhere")


def _evaluate(value: Any, path: list[str]) -> Any:
    """JSON Pointer (RFC 6901) with `*` for every item of a list."""
    for at, token in enumerate(path):
        if isinstance(value, list):
            if token == "*":
                rest = path[at + 1 :]
                found: list[Any] = []
                for item in value:
                    result = _evaluate(item, rest)
                    found.extend(result) if isinstance(result, list) else found.append(result)
                return found
            if not token.isascii() or not token.isdigit() or len(token) > 9 or int(token) >= len(value):
                raise _bad_reference()
            value = value[int(token)]
        elif isinstance(value, dict):
            token = token.replace("~1", "/").replace("~0", "~")
            if token not in value:
                raise _bad_reference()
            value = value[token]
        else:
            raise _bad_reference()
    return value
