"""Tells mail programs their settings, so that a person types an address and a password and nothing else.

Thunderbird and its like ask by GET at /mail/config-v1.1.xml on autoconfig.DOMAIN, or below DOMAIN's /.well-known/;
Outlook posts to /autodiscover/autodiscover.xml. The answer depends on the domain alone, never on whether the address
exists: whoever asks learns what the MX record says anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST, require_safe

from accounts.addresses import AddressError, hosted_domain_name, parse_address
from accounts.models import Domain
from mailcore.conf import Conf, conf

# Octets of Outlook's question; a real one has about 400.
QUESTION_LIMIT = 16 * 1024
# Seconds for which an answer may be kept: ports and names change rarely, a domain is added today.
KEPT, UNKNOWN_KEPT = 3600, 300
# What Outlook calls a question that it should not have asked.
INVALID_REQUEST, NO_SUCH_PROVIDER = 600, 603


@dataclass(frozen=True, slots=True)
class Service:
    """A port that mail programs use; `encryption` is "SSL" (TLS from the first octet) or "STARTTLS"."""

    protocol: str
    port: int
    encryption: str


def services(settings: Conf) -> tuple[Service, ...]:
    """What this installation offers to mail programs, the best of each protocol first."""
    offered = (
        Service("imap", settings.imaps_port, "SSL"),
        Service("imap", settings.imap_port, "STARTTLS"),
        Service("smtp", settings.submissions_port, "SSL"),
        Service("smtp", settings.submission_port, "STARTTLS"),
    )
    return tuple(service for service in offered if service.port)


@require_safe
def thunderbird(request: HttpRequest) -> HttpResponse:
    """Settings as Thunderbird, K-9, Evolution, KMail and others read them (clientConfig 1.1); 404 for other domains.

    The domain is that of `emailaddress`, else the one that was asked. The user name is the whole address, under
    the domain's own name when it has others.
    """
    domain = _hosted(_candidates(request))
    if domain is None:
        missing = HttpResponseNotFound("This domain's mail is elsewhere.\n", content_type="text/plain; charset=utf-8")
        return _kept(missing, UNKNOWN_KEPT)
    user = "%EMAILADDRESS%" if domain.alias_of is None else f"%EMAILLOCALPART%@{domain.alias_of.name}"
    return _kept(_xml(request, "clientconfig", {"domain": domain.name, "user": user}), KEPT)


@csrf_exempt
@require_POST
def outlook(request: HttpRequest) -> HttpResponse:
    """Settings as Outlook reads them (plain old XML of [MS-OXDSCLI] §3.1.5.1); other domains get its error 603."""
    address = _asked_for(request)
    if address is None:
        return _refusal(request, INVALID_REQUEST, "Invalid request")
    domain = _hosted(iter([address.rpartition("@")[2]]))
    if domain is None:
        return _refusal(request, NO_SUCH_PROVIDER, "This domain's mail is elsewhere")
    if domain.alias_of is not None:
        address = f"{address.rpartition('@')[0]}@{domain.alias_of.name}"
    return _xml(request, "autodiscover", {"address": address})


def _kept(response: HttpResponse, seconds: int) -> HttpResponse:
    """What everybody is told who asks for this address: proxies may answer for us."""
    response["Cache-Control"] = f"public, max-age={seconds}"
    return response


def _candidates(request: HttpRequest) -> Iterator[str]:
    if address := request.GET.get("emailaddress"):
        yield address[:1000].rpartition("@")[2]
    # ALLOWED_HOSTS lets every name pass: it is looked up below, and never echoed unless it is ours.
    host = request.META.get("HTTP_HOST", "").partition(":")[0].lower()
    yield host.removeprefix("autoconfig.")
    yield host


def _hosted(candidates: Iterator[str]) -> Domain | None:
    """The first of these that is a domain of ours."""
    for text in candidates:
        try:
            name = hosted_domain_name(text)
        except AddressError:
            continue
        if domain := Domain.objects.select_related("alias_of").filter(name=name, is_active=True).first():
            return domain
    return None


def _asked_for(request: HttpRequest) -> str | None:
    """The address in Outlook's question. Declarations are refused: with them comes what makes XML dangerous."""
    body = request.read(QUESTION_LIMIT + 1)
    try:
        text = body.decode("utf-8-sig")
        if len(body) > QUESTION_LIMIT or "<!" in text:
            return None
        for element in ElementTree.fromstring(text).iter():
            if element.tag.rpartition("}")[2] == "EMailAddress" and element.text:
                address = element.text.strip()
                parse_address(address, literal=False)
                return address
    except (UnicodeDecodeError, ElementTree.ParseError, ValueError, AddressError):
        pass
    return None


def _refusal(request: HttpRequest, code: int, text: str) -> HttpResponse:
    return _xml(request, "autodiscover_error", {"code": code, "text": text, "now": timezone.now()})


def _xml(request: HttpRequest, name: str, context: dict[str, object]) -> HttpResponse:
    context |= {"hostname": conf.hostname, "services": services(conf)}
    response = render(request, f"autoconfig/{name}.xml", context, content_type="text/xml; charset=utf-8")
    response["Cache-Control"] = "no-store"
    return response
