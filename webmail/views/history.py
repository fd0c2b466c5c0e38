"""Where is my mail? Everybody's own messages at /settings/history/, those of their domains for administrators at
/admin/trace/: one page with a search, and the history of each message it finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from django.contrib.auth.decorators import login_required
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.models import Account, Domain
from accounts.roles import Role, role_of, visible_domains
from mailcore import db, phrases, timeline
from mailcore.store import mailboxes, trace
from mailcore.store.housekeeping import KEEP_TRACE
from mailcore.store.trace import Found
from mailcore.timeline import STATES, WITHOUT_MESSAGE, Message, Step, Viewer

LIMIT = 50
MAX_QUERY = 400
# Recipients with their states on a message's line; of more than that the states are counted.
FEW = 3
# Steps of each message that are read for a list; a single message is read whole.
STEPS = 1000
# Steps of a message that are shown at first, from its beginning and from its end, and when all are asked for.
HEAD, TAIL = 60, 40
# Recipients in trouble that are named above the steps.
MAX_TROUBLED = 20
# What can be chosen, and how long ago that begins.
SPANS = {"1h": timedelta(hours=1), "24h": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}
NAMES = {"": "any time", "1h": "the last hour", "24h": "the last 24 hours", "7d": "the last 7 days", "30d": "30 days"}
# States that a reader should not have to look for.
BAD = frozenset({"failed", "refused"})
SLOW = frozenset({"waiting", "on hold", "broke off"})
# Steps that went wrong, and those that were in vain.
TONES = {"failed": "bad", "refused": "bad", "deferred": "slow", "attempt": "slow", "held": "slow", "aborted": "slow"}


@dataclass(frozen=True, slots=True)
class State:
    """What stands on a message's line: an address, how many of them, or nobody, and where the message is."""

    who: str
    state: str
    tone: str


@dataclass(frozen=True, slots=True)
class Line:
    """A step on the page. `label`: its name, for administrators; `date`: it was on another day than the one before."""

    step: Step
    label: str
    tone: str
    date: bool


@dataclass(frozen=True, slots=True)
class Row:
    """A message on the page."""

    message: Message
    states: tuple[State, ...]
    troubled: tuple[State, ...]
    head: tuple[Line, ...]
    left_out: int
    tail: tuple[Line, ...]
    later: bool
    """Something happened to it later than at its beginning."""
    whole: bool


@never_cache
@require_safe
@login_required
def own(request: HttpRequest) -> HttpResponse:
    """A person's own messages, sent and received, refused ones included."""
    account = _account(request)
    viewer = Viewer(account.pk, _addresses(account), manages=_names(visible_domains(account)))

    def find(text: str, since: datetime | None, before: str, steps: int) -> list[Found]:
        # What came to the address before it was this account's is somebody else's.
        floor = max(since, account.created_at) if since else account.created_at
        with db.django_transaction() as tx:
            return db.run_sync(
                trace.find_own(
                    tx,
                    account.pk,
                    viewer.addresses,
                    text,
                    LIMIT,
                    manages=viewer.manages,
                    since=floor,
                    before=before,
                    steps=steps,
                )
            )

    return _page(request, find, viewer, "Where is my mail?", "An address, a Message-ID, or nothing for the newest")


@never_cache
@require_safe
@login_required
def administered(request: HttpRequest) -> HttpResponse:
    """All messages of the domains that the account looks after; for anybody else there is no such page."""
    account = _account(request)
    role = role_of(account)
    if role is Role.USER:
        raise Http404
    viewer = None if role is Role.SUPERUSER else Viewer(domains=_names(visible_domains(account)))

    def find(text: str, since: datetime | None, before: str, steps: int) -> list[Found]:
        domains = None if viewer is None else viewer.domains
        with db.django_transaction() as tx:
            return db.run_sync(trace.find(tx, text, LIMIT, since=since, before=before, steps=steps, domains=domains))

    hint = "An address, a Message-ID, a client's IP address, a trace id or a queue number; nothing for the newest"
    return _page(request, find, viewer, "Message trace", hint)


def _account(request: HttpRequest) -> Account:
    account = request.user
    assert isinstance(account, Account)
    return account


def _names(domains: Iterable[Domain]) -> frozenset[str]:
    """The names of domains, and the other names that they answer under."""
    chosen = [domain.pk for domain in domains]
    found = Domain.objects.filter(Q(pk__in=chosen) | Q(alias_of__in=chosen))
    return frozenset(found.values_list("name", flat=True))


def _addresses(account: Account) -> frozenset[str]:
    """An account's addresses, under all names of their domains."""
    found = {account.address}
    for each in account.addresses.select_related("domain"):
        names = [each.domain.name, *each.domain.other_names.values_list("name", flat=True)]
        found.update(f"{str(each).rpartition('@')[0]}@{name}" for name in names)
    return timeline.own_addresses(found)


def _page(
    request: HttpRequest,
    find: Callable[[str, datetime | None, str, int], list[Found]],
    viewer: Viewer | None,
    title: str,
    hint: str,
) -> HttpResponse:
    text = request.GET.get("q", "")[:MAX_QUERY].strip()
    span = request.GET.get("when", "")
    before = request.GET.get("before", "")[: trace.ID_LENGTH]
    since = datetime.now(UTC) - SPANS[span] if span in SPANS else None
    steps, names = STEPS, _mailboxes(viewer)
    found = find(text, since, before, steps)
    if len(found) == steps and found[0].trace_id == found[-1].trace_id:
        steps = trace.MAX_EVENTS
        found = find(found[0].trace_id, None, "", steps)
    messages = timeline.messages(found, viewer, names, steps)
    personal = viewer is not None and viewer.account_id is not None
    whole = "all" in request.GET and len(messages) == 1
    # What is not the asker's to see is left out of a full page, and the next one begins after what was looked at.
    looked_at = list(dict.fromkeys(event.trace_id for event in found))
    full = len(looked_at) == LIMIT
    if len(found) >= trace.MAX_EVENTS and len(looked_at) > 1:
        full = bool(looked_at.pop())
    query = {"q": text, "when": span if span in SPANS else ""}
    shown = {
        "title": title,
        "personal": personal,
        "of_domains": viewer is not None and not personal,
        "administers": personal and role_of(_account(request)) is not Role.USER,
        "hint": hint,
        "text": text,
        "span": span,
        "spans": NAMES,
        "rows": [_row(message, personal=personal, whole=whole) for message in messages],
        "older": urlencode({name: value for name, value in query.items() if value} | {"before": looked_at[-1]})
        if full and looked_at
        else "",
        "paged": bool(before),
        "days": KEEP_TRACE,
    }
    return render(request, "history/page.html", shown)


def _row(message: Message, *, personal: bool, whole: bool) -> Row:
    found = [State(address, state, _tone(state)) for address, state in message.states.items()]
    order = {state: number for number, state in enumerate(phrases.states_in_order([*{each.state for each in found}]))}
    found.sort(key=lambda each: order[each.state])
    if not found and message.steps[-1].name in WITHOUT_MESSAGE:  # at MAIL, say: no recipient had been named
        state = STATES[message.steps[-1].name]
        found = [State("", state, _tone(state))]
    states = tuple(found)
    troubled: tuple[State, ...] = ()
    if len(found) > FEW:
        counted = Counter(each.state for each in found)
        states = tuple(State(f"{counted[state]:,}", state, _tone(state)) for state in order)
        troubled = tuple(each for each in found if each.tone in ("bad", "slow"))[:MAX_TROUBLED]
    lines = _lines(message.steps, personal=personal)
    if message.cut:
        lines = lines[:HEAD]
    cut = not whole and len(lines) > HEAD + TAIL
    return Row(
        message,
        states,
        troubled,
        tuple(lines[:HEAD] if cut else lines),
        len(lines) - HEAD - TAIL if cut else 0,
        tuple(lines[-TAIL:] if cut else ()),
        message.last - message.begun >= timedelta(minutes=1),
        whole,
    )


def _lines(steps: Iterable[Step], *, personal: bool) -> list[Line]:
    lines, day = [], None
    for step in steps:
        label = step.sentence if personal else phrases.LABELS.get(step.name, step.name)
        lines.append(Line(step, label, TONES.get(step.name, ""), day is not None and day != step.at.date()))
        day = step.at.date()
    return lines


def _tone(state: str) -> str:
    return "bad" if state in BAD else "slow" if state in SLOW else "good"


def _mailboxes(viewer: Viewer | None) -> dict[tuple[int | None, object], str] | None:
    """The names of mailboxes that are the viewer's to know: one's own. Administrators see that it is in one."""
    if viewer is None or viewer.account_id is None:
        return None
    with db.django_transaction() as tx:
        boxes = db.run_sync(mailboxes.all(tx, viewer.account_id))
    return {(viewer.account_id, box.id): box.name for box in boxes}
