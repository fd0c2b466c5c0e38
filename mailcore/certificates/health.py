"""What is wrong with our own certificates: for the doctor."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Sequence

from cryptography import x509

from mailcore import tls
from mailcore.certificates import material
from mailcore.conf import Conf
from mailcore.errors import ConfigError
from mailcore.store.certificates import Stored

# Share of its life that is left when a certificate should long have been renewed (at a third).
_LATE = 6

Remark = tuple[bool, str, str]  # whether it is wrong (else a hint), what, and what to do


def of_database(stored: Sequence[Stored]) -> Iterator[Remark]:
    """Certificates that could not be issued or renewed, or that end soon."""
    now = datetime.datetime.now(datetime.UTC)
    again = "then `manage.py certificate renew NAME`, or wait: it is tried again by itself"
    for each in stored:
        remedy = again.replace("NAME", each.name)
        if each.chain is None or each.not_after is None or each.not_before is None:
            if each.error:
                yield True, f"none for {each.name} could be had: {each.error}", f"see to that, {remedy}"
            continue
        if each.source == "imported":
            remedy = "import the new one: `manage.py certificate import`"
        left = each.not_after - now
        trouble = f" ({each.error})" if each.error else ""
        if left < datetime.timedelta():
            yield True, f"that for {each.name} expired on {each.not_after:%Y-%m-%d}{trouble}", remedy
        elif left < (each.not_after - each.not_before) / _LATE:
            yield False, f"that for {each.name} expires on {each.not_after:%Y-%m-%d}{trouble}", remedy
        elif each.error:
            yield False, f"that for {each.name} lacks names: {each.error}", remedy


def default_of(conf: Conf, stored: Sequence[Stored]) -> tuple[x509.Certificate, Stored | None]:
    """What other servers are shown by this host, and where it comes from. Raises ConfigError."""
    if conf.tls_cert is None:
        fit = [each for each in stored if each.chain and tls.covers(each.names, conf.hostname.lower())]
        if fit:
            best = max(fit, key=lambda each: each.not_after or datetime.datetime.min.replace(tzinfo=datetime.UTC))
            return x509.load_pem_x509_certificate((best.chain or "").encode()), best
    return tls.certificate(conf), None


def of_mta_sts(conf: Conf, stored: Sequence[Stored], enforced: Sequence[str]) -> Iterator[Remark]:
    """Domains that have others insist on a certificate which this host does not have."""
    if not enforced:
        return
    try:
        shown, _ = default_of(conf, stored)
    except ConfigError:  # said elsewhere
        return
    trouble = ""
    if shown.issuer == shown.subject:
        trouble = "is self-signed"
    elif not tls.covers(tls.names(shown), conf.hostname.lower()):
        trouble = f"is not for {conf.hostname}"
    elif shown.not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        trouble = "has expired"
    if trouble:
        domains = ", ".join(enforced[:5])
        yield (
            True,
            f"mta-sts=enforce of {domains} keeps mail away, because the certificate {trouble}",
            "set MAILSTEAD_ACME=letsencrypt, or the policy to testing until there is a certificate",
        )


def of_tlsa(conf: Conf, stored: Sequence[Stored], ask: Callable[[str], Sequence[str]]) -> Iterator[Remark]:
    """Whether the TLSA records of this host, if it has any, are about what it shows. `ask(name)` = their texts."""
    published = {
        " ".join(each.lower().split()[:3]) + " " + "".join(each.lower().split()[3:])
        for each in ask(f"_25._tcp.{conf.hostname}")
    }
    ends = {each for each in published if each.startswith("3 ")}
    # Those of usage 2 name an authority, whose certificate may not be in our chain: they are the owner's own business.
    if not ends or published - ends:
        return
    try:
        shown, source = default_of(conf, stored)
        matching = material.tlsa_texts(shown)
        following = material.key_digest(material.unsealed(source.next_key)) if source is not None else ""
    except ConfigError:
        return
    if not ends & matching:
        yield (
            True,
            f"the TLSA records of {conf.hostname} do not fit its certificate: servers that know DANE send no mail",
            f"publish: 3 1 1 {material.spki_digest(shown)}",
        )
    elif source is not None and source.source == "acme" and f"3 1 1 {following}" not in ends:
        yield (
            False,
            f"the TLSA records of {conf.hostname} lack the next key: it cannot be changed in a hurry",
            f"publish besides: 3 1 1 {following}",
        )
