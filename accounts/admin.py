"""Django's own admin at /django-admin/: a break-glass tool for superusers, beside the administration of /admin/.

Whatever needs more than one row, or a secret shown once, is made by accounts.people and the commands, not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.http import HttpRequest

from accounts.models import Account, Address, AliasTarget, AppPassword, Domain
from accounts.notices import credentials_changed

if TYPE_CHECKING:  # Django's classes take their model as a parameter in the stubs only
    AnyAdmin = admin.ModelAdmin[Any]
    TargetInline = admin.TabularInline[AliasTarget, Address]
else:
    AnyAdmin = admin.ModelAdmin
    TargetInline = admin.TabularInline


class NoAdd(AnyAdmin):
    """Rows that only the commands may make, because they come with others."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(Domain)
class DomainAdmin(NoAdd):
    """Add with `manage.py domain add`: a domain comes with its DKIM keys."""

    list_display = ("name", "is_active", "created_at")
    search_fields = ("name",)
    readonly_fields = ("name", "created_at")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Account)
class AccountAdmin(NoAdd):
    """Add and remove with `manage.py account`: an account comes with its address and mailboxes."""

    list_display = ("address", "name", "is_active", "is_superuser", "last_login", "created_at")
    list_filter = ("is_active", "is_superuser", "domain")
    search_fields = ("address", "name")
    readonly_fields = ("address", "domain", "last_login", "created_at")
    fields = (
        "address", "domain", "name", "is_active", "is_staff", "is_superuser", "administers", "last_login", "created_at",
    )  # fmt: skip
    filter_horizontal = ("administers",)

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        credentials_changed(obj.pk)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class AliasTargetInline(TargetInline):
    model = AliasTarget
    extra = 0

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(Address)
class AddressAdmin(NoAdd):
    """Add with `manage.py alias add`, which checks targets and loops."""

    list_display = ("__str__", "account", "created_at")
    list_filter = ("domain",)
    list_select_related = ("domain", "account")
    search_fields = ("local_part", "domain__name")
    readonly_fields = ("domain", "local_part", "account", "created_at")
    inlines = (AliasTargetInline,)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None or obj.account_id is None


@admin.register(AppPassword)
class AppPasswordAdmin(NoAdd):
    """Only their owners (or `manage.py apppassword add`) make them; here they can be seen, relabelled and removed."""

    list_display = ("account", "label", "scopes", "created_at", "last_used_at")
    list_select_related = ("account",)
    search_fields = ("account__address", "label")
    fields = ("account", "label", "scopes", "created_at", "last_used_at")
    readonly_fields = ("account", "scopes", "created_at", "last_used_at")
