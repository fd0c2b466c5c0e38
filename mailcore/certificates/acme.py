"""The conversation with a certificate authority (ACME, RFC 8555), in a thread: the library waits where it asks.

A name is proved by HTTP-01: the authority asks http://NAME/.well-known/acme-challenge/TOKEN, and any web process of the
installation answers from the database.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import josepy
import requests
from acme import challenges, client, crypto_util, errors, messages
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from requests.adapters import HTTPAdapter

log = logging.getLogger(__name__)

TIMEOUT = 30
# Seconds for the authority to look at all names, and to issue.
PATIENCE = 180
MAX_WAIT = 7 * 86_400
NONCES = 4
HTTP_01 = "http-01"
# What the library raises when an answer is not of the form that it expects, whichever that is.
_NONSENSE = (errors.Error, josepy.errors.Error, ValueError, TypeError, ArithmeticError, LookupError, AttributeError)


@dataclass(slots=True)
class Account:
    """Ours with an authority: a key (PEM), and its address once the authority knows it."""

    key: bytes
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Authority:
    """Who issues. `binding`: "KID:HMAC", which it gave us where an account must belong to a customer (RFC 8555 §7.3.4);
    `trusted`: who vouches for its web server besides the system's authorities."""

    directory: str
    email: str = ""
    binding: str = ""
    trusted: Path | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """What it takes to get a certificate. `publish(token, answer)` lets the web processes answer."""

    authority: Authority
    names: Sequence[str]
    key: bytes
    publish: Callable[[str, str], None]


@dataclass(slots=True)
class AcmeError(Exception):
    """No certificate, and why. `wait`: seconds the authority wants to be left alone; `refused`: names, with reasons."""

    text: str
    wait: int = 0
    refused: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text


def obtain(question: Question, account: Account) -> str:
    """The certificate with its chain, PEM; sets the account's address. Raises AcmeError."""
    with _conversation(question.authority, account) as (conversation, network):
        _register(conversation, question.authority, account)
        try:
            return _order(conversation, network, question)
        except messages.Error as error:
            if error.code != "accountDoesNotExist":
                raise
        account.uri = ""  # it has forgotten us, as test servers do at every start
        _register(conversation, question.authority, account)
        return _order(conversation, network, question)


def revoke(authority: Authority, account: Account, certificate: x509.Certificate, reason: int) -> None:
    """Have a certificate revoked (RFC 8555 §7.6), for a reason of RFC 5280 §5.3.1. Raises AcmeError."""
    with _conversation(authority, account) as (conversation, _):
        _register(conversation, authority, account)
        try:
            conversation.revoke(certificate, reason)
        except messages.Error as error:
            if error.code != "alreadyRevoked":
                raise


@dataclass(frozen=True, slots=True)
class Advice:
    """When the authority wants a certificate renewed (RFC 9773), and when to ask again; None = it does not say."""

    renew_at: datetime.datetime | None
    ask_at: datetime.datetime | None


def advice(authority: Authority, account: Account, chains: Mapping[str, str]) -> dict[str, Advice]:
    """Ask when to renew certificates (PEM, by name). Raises AcmeError when the authority cannot be asked at all."""
    found = {}
    with _conversation(authority, account) as (conversation, _):
        for name, chain in chains.items():
            try:
                renew_at, ask_at = conversation.renewal_time(chain.encode())
            except errors.ARIError as error:
                log.info("%s: the authority does not say when to renew: %s", name, _line(error.__cause__ or error))
                renew_at, ask_at = None, error.retry_after
            except _NONSENSE as error:
                log.info("%s: the authority's answer when to renew makes no sense: %s", name, _line(error))
                renew_at, ask_at = None, None
            found[name] = Advice(renew_at, ask_at and ask_at.astimezone(datetime.UTC))
    return found


@contextlib.contextmanager
def _conversation(authority: Authority, account: Account) -> Iterator[tuple[client.ClientV2, _Network]]:
    """Talk to an authority; whatever goes wrong is an AcmeError."""
    network = _Network(authority, account)
    try:
        directory = client.ClientV2.get_directory(authority.directory, network)
        yield client.ClientV2(directory, network), network
    except errors.ValidationError as error:
        raise _refused(error, network) from None
    except messages.Error as error:
        raise AcmeError(_words(error), network.wait, _named(error)) from None
    except errors.IssuanceError as error:
        raise AcmeError(_words(error.error), network.wait) from None
    except errors.TimeoutError:
        raise AcmeError(f"the authority was not done within {PATIENCE} seconds") from None
    except requests.JSONDecodeError as error:
        raise AcmeError(f"the authority's answer makes no sense: {_line(error)}", network.wait) from None
    except requests.RequestException as error:
        raise AcmeError(f"the authority cannot be reached: {_line(error)}", network.wait) from None
    except _NONSENSE as error:
        raise AcmeError(f"the authority's answer makes no sense: {_line(error)}", network.wait) from None
    finally:
        network.session.close()


class _Network(client.ClientNetwork):
    """Remembers how long the authority wants to be left alone, and trusts MAILSTEAD_TLS_CA besides the system."""

    def __init__(self, authority: Authority, account: Account) -> None:
        private = serialization.load_pem_private_key(account.key, None)
        if not isinstance(private, EllipticCurvePrivateKey):
            raise AcmeError("the key of the account with the authority is of another kind")
        key = josepy.JWKEC(key=josepy.util.ComparableECKey(private))
        super().__init__(key, alg=josepy.ES256, user_agent="Mailstead", timeout=TIMEOUT)
        self.session.mount("https://", _Adapter(authority.trusted))
        self.wait = 0

    def post(self, *args: Any, **kwargs: Any) -> requests.Response:
        """The library tries one other nonce; a busy authority may have forgotten that one too (RFC 8555 §6.5)."""
        for _ in range(NONCES):
            try:
                return super().post(*args, **kwargs)
            except messages.Error as error:
                if error.code != "badNonce":
                    raise
        return super().post(*args, **kwargs)

    def _send_request(self, method: str, url: str, *args: Any, **kwargs: Any) -> requests.Response:
        kwargs["allow_redirects"] = False
        response = super()._send_request(method, url, *args, **kwargs)
        if response.status_code in (429, 503):
            until = client.ClientV2.retry_after(response, 0)
            seconds = int((until - datetime.datetime.now()).total_seconds()) + 1
            self.wait = max(0, min(seconds, MAX_WAIT))
        return response


class _Adapter(HTTPAdapter):
    def __init__(self, authorities: Path | None) -> None:
        self._context = ssl.create_default_context()
        if authorities is not None:
            self._context.load_verify_locations(authorities)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)


def _register(conversation: client.ClientV2, authority: Authority, account: Account) -> None:
    if account.uri:
        conversation.net.account = messages.RegistrationResource(body=messages.Registration(), uri=account.uri)
        return
    conversation.net.account = None
    wanted = messages.NewRegistration.from_data(
        email=authority.email or None,
        terms_of_service_agreed=True,
        external_account_binding=_binding(conversation, authority),
    )
    try:
        account.uri = conversation.new_account(wanted).uri
    except errors.ConflictError as known:  # of this key, from a time whose end nobody wrote down
        account.uri = known.location
        conversation.net.account = messages.RegistrationResource(body=messages.Registration(), uri=account.uri)


def _binding(conversation: client.ClientV2, authority: Authority) -> dict[str, Any] | None:
    key = conversation.net.key
    if authority.binding and key is not None:
        kid, _, secret = authority.binding.rpartition(":")
        bound: dict[str, Any] = messages.ExternalAccountBinding.from_data(
            key.public_key(), kid, secret, conversation.directory
        )
        return bound
    if conversation.external_account_required():
        raise AcmeError("the authority wants accounts of its customers only: set MAILSTEAD_ACME_EAB")
    return None


def _order(conversation: client.ClientV2, network: _Network, question: Question) -> str:
    deadline = datetime.datetime.now() + datetime.timedelta(seconds=PATIENCE)
    order = conversation.new_order(crypto_util.make_csr(question.key, list(question.names)))
    answers = []
    for authorization in order.authorizations:
        if authorization.body.status == messages.STATUS_VALID:
            continue
        name = authorization.body.identifier.value
        for offered in authorization.body.challenges:
            if isinstance(offered.chall, challenges.HTTP01):
                break
        else:
            raise AcmeError(f"the authority offers no {HTTP_01} for {name}", refused={name: f"no {HTTP_01}"})
        response, answer = offered.response_and_validation(network.key)
        question.publish(offered.chall.encode("token"), answer)
        answers.append((offered, response))
    for offered, response in answers:
        conversation.answer_challenge(offered, response)
    return str(conversation.poll_and_finalize(order, deadline).fullchain_pem)


def _refused(error: errors.ValidationError, network: _Network) -> AcmeError:
    refused = {}
    for authorization in error.failed_authzrs:
        reasons = [_words(each.error) for each in authorization.body.challenges if each.error is not None]
        refused[authorization.body.identifier.value] = "; ".join(reasons)
    text = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
    return AcmeError(text or "the authority could not verify the names", network.wait, refused)


def _named(error: messages.Error) -> dict[str, str]:
    """The names that an answer's parts are about (RFC 8555 §6.7.1)."""
    return {each.identifier.value: _words(each) for each in error.subproblems or () if each.identifier is not None}


def _words(error: messages.Error) -> str:
    kind = error.code or error.typ or "error"
    return " ".join(f"{kind}: {error.detail or error.title or 'without a reason'}".split())[:500]


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
