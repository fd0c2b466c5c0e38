"""Opening a session with a host as its policy demands, and what is counted about that for TLS reports."""

from __future__ import annotations

from collections.abc import Callable

from mailcore.delivery import session
from mailcore.delivery.connect import Timeouts
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict
from mailcore.delivery.route import Host
from mailcore.delivery.session import Session
from mailcore.delivery.tls.decide import NO_TLS, NO_TLS_AT_ALL, STS_TROUBLE, Demand, Proof, Refused, Transport, Unproven
from mailcore.store.transport import Count


async def open_host(
    transport: Transport,
    host: Host,
    hello: str,
    timeouts: Timeouts,
    wish: bool | None,
    note: Callable[[Outcome], None],
    counts: list[Count],
) -> Session:
    """A session with this host that is as secure as policies and the sender demand. Raises Undeliverable.

    `note` hears of attempts with TLS that failed and were followed by less, where that is allowed.
    """
    try:
        demand = await transport.demand(host, wish)
    except Refused as error:
        counts.append(error.count)
        raise
    if host.domain and (failure := (await transport.of_domain(host.domain)).failure):
        counts.append(Count(host.domain, STS_TROUBLE, failure[0], reason=failure[1][:200]))
    try:
        opened = await session.open_session(host, hello, timeouts, demand)
    except Undeliverable as error:
        if error.outcome.verdict is not Verdict.PLAIN:
            raise
        _failed(counts, demand, host, error)
        if demand.enforce:
            raise _unmet(demand, host, error) from error
        if host.login is not None:
            text = f"the relay's TLS cannot be trusted or does not work: {error.outcome.text}"
            raise Undeliverable(Outcome(Verdict.LATER, Stage.TLS, "4.7.5", text)) from None
        note(error.outcome)
        opened = await _with_less(host, hello, timeouts, demand, note)
    else:
        if demand.domain:
            missing = demand.failure or ("" if opened.tls else NO_TLS)
            counts.append(_count(demand, host, missing, opened.greeting_name) if missing else _success(demand))
    opened.wish = wish
    return opened


async def _with_less(
    host: Host, hello: str, timeouts: Timeouts, demand: Demand, note: Callable[[Outcome], None]
) -> Session:
    """Opportunistic: TLS with anybody, else better in the clear than not at all, as to a host without STARTTLS."""
    if demand.proof is not Proof.NONE:
        try:
            return await session.open_session(host, hello, timeouts)
        except Undeliverable as error:
            if error.outcome.verdict is not Verdict.PLAIN:
                raise
            note(error.outcome)
    return await session.open_session(host, hello, timeouts, NO_TLS_AT_ALL)


def _unmet(demand: Demand, host: Host, error: Undeliverable) -> Undeliverable:
    outcome = error.outcome
    what = "TLS" if demand.proof is Proof.NONE or demand.is_unproved else "verified TLS"
    text = f"{demand.why} {'demand' if demand.proof is Proof.DANE else 'demands'} {what}, but {outcome.text}"
    # A 5xx to STARTTLS, too, is mended one day: the mail waits. But who sends with REQUIRETLS hears of it at once.
    if demand.requiretls and (outcome.remote or isinstance(error, Unproven)):
        return Undeliverable(Outcome(Verdict.NEXT_HOST, Stage.TLS, "5.7.10", f"{text} ({host})"))
    status = outcome.status if outcome.status.startswith("4.7.") and not outcome.remote else "4.7.10"
    return Undeliverable(Outcome(Verdict.NEXT_HOST, Stage.TLS, status, f"{text} ({host})", outcome.code))


def _success(demand: Demand) -> Count:
    return Count(demand.domain, demand.policy)


def _failed(counts: list[Count], demand: Demand, host: Host, error: Undeliverable) -> None:
    if demand.domain:
        result = error.result if isinstance(error, Unproven) else "validation-failure"
        if error.outcome.remote:  # 454 to STARTTLS
            result = NO_TLS
        counts.append(_count(demand, host, result, reason=error.outcome.text))


def _count(demand: Demand, host: Host, result: str, helo: str = "", reason: str = "") -> Count:
    return Count(demand.domain, demand.policy, result, host.name, helo[:255], host.address, reason[:200])
