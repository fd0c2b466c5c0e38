"""The forms of signing in and changing the password (allauth's, in our words) and of app passwords."""

from __future__ import annotations

from typing import Any

from allauth.account.forms import ChangePasswordForm, LoginForm, ReauthenticateForm
from django import forms

from accounts import app_passwords
from accounts.addresses import normalise
from accounts.errors import AddressError
from accounts.people import MAX_LABEL


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
            }
        )
        password = self.fields["password"]
        password.widget.attrs.pop("placeholder", None)
        password.help_text = ""
        self.fields["remember"].label = "Keep me signed in"
        # After a failure it is mostly the password that has to be typed again.
        self.fields["password" if self.is_bound else "login"].widget.attrs["autofocus"] = True

    def clean_login(self) -> str:
        login = super().clean_login()
        try:
            return normalise(login)
        except AddressError:
            return login  # nobody's address: fails like a wrong password, in the same words and time


class AgainForm(ReauthenticateForm):
    """The password once more."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attrs = self.fields["password"].widget.attrs
        attrs.pop("placeholder", None)
        attrs["autofocus"] = True


class PasswordForm(ChangePasswordForm):
    """The old password once, the new one twice."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        labels = {"oldpassword": "Current password", "password1": "New password", "password2": "New password again"}
        for name, label in labels.items():
            self.fields[name].label = label
            self.fields[name].widget.attrs.pop("placeholder", None)
        self.fields["oldpassword"].help_text = ""


class AppPasswordForm(forms.Form):
    """A new app password: what it is for, and which protocols it is good for."""

    label = forms.CharField(
        label="Name",
        max_length=MAX_LABEL,
        widget=forms.TextInput(attrs={"placeholder": "Phone", "autocomplete": "off"}),
    )
    scopes = forms.MultipleChoiceField(
        choices=[
            ("imap", "Reading mail (IMAP)"),
            ("pop3", "Fetching mail (POP3)"),
            ("smtp", "Sending mail (SMTP)"),
            ("jmap", "Reading and sending (JMAP)"),
        ],
        initial=app_passwords.every_scope,
        widget=forms.CheckboxSelectMultiple,
        error_messages={"required": "Choose at least one."},
    )
