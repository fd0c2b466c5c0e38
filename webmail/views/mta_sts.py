"""Our domains' MTA-STS policies: how other servers are to find out that mail to us is encrypted (RFC 8461 §3.3).

They ask https://mta-sts.DOMAIN/.well-known/mta-sts.txt; what is settled for the domain (`mta-sts`) is the answer.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse, HttpResponseNotFound
from django.views.decorators.http import require_safe

from accounts.addresses import AddressError, hosted_domain_name
from accounts.models import Domain
from accounts.policies import value_of
from mailcore.delivery.records import sts_policy

TEXT = "text/plain; charset=utf-8"


@require_safe
def policy(request: HttpRequest) -> HttpResponse:
    """The policy of the domain that was asked; 404 for other names."""
    # ALLOWED_HOSTS lets every name pass: it is looked up, and never echoed.
    host = request.META.get("HTTP_HOST", "").partition(":")[0].lower()
    try:
        name = hosted_domain_name(host.removeprefix("mta-sts.")) if host.startswith("mta-sts.") else ""
    except AddressError:
        name = ""
    domain = Domain.objects.filter(name=name, is_active=True).select_related("alias_of").first() if name else None
    if domain is None:
        return HttpResponseNotFound("There is no policy of this domain here.\n", content_type=TEXT)
    return HttpResponse(sts_policy(value_of(domain, "mta-sts")), content_type=TEXT)
