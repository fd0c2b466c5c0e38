"""The sign-in form: allauth's, in our words and with our idea of an address."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import LoginForm
from django import forms

from accounts.addresses import normalise
from accounts.errors import AddressError
from accounts.passwords import MAX_LENGTH


class SignInForm(LoginForm):
    """Address and password. The address may be typed in any case and with an internationalised domain."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        login = self.fields["login"]
        login.label = "Address"
        login.widget = forms.EmailInput(
            attrs={
                # Not type=email: browsers refuse internationalised local parts.
                "type": "text",
                "inputmode": "email",
                "autocomplete": "username",
                "autocapitalize": "none",
                "autocorrect": "off",
                "spellcheck": "false",
                "placeholder": "you@example.org",
                "autofocus": True,
            }
        )
        password = self.fields["password"]
        password.widget.attrs.pop("placeholder", None)
        password.help_text = ""
        password.max_length = MAX_LENGTH
        self.fields["remember"].label = "Keep me signed in"

    def clean_login(self) -> str:
        login = super().clean_login()
        try:
            return normalise(login)
        except AddressError:
            return login  # nobody's address: fails like a wrong password, in the same words and time
