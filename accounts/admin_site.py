"""The site of Django's admin, and the app configuration that makes it the default one (settings.INSTALLED_APPS)."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import AdminConfig
from django.http import HttpRequest, HttpResponse


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
        from allauth.account.decorators import secure_admin_login  # imports models: not while apps are being loaded

        return secure_admin_login(super().login)(request, extra_context)
