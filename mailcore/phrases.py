"""What a step of a message's history is called: `words` for whoever runs mail servers, `sentence` for everybody else.

Both take the step's detail as the trace has it, without what the asker may not see (`timeline` knows that).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mailcore.words import printable, shown_size, text

# Keys that serve other parts of the program.
_INNER = ("thread", "identity", "to", "recipients", "held")

# What kind of refusal it was (delivery.classify), as a sentence.
_WHY = {
    "bad-mailbox": "there is no such mailbox",
    "inactive": "the mailbox is closed",
    "bad-domain": "there is no mail server for this domain",
    "quota": "the mailbox is full",
    "too-big": "the message is too large for it",
    "policy": "the other side does not accept mail from here",
    "content": "the other side takes the message for spam or does not like what is in it",
    "auth": "the other side could not verify the sender",
    "rate": "the other side is busy or wants fewer messages at a time",
    "greylist": "the other side asks every new sender to come again a little later",
    "network": "the other side could not be reached",
    "loop": "the message goes in circles",
}


def words(step: str, detail: Mapping[str, Any]) -> str:
    """The detail of a step as people say it; keys that are not known are shown as they are."""
    left = dict(detail)
    said = _PHRASES.get(step, lambda _: "")(left)
    rest = ", ".join(f"{key} {text(value)}" for key, value in left.items() if value not in (None, "", [], {}))
    return printable(", ".join(part for part in (said, rest) if part))


def sentence(step: str, detail: Mapping[str, Any], *, sent: bool) -> str:
    """A step in everyday words, to who sent the message or to one of its recipients."""
    found = _SENTENCES.get(step)
    said = step if found is None else found(detail, sent)
    return printable(said)


def quote(step: str, detail: Mapping[str, Any]) -> str:
    """What a server said in a step in which something went wrong, in its own words."""
    if step not in ("attempt", "deferred", "failed", "refused", "held"):
        return ""
    return printable(str(detail.get("reply") or ""))


def count_more(detail: Mapping[str, Any]) -> int:
    """How many other refusals a step stands for; 0: it is one by itself."""
    more = detail.get("more")
    return more if isinstance(more, int) else 0


def span(seconds: float) -> str:
    """How long, roughly."""
    minutes = seconds / 60
    if minutes < 1.5:
        return "a minute"
    return f"{minutes:.0f} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


# --- for whoever runs mail servers


def _take(detail: dict[str, Any], *names: str) -> list[Any]:
    return [detail.pop(name, None) for name in names]


def _talk(detail: dict[str, Any]) -> str:
    """Whom we spoke to, how, and what was said."""
    host, tls, reply, stage, _status, attempt = _take(detail, "host", "tls", "reply", "stage", "status", "attempt")
    (rule,) = _take(detail, "rule")
    said = [f"by rule {rule}"] if rule else []
    if host:
        said.append(f"{host} ({tls or 'no TLS'})")
    if stage and not (reply and f"({stage})" in reply):
        said.append(f"at {stage}")
    if reply:
        said.append(f"said: {reply}" if host and reply[:1].isdigit() else reply)
    if attempt and attempt > 1:
        said.append(f"attempt {attempt}")
    return ", ".join(said)


def _source(detail: dict[str, Any]) -> list[str]:
    source, helo, protocol, tls, account, login = _take(detail, "from", "helo", "protocol", "tls", "account", "login")
    said = [f"from {source}" if source else "", f"({helo})" if helo else "", f"by {protocol}" if protocol else ""]
    said.append(f"over {tls}" if tls else "without TLS" if protocol and protocol != "HTTP" else "")
    if account:
        said.append(f"for account {account}" + (f" ({login})" if login else ""))
    return [part for part in said if part]


def _accepted(detail: dict[str, Any]) -> str:
    said = _source(detail)
    (size,) = _take(detail, "size")
    if size is not None:
        said.append(shown_size(size))
    count, held, by = detail.get("recipients"), detail.get("held"), detail.pop("deliver_by", None)
    if count and count > 1:
        said.append(f"for {count} recipients")
    _take(detail, *_INNER, "email")
    wishes = [f"to be sent at {_moment(held)}" if held else "", _deadline(by) if by else ""]
    return ", ".join(part for part in (" ".join(said), *wishes) if part)


def _deadline(by: object) -> str:
    """`600;R` of DELIVERBY in words."""
    seconds, _, mode = str(by).partition(";")
    return f"to be delivered within {seconds} s, else " + ("it comes back" if mode[:1] == "R" else "the sender is told")


def _expanded(detail: dict[str, Any]) -> str:
    to, count = _take(detail, "to", "targets")
    if not to:
        return ""
    more = (count or len(to)) - len(to)
    return "leads to " + ", ".join(to) + (f" and {more} more" if more > 0 else "")


def _refused(detail: dict[str, Any]) -> str:
    what, reply, reason, more, since, of = _take(detail, "at", "reply", "reason", "more", "since", "of")
    told = f"told: {reply}" if reply else ""
    said = [" ".join(_source(detail)), f"at {what}" if what else "", told, reason or ""]
    if more:
        said.insert(
            0, f"and {more:,} more like it" + (f", {of}" if of else "") + (f", since {_moment(since)}" if since else "")
        )
    return ", ".join(part for part in said if part)


def _moment(written: object) -> str:
    try:
        return f"{datetime.fromisoformat(str(written)).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except ValueError:
        return str(written)


def _aborted(detail: dict[str, Any]) -> str:
    return ", ".join(part for part in ("the connection broke off", _refused(detail)) if part)


def _stored(detail: dict[str, Any]) -> str:
    if "uid" not in detail:
        return ""
    mailbox, uid, email = _take(detail, "mailbox", "uid", "email")
    return f"in {mailbox if isinstance(mailbox, str) else 'a mailbox that is no more'}, uid {uid}, email {email}"


def _queued(detail: dict[str, Any]) -> str:
    size, later, number = _take(detail, "size", "send_after", "number")
    said = [f"queue number {number}" if number else "", shown_size(size) if size is not None else ""]
    said.append(f"to be sent at {_moment(later)}" if later else "")
    return ", ".join(part for part in said if part)


def _deferred(detail: dict[str, Any]) -> str:
    (seconds,) = _take(detail, "retry_in")
    return ", ".join(part for part in (_talk(detail), f"again in {span(seconds)}" if seconds else "") if part)


def _failed(detail: dict[str, Any]) -> str:
    expired, untold = _take(detail, "expired", "untold")
    said = [_talk(detail), "tried for too long" if expired else ""]
    said.append(f"the sender is not told: {untold}" if untold else "")
    return ", ".join(part for part in said if part)


def _settled(detail: dict[str, Any]) -> str:
    """Held or thrown away: by a rule, a person, or because it ended its worker too often."""
    reason, reply, _class, _stage, _status = _take(detail, "reason", "reply", "class", "stage", "status")
    _, rule = _take(detail, "attempt", "rule")
    said = str(reason or reply or "")
    return f"{said} (rule {rule})" if rule and f"rule {rule}" not in said else said


def _dsn(detail: dict[str, Any]) -> str:
    kind, to, of, name = _take(detail, "kind", "recipients", "of", "id")
    said = [f"told the sender: {kind}" + (f" ({', '.join(to)})" if to else "") if kind else ""]
    if name:
        said.append(f"in {name}")
    elif of:
        said.append(f"about {of}")
    return ", ".join(part for part in said if part)


_PHRASES: dict[str, Callable[[dict[str, Any]], str]] = {
    "accepted": _accepted,
    "expanded": _expanded,
    "refused": _refused,
    "aborted": _aborted,
    "stored": _stored,
    "queued": _queued,
    "attempt": _talk,
    "delivered": _talk,
    "deferred": _deferred,
    "failed": _failed,
    "dsn": _dsn,
    "held": _settled,
    "discarded": _settled,
}


# --- for everybody else


def _was_accepted(detail: Mapping[str, Any], sent: bool) -> str:
    if sent:
        how = "in the browser" if detail.get("protocol") == "HTTP" else "with a mail program"
        login = str(detail.get("login") or "")
        with_what = f", signed in with the {login}" if login.startswith("app password") else ""
        return f"Sent {how}{with_what}"
    if "protocol" not in detail:
        return "Sent by somebody whose mail is here, too"
    return f"Arrived from {detail.get('helo') or detail.get('from')}, {_encrypted(detail)}"


def _encrypted(detail: Mapping[str, Any]) -> str:
    return "encrypted on the way" if detail.get("tls") else "not encrypted on the way"


def _was_refused(detail: Mapping[str, Any], sent: bool) -> str:
    more = count_more(detail)
    who = "" if sent else ", and told its sender"
    if more:
        return f"Refused, and {more:,} more like it{who}"
    return f"This server did not take it{who}"


def _was_expanded(detail: Mapping[str, Any], _sent: bool) -> str:
    said = _expanded(dict(detail))
    return f"This address {said}" if said else "Passed on to whoever reads mail for this address"


def _was_stored(detail: Mapping[str, Any], _sent: bool) -> str:
    mailbox = detail.get("mailbox")
    return f"Put into {mailbox}" if isinstance(mailbox, str) else "Delivered"


def _was_queued(detail: Mapping[str, Any], _sent: bool) -> str:
    return "Will be sent later, as it was asked for" if detail.get("send_after") else "On its way"


def _was_tried(detail: Mapping[str, Any], _sent: bool) -> str:
    return f"{detail.get('host') or 'One mail server'} did not take it; the next one is asked"


def _was_delivered(detail: Mapping[str, Any], _sent: bool) -> str:
    host = detail.get("host")
    return f"Taken by {host}, {_encrypted(detail)}" if host else "Delivered"


def _was_deferred(detail: Mapping[str, Any], _sent: bool) -> str:
    again = detail.get("retry_in")
    return f"Not delivered yet{_because(detail)}." + (f" Next try in {span(again)}." if again else "")


def _was_failed(detail: Mapping[str, Any], _sent: bool) -> str:
    tried = " It was tried for days." if detail.get("expired") else ""
    why = ": the time that was given for it is over" if _is_late(detail) else _because(detail)
    return f"Could not be delivered{why}.{tried}"


def _is_late(detail: Mapping[str, Any]) -> bool:
    """It was to come back by now (DELIVERBY); another server may mean something else by that code."""
    return detail.get("status") == "5.4.7" and not detail.get("host")


def _because(detail: Mapping[str, Any]) -> str:
    kind = str(detail.get("class"))
    if kind in ("policy", "auth", "content") and not detail.get("host"):
        return ""  # nobody else has said so: it is ours
    why = _WHY.get(kind)
    return f": {why}" if why else ""


def _was_told(detail: Mapping[str, Any], sent: bool) -> str:
    who = "You were" if sent else "The sender was"
    kind = str(detail.get("kind"))
    about = {"failed": "that it could not be delivered", "delayed": "that it is late"}.get(
        kind, "that it was delivered"
    )
    return f"{who} told by mail {about}"


def _fixed(said: str) -> Callable[[Mapping[str, Any], bool], str]:
    return lambda _detail, _sent: said


def _was_held(_detail: Mapping[str, Any], _sent: bool) -> str:
    return "On hold until an administrator has looked at it"


_SENTENCES: dict[str, Callable[[Mapping[str, Any], bool], str]] = {
    "accepted": _was_accepted,
    "refused": _was_refused,
    "aborted": _fixed("The connection broke off before all of it was here. Its sender tries again"),
    "expanded": _was_expanded,
    "stored": _was_stored,
    "queued": _was_queued,
    "attempt": _was_tried,
    "delivered": _was_delivered,
    "deferred": _was_deferred,
    "failed": _was_failed,
    "dsn": _was_told,
    "held": _was_held,
    "released": _fixed("No longer on hold"),
    "retry": _fixed("Is tried again now"),
    "redirected": _fixed("An administrator sent it to another address instead"),
    "removed": _fixed("An administrator took it out of the queue"),
    "canceled": _fixed("Taken back before it was sent"),
    "discarded": _fixed("Thrown away, as a rule of this server says"),
}

LABELS: Mapping[str, str] = {
    "accepted": "accepted",
    "dsn": "notice",
    "expanded": "alias",
    "retry": "tried again",
    "canceled": "taken back",
}


def states_in_order(states: Sequence[str]) -> list[str]:
    """States, the worst first."""
    return sorted(states, key=lambda state: (_WORST.index(state) if state in _WORST else len(_WORST), state))


_WORST = ("failed", "refused", "broke off", "on hold", "waiting", "removed", "taken back", "redirected")
