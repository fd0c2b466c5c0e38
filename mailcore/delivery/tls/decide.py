"""What is asked of a mail host before it gets a message: TLS if it can, verified TLS, or nothing.

DANE comes first, where DNSSEC vouches for the host and it has TLSA records; then the MTA-STS policy of the recipients'
domain; else TLS is taken where it is offered. A sender can ask for more (REQUIRETLS) or less ("TLS-Required: No",
RFC 8689). What is asked is kept: a host that does not have it gets nothing, and the mail waits.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import dns.exception

from mailcore import tls
from mailcore.conf import Conf
from mailcore.delivery.mx import Resolver
from mailcore.delivery.outcome import Outcome, Stage, Undeliverable, Verdict, later
from mailcore.delivery.route import Host
from mailcore.delivery.tls import dane
from mailcore.delivery.tls.dane import Record
from mailcore.delivery.tls.mta_sts import Found, Policies, Policy
from mailcore.errors import ConfigError
from mailcore.store.transport import Count

# Records of which none can be used that a report quotes.
MAX_QUOTED = 20


class Proof(Enum):
    """How a host proves who it is."""

    NONE = ""
    PKIX = "its certificate"
    DANE = "DANE"


@dataclass(frozen=True, slots=True)
class Demand:
    """What one host must do. `enforce`: without it, it gets no mail; else the failure is counted and the mail goes.

    `why` names whose will that is; `names` are right for its certificate, the first is sent as SNI; `policy` is what
    reports quote (JSON), for `domain`, and `failure` what they call it when it is known already that the policy is not
    met; `requiretls`: it must promise to ask the same of the next host.
    """

    proof: Proof = Proof.NONE
    enforce: bool = False
    why: str = ""
    names: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    requiretls: bool = False
    domain: str = ""
    policy: str = ""
    context: ssl.SSLContext | None = field(default=None, compare=False)
    use_tls: bool = True
    failure: str = ""

    @property
    def proved_by(self) -> str:
        """How a host that met it has proved who it is; "" when it has not."""
        return "" if self.proof is Proof.NONE or self.is_unproved else self.proof.value

    @property
    def is_unproved(self) -> bool:
        """TLSA records say that there is TLS, and none of them proves with whom."""
        return self.proof is Proof.DANE and not self.records

    @property
    def is_strict(self) -> bool:
        """More is asked than TLS where it is offered."""
        return self.enforce or self.proof is not Proof.NONE


OPPORTUNISTIC = Demand()
NO_TLS_AT_ALL = Demand(use_tls=False)


class Unproven(Undeliverable):
    """A host did not do what was asked. `result`: the result type of RFC 8460 §4.3."""

    def __init__(self, result: str, status: str, text: str) -> None:
        super().__init__(Outcome(Verdict.PLAIN, Stage.TLS, status, text))
        self.result = result


NO_TLS = "starttls-not-supported"


def no_starttls() -> Unproven:
    """A host that offers no TLS, or from whose greeting somebody in between has taken the offer."""
    return Unproven(NO_TLS, "4.7.10", "the host does not offer STARTTLS")


# What OpenSSL says of a certificate (X509_V_ERR_…) as RFC 8460 calls it.
_VERIFY = {10: "certificate-expired", 9: "certificate-expired", 62: "certificate-host-mismatch"}


def untrusted(error: ssl.SSLError) -> Unproven:
    """What a failed handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        result = _VERIFY.get(error.verify_code, "certificate-not-trusted")
        return Unproven(result, "4.7.5", f"the certificate cannot be trusted: {error.verify_message}")
    return Unproven("validation-failure", "4.7.5", f"TLS failed: {error.reason or error}")


def verify(demand: Demand, chain: Sequence[bytes]) -> None:
    """Check the certificates (DER) that a host showed where the handshake did not do that. Raises Unproven."""
    if demand.proof is not Proof.DANE or not demand.records:
        return
    try:
        dane.check(demand.records, chain, demand.names)
    except dane.Mismatch as error:
        raise Unproven(error.result, "4.7.5", str(error)) from None


def _policy(kind: str, strings: Sequence[str] = (), mx: Sequence[str] = ()) -> str:
    found: dict[str, object] = {"policy-type": kind}
    if strings:
        found["policy-string"] = list(strings)
    if mx:
        found["mx-host"] = list(mx)
    return json.dumps(found)


NO_POLICY = _policy("no-policy-found")
# A policy that there is and that could not be had.
STS_TROUBLE = _policy("sts")


class Transport:
    """One per engine."""

    def __init__(self, conf: Conf, resolver: Resolver) -> None:
        self._conf = conf
        self._resolver = resolver
        self.policies = Policies(conf, resolver)

    async def of_domain(self, domain: str) -> Found:
        """The MTA-STS policy of the recipients' domain. Raises MailError while the database is away."""
        return await self.policies.of(domain)

    def _authorities(self) -> ssl.SSLContext:
        try:
            return tls.trusting(self._conf.tls_ca)
        except ConfigError as error:
            raise later(Stage.TLS, "4.3.5", str(error)) from error

    async def demand(self, host: Host, wish: bool | None) -> Demand:
        """What to ask of a host. `wish` is the sender's: True = REQUIRETLS, False = TLS-Required: No, None = neither.

        Raises Undeliverable when this host may not get the mail, whatever it can do; another one may.
        """
        if host.tls == "none" and wish is not True:
            return NO_TLS_AT_ALL
        found = await self._policy_demand(host, wish)
        if wish is True:
            return self._required(host, found)
        if host.tls == "require" and not found.enforce:
            return replace(found, enforce=True, why="a rule of this server")
        return found

    async def _policy_demand(self, host: Host, wish: bool | None) -> Demand:
        if not host.domain:
            return OPPORTUNISTIC
        sts = await self.of_domain(host.domain)
        by_dane = await self._dane(host, wish) if host.tlsa else None
        if by_dane is not None and (by_dane.records or sts.policy is None or sts.policy.mode != "enforce"):
            return by_dane
        if sts.policy is not None:
            return self._sts(host, sts.policy, wish)
        return Demand(domain=host.domain, policy=NO_POLICY)

    async def _dane(self, host: Host, wish: bool | None) -> Demand | None:
        why = f"the TLSA records of {host.name}"
        for name in host.tlsa:
            try:
                found = await self._resolver.tlsa(host.port, name)
            except dns.exception.DNSException as error:
                if wish is False:
                    return None
                text = f"{why} cannot be had, or are forged: {type(error).__name__}"
                raise refused(host, _policy("tlsa"), "dnssec-invalid", text) from None
            if found:
                records = dane.usable(found)
                quoted = [str(each) for each in records] or [each.to_text() for each in found[:MAX_QUOTED]]
                return Demand(
                    proof=Proof.DANE,
                    enforce=wish is not False,
                    why=why,
                    names=tuple(dict.fromkeys((name, host.name, host.domain))),
                    records=records,
                    domain=host.domain,
                    policy=_policy("tlsa", quoted),
                    failure="" if records else "tlsa-invalid",
                )
        return None

    def _sts(self, host: Host, policy: Policy, wish: bool | None) -> Demand:
        quoted = _policy("sts", policy.lines(), policy.mx)
        why = f"the MTA-STS policy of {host.domain}"
        if not policy.allows(host.name):
            if policy.mode == "enforce" and wish is not False:
                text = f"{why} does not name the host {host.name}"
                raise refused(host, quoted, "validation-failure", text)
            return Demand(domain=host.domain, policy=quoted, failure="validation-failure")
        return Demand(
            proof=Proof.PKIX,
            enforce=policy.mode == "enforce" and wish is not False,
            why=why,
            names=(host.name,),
            domain=host.domain,
            policy=quoted,
            context=self._authorities(),
        )

    def _required(self, host: Host, found: Demand) -> Demand:
        """REQUIRETLS (RFC 8689 §4.2.1): the way to the host must be proved, and the host itself."""
        if found.proof is Proof.DANE and found.records:
            return replace(found, requiretls=True, enforce=True)
        if host.domain and host.login is None and not host.mx_secure and found.proof is not Proof.PKIX:
            text = f"REQUIRETLS: neither DNSSEC nor MTA-STS vouches for {host.name} as a mail host of {host.domain}"
            raise Undeliverable(Outcome(Verdict.NEXT_HOST, Stage.TLS, "5.7.10", text))
        return Demand(
            proof=Proof.PKIX,
            enforce=True,
            why="REQUIRETLS",
            names=(host.name,),
            requiretls=True,
            domain=found.domain,
            policy=found.policy,
            context=self._authorities(),
        )


class Refused(Undeliverable):
    """A host that may not get the mail at all; carries what is counted for reports."""

    def __init__(self, outcome: Outcome, count: Count) -> None:
        super().__init__(outcome)
        self.count = count


def refused(host: Host, policy: str, result: str, text: str) -> Refused:
    """For now: policies and DNS are repaired, and an attack ends."""
    outcome = Outcome(Verdict.NEXT_HOST, Stage.TLS, "4.7.5", text)
    return Refused(outcome, Count(host.domain, policy, result, host.name, "", host.address, text[:200]))
