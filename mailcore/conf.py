"""Settings of an installation, read once from the environment (the table of DESIGN §2).

Every setting is one field of `Conf`; its name, default, parser and meaning stand together, and `manage.py showconfig`
prints them all. A secret, like every other setting, is also read from the file that `NAME_FILE` names.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mailcore.errors import ConfigError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
HostPort = tuple[str, int]


def _number(text: str, what: str) -> int:
    if not (text.strip().isascii() and text.strip().isdigit()) or len(text) > 18:
        raise ValueError(what)
    return int(text)


def _port(text: str) -> int:
    value = _number(text, "a port is a number from 0 to 65535")
    if value > 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return value


def _positive(text: str) -> int:
    value = _number(text, "must be a number, at least 1")
    if value < 1:
        raise ValueError("must be a number, at least 1")
    return value


def _flag(text: str) -> bool:
    lowered = text.lower()
    if lowered in ("1", "on", "yes", "true"):
        return True
    if lowered in ("0", "off", "no", "false", ""):
        return False
    raise ValueError("must be on or off")


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()


def _host_port(text: str) -> HostPort:
    host, _, port = text.rpartition(":")
    if not host:
        raise ValueError("must be host:port")
    return host.strip("[]"), _port(port)


def _host_ports(text: str) -> tuple[HostPort, ...]:
    return tuple(_host_port(part.strip()) for part in text.split(",") if part.strip())


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ipaddress.ip_network(part.strip(), strict=False) for part in text.split(",") if part.strip())


def _checks(text: str) -> tuple[str, ...]:
    found = tuple(part.strip().lower() for part in text.split(",") if part.strip())
    for each in found:
        if each.startswith(("rspamd=", "clamd=")):
            raise ValueError(f"{each.partition('=')[0]} is not asked yet: set on or off")
    if found not in (("on",), ("off",)):
        raise ValueError("must be on or off")
    return found


_AUTHORITIES = {
    "off": "",
    "letsencrypt": "https://acme-v02.api.letsencrypt.org/directory",
    "letsencrypt-staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}


def _authority(text: str) -> str:
    url = _AUTHORITIES.get(text.lower(), text)
    if url and not url.startswith("https://"):
        raise ValueError(f"must be {', '.join(_AUTHORITIES)} or the https:// address of an ACME directory")
    return url


def _mail_address(text: str) -> str:
    local, _, domain = text.rpartition("@")
    if not local or not domain or not text.isascii() or any(each.isspace() for each in text):
        raise ValueError("must be a mail address")
    return text


def _binding(text: str) -> str:
    kid, _, secret = text.rpartition(":")
    if not kid or not re.fullmatch(r"[A-Za-z0-9_-]{16,}={0,2}", secret):
        raise ValueError("must be KID:HMAC as the authority shows them, the second in base64url")
    return text


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError("must be one of " + ", ".join(choices))
        return text.lower()

    return parse


@dataclass(frozen=True, slots=True)
class Smarthost:
    """Where all outbound mail goes instead of the recipients' MX hosts."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None


def _smarthost(text: str) -> Smarthost | None:
    if not text:
        return None
    where, _, login = text.partition(";")
    host, port = _host_port(where)
    user, _, password = login.partition(":")
    return Smarthost(host, port, user or None, password or None)


def _fqdn() -> str:
    name = socket.gethostname()
    # Asking the resolver can take long on a machine without a network: only when the name is not full already.
    return (name if "." in name else socket.getfqdn()) or "localhost"


def _loopback() -> tuple[Network, ...]:
    return _networks("127.0.0.0/8, ::1")


def _env(name: str, default: Any, parse: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    meta = {"env": name, "parse": parse, "meaning": meaning, "secret": secret}
    if callable(default):
        return field(default_factory=default, metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, slots=True)
class Conf:
    data: Path = _env("MAILSTEAD_DATA", lambda: _path("data"), _path, "data directory")
    database: str = _env("DATABASE_URL", "", str, "Postgres; empty = embedded", secret=True)
    redis: str = _env("REDIS_URL", "", str, "Redis or Valkey; empty = embedded", secret=True)
    hostname: str = _env("MAILSTEAD_HOSTNAME", _fqdn, str, "name in banners, EHLO and Received")
    bind: str = _env("MAILSTEAD_BIND", "127.0.0.1", str, "address of all listeners")
    http_port: int = _env("MAILSTEAD_HTTP_PORT", 8000, _port, "webmail, administration, JMAP")
    smtp_port: int = _env("MAILSTEAD_SMTP_PORT", 2525, _port, "SMTP from other servers (MX)")
    submission_port: int = _env("MAILSTEAD_SUBMISSION_PORT", 2587, _port, "submission with STARTTLS")
    submissions_port: int = _env("MAILSTEAD_SUBMISSIONS_PORT", 2465, _port, "submission over TLS")
    imap_port: int = _env("MAILSTEAD_IMAP_PORT", 2143, _port, "IMAP with STARTTLS")
    imaps_port: int = _env("MAILSTEAD_IMAPS_PORT", 2993, _port, "IMAP over TLS")
    pop3_port: int = _env("MAILSTEAD_POP3_PORT", 2110, _port, "later, nothing listens yet: POP3 with STLS")
    pop3s_port: int = _env("MAILSTEAD_POP3S_PORT", 2995, _port, "later, nothing listens yet: POP3 over TLS")
    sieve_port: int = _env("MAILSTEAD_SIEVE_PORT", 4190, _port, "later, nothing listens yet: ManageSieve")
    lmtp_port: int = _env("MAILSTEAD_LMTP_PORT", 0, _port, "LMTP from a trusted front end; 0 = off")
    dns: tuple[HostPort, ...] = _env("MAILSTEAD_DNS", (), _host_ports, "resolvers; empty = the system's")
    dnssec: str = _env(
        "MAILSTEAD_DNSSEC", "auto", _one_of("auto", "on", "off"), "believe what they say of DNSSEC; auto = on loopback"
    )
    smtp_out_port: int = _env("MAILSTEAD_SMTP_OUT_PORT", 25, _port, "port that MX hosts are reached on")
    out_allow: tuple[Network, ...] = _env(
        "MAILSTEAD_OUT_ALLOW", (), _networks, "private or loopback networks that outbound mail may reach"
    )
    out_prefer: str = _env(
        "MAILSTEAD_OUT_PREFER",
        "ipv4",
        _one_of("ipv4", "ipv6", "ipv4-only", "ipv6-only"),
        "addresses of other servers that are tried first, or only",
    )
    smarthost: Smarthost | None = _env(
        "MAILSTEAD_SMARTHOST", None, _smarthost, "host:port[;user:password] for all outbound mail", secret=True
    )
    plaintext_auth: str = _env(
        "MAILSTEAD_PLAINTEXT_AUTH", "loopback", _one_of("never", "loopback", "always"), "login without TLS"
    )
    scram: bool = _env(
        "MAILSTEAD_SCRAM", False, _flag, "offer SCRAM-SHA-256: app passwords can use it, other passwords cannot"
    )
    processes: int = _env("MAILSTEAD_PROCESSES", 1, _positive, "number of async mail processes")
    workers: int = _env("MAILSTEAD_WORKERS", 1, _positive, "number of worker processes, which send mail")
    checks: tuple[str, ...] = _env("MAILSTEAD_CHECKS", ("on",), _checks, "on or off: the checks of mail from outside")
    send_limits: bool = _env(
        "MAILSTEAD_SEND_LIMITS", True, _flag, "count what people send, and refuse what policies do not allow"
    )
    message_size: int = _env("MAILSTEAD_MESSAGE_SIZE", 50 * 1024 * 1024, _positive, "largest message, octets")
    secret_key: str = _env(
        "MAILSTEAD_SECRET_KEY", "", str, "installation key; empty = kept in the data directory", secret=True
    )
    proxies: tuple[Network, ...] = _env(
        "MAILSTEAD_PROXIES", (), _networks, "networks of web proxies whose X-Forwarded-For and -Proto are believed"
    )
    proxy_from: tuple[Network, ...] = _env(
        "MAILSTEAD_PROXY_FROM", (), _networks, "networks of mail balancers, which must send a PROXY header (v1, v2)"
    )
    lmtp_from: tuple[Network, ...] = _env(
        "MAILSTEAD_LMTP_FROM", _loopback, _networks, "networks of front ends that may hand in mail by LMTP"
    )
    tls_cert: Path | None = _env("MAILSTEAD_TLS_CERT", None, _path, "certificate with chain, PEM; empty = self-signed")
    tls_key: Path | None = _env("MAILSTEAD_TLS_KEY", None, _path, "its private key, PEM")
    tls_ca: Path | None = _env(
        "MAILSTEAD_TLS_CA", None, _path, "authorities trusted besides the system's when certificates are checked, PEM"
    )
    acme: str = _env(
        "MAILSTEAD_ACME", "", _authority, "who issues certificates: off, letsencrypt, letsencrypt-staging or a URL"
    )
    acme_email: str = _env("MAILSTEAD_ACME_EMAIL", "", _mail_address, "whom that authority may write to")
    acme_eab: str = _env(
        "MAILSTEAD_ACME_EAB",
        "",
        _binding,
        "KID:HMAC that an authority gives its customers for the account",
        secret=True,
    )
    tls_reports: str = _env(
        "MAILSTEAD_TLS_REPORTS", "tls-reports", str, "local part of the addresses that TLS reports arrive at"
    )
    log_format: str = _env("MAILSTEAD_LOG_FORMAT", "text", _one_of("text", "json"), "how log lines look")
    log_level: str = _env(
        "MAILSTEAD_LOG_LEVEL", "info", _one_of("debug", "info", "warning", "error"), "least important line to log"
    )
    debug: bool = _env("MAILSTEAD_DEBUG", False, _flag, "Django's debug pages; never in production")

    @property
    def database_url(self) -> str:
        """URL of the Postgres in use: yours, or the embedded one as `manage.py up` last announced it."""
        return self.database or self._embedded("database_url", "DATABASE_URL")

    @property
    def redis_url(self) -> str:
        """URL of the Redis or Valkey in use: yours, or the embedded one."""
        return self.redis or self._embedded("redis_url", "REDIS_URL")

    @property
    def embedded_file(self) -> Path:
        """Where `manage.py up` leaves the addresses of its own Postgres and Valkey (mode 0600)."""
        return self.data / "embedded.json"

    def _embedded(self, key: str, variable: str) -> str:
        try:
            return str(json.loads(self.embedded_file.read_text())[key])
        except (OSError, ValueError, KeyError):
            raise ConfigError(
                f"nothing is running in {self.data}: start `make up` first, or set {variable} to use your own server"
            ) from None


def load(environ: Mapping[str, str] | None = None) -> Conf:
    """Read all settings; raise ConfigError naming the variable that cannot be used."""
    environ = os.environ if environ is None else environ
    values: dict[str, Any] = {}
    for item in fields(Conf):
        name = item.metadata["env"]
        text = environ.get(name)
        if text is None and (path := environ.get(name + "_FILE")):
            try:
                text = Path(path).read_text().strip()
            except OSError as error:
                raise ConfigError(f"{name}_FILE: cannot read {path}: {error.strerror}") from None
        if text is None or text == "":
            continue
        try:
            values[item.name] = item.metadata["parse"](text)
        except ValueError as error:
            shown = "what it is set to" if item.metadata["secret"] else repr(text)
            raise ConfigError(f"{name}: {shown} cannot be used: {error}") from None
    return Conf(**values)


conf = load()
