"""A person's own app passwords; signing in and the rest of the security pages are allauth's views."""

from __future__ import annotations

import re

from allauth.account.decorators import reauthentication_required
from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts import people
from accounts.errors import PeopleError
from accounts.forms import AppPasswordForm
from accounts.models import Account

_NUMBER = re.compile(r"[0-9]{1,18}")


@never_cache
@login_required
@require_http_methods(["GET", "POST"])
@reauthentication_required
def app_passwords(request: HttpRequest) -> HttpResponse:
    """List, add and remove one's app passwords; a new one is on the answer to the form, and nowhere else.

    The password is asked for again before: an app password lets in for as long as it is not removed.
    """
    account = request.user
    assert isinstance(account, Account)
    secret = None
    form = AppPasswordForm(request.POST if "add" in request.POST else None)
    try:
        if "remove" in request.POST:
            number = request.POST["remove"]
            people.remove_app_password(account, number=int(number) if _NUMBER.fullmatch(number) else 0)
            messages.success(request, "The app password has been removed; programs that used it are cut off.")
            return redirect("account_app_passwords")
        if form.is_valid():
            secret = people.add_app_password(account, form.cleaned_data["label"], form.cleaned_data["scopes"])
            form = AppPasswordForm()
    except PeopleError as error:
        form.add_error(None, str(error)) if form.is_bound else messages.error(request, "That one is gone already.")
    shown = {"form": form, "secret": secret, "rows": people.list_app_passwords(account)}
    return render(request, "account/app_passwords.html", shown)
