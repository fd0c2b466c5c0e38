"""How django-allauth behaves here: no signing up, our throttle, secrets sealed."""

from __future__ import annotations

import logging
from base64 import b64decode, b64encode
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.mfa.adapter import DefaultMFAAdapter
from django.contrib.auth.base_user import AbstractBaseUser
from django.core.exceptions import ValidationError
from django.http import HttpRequest

from accounts.notices import credentials_changed
from accounts.passwords import unusable_reason
from accounts.secrets import seal, unseal
from accounts.throttle import sign_ins

log = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):
    """Nobody signs up: an administrator makes accounts."""

    error_messages = DefaultAccountAdapter.error_messages | {
        "username_password_mismatch": "The address or the password is not right.",
        "too_many_login_attempts": "Too many failed attempts. Wait a few minutes, then try again.",
    }

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return False

    def clean_password(self, password: str, user: AbstractBaseUser | None = None) -> str:
        """A new password has to be one that mail programs can send, too."""
        if reason := unusable_reason(password):
            raise ValidationError(reason)
        return str(super().clean_password(password, user))

    def set_password(self, user: AbstractBaseUser, password: str) -> None:
        super().set_password(user, password)
        credentials_changed(user.pk)

    def pre_authenticate(self, request: HttpRequest, **credentials: Any) -> None:
        """Refuse guessing before any password is hashed, by our own count and then by allauth's."""
        source, address = self.get_client_ip(request), str(credentials.get("username", ""))
        if sign_ins.refusal(source, address) is not None:
            log.warning("sign-in refused: too many failures, source=%s account=%r", source, address[:320])
            raise self.validation_error("too_many_login_attempts")
        super().pre_authenticate(request, **credentials)

    def authenticate(self, request: HttpRequest, **credentials: Any) -> AbstractBaseUser | None:
        user = super().authenticate(request, **credentials)
        source, address = self.get_client_ip(request), str(credentials.get("username", ""))
        if user is None:
            # The answer is not made to wait: a page served by a thread must not let strangers occupy all of them.
            sign_ins.failed(source, address)
            log.warning("sign-in failed: source=%s account=%r", source, address[:320])
        else:
            sign_ins.succeeded(source, address)
            log.info("signed in: source=%s account=%s", source, user.get_username())
        return user

    def add_message(self, *args: Any, **kwargs: Any) -> None:
        """Stay quiet: 'Successfully signed in as …' is no news to whoever did it."""
        template = kwargs.get("message_template") or (args[2] if len(args) > 2 else None)
        if template in ("account/messages/logged_in.txt", "account/messages/logged_out.txt"):
            return
        super().add_message(*args, **kwargs)


class MfaAdapter(DefaultMFAAdapter):
    """Second factors: TOTP secrets and recovery codes are sealed with the installation key."""

    def encrypt(self, text: str) -> str:
        return b64encode(seal(text.encode())).decode("ascii")

    def decrypt(self, encrypted_text: str) -> str:
        return unseal(b64decode(encrypted_text)).decode()

    def get_totp_issuer(self) -> str:
        return "Mailstead"
