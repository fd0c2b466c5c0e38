"""The site of Django's admin, and the app configuration that makes it the default one (settings.INSTALLED_APPS)."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme


class BreakGlassConfig(AdminConfig):
    """django.contrib.admin with our site as its default."""

    default_site = "accounts.admin_site.BreakGlassSite"


class BreakGlassSite(admin.AdminSite):
    """The admin site: superusers only, signed in through our own page (second factor, throttle)."""

    site_header = "Mailstead break-glass administration"
    site_title = "Mailstead"
    index_title = "Raw tables: prefer the commands of manage.py"

    def has_permission(self, request: HttpRequest) -> bool:
        user = request.user
        return bool(user.is_active and user.is_authenticated and user.is_superuser)

    def login(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        """Never Django's own sign-in form, which knows neither second factors nor the throttle."""
        target = request.GET.get(REDIRECT_FIELD_NAME, "")
        if not url_has_allowed_host_and_scheme(target, allowed_hosts=None):
            target = reverse("admin:index", current_app=self.name)
        if self.has_permission(request):
            return HttpResponseRedirect(target)
        if request.user.is_authenticated:
            raise PermissionDenied
        return HttpResponseRedirect(f"{reverse('account_login')}?{urlencode({REDIRECT_FIELD_NAME: target})}")
