"""Turns Mailstead's settings into what Django wants: the database dictionary and the installation key."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import django

from mailcore.conf import Conf, ConfigError

# A server that vanishes without a word (its machine, or the network between) is given up after half a minute instead of
# hours, in which every connection of the pool would wait for it.
_KEEPALIVES = {
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


def database(url: str) -> dict[str, Any]:
    """Django's DATABASES entry for a postgres:// URL; its query names libpq's parameters (?sslmode=verify-full), and a
    socket directory as ?host=/path."""
    parts = urlsplit(url)
    if parts.scheme not in ("postgres", "postgresql"):
        raise ConfigError("DATABASE_URL: must begin with postgresql://")
    query = dict(parse_qsl(parts.query))
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": unquote(parts.path.lstrip("/")) or "mailstead",
        "USER": unquote(parts.username or ""),
        "PASSWORD": unquote(parts.password or ""),
        "HOST": query.pop("host", parts.hostname or ""),
        "PORT": query.pop("port", str(parts.port or "")),
        "CONN_MAX_AGE": 60,
        # Server-side binding, so that both drivers of mailcore.db give every statement the same types.
        "OPTIONS": {"server_side_binding": True, **_KEEPALIVES, **query},
        # A suite of several workers, and CI's, each get a database of their own from this name.
        "TEST": {"NAME": "test_" + (unquote(parts.path.lstrip("/")) or "mailstead")},
    }


def database_or_none(conf: Conf) -> dict[str, Any]:
    """As `database`, or a placeholder that fails with a clear line when nothing is running yet."""
    try:
        return database(conf.database_url)
    except ConfigError:
        if conf.database:
            raise
        return {"ENGINE": "django.db.backends.postgresql", "NAME": "mailstead", "HOST": str(conf.data / "not-started")}


def installation_key(conf: Conf) -> str:
    """The key that signs sessions and seals secrets; made on first use, kept in the data directory (mode 0600).

    The directory has to be there, as `up` makes it: a slip in MAILSTEAD_DATA must not found a second installation.
    """
    if conf.secret_key:
        return conf.secret_key
    path = conf.data / "secret.key"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        pass
    except OSError as error:
        raise ConfigError(f"MAILSTEAD_DATA: cannot read {path}: {error.strerror}") from None
    if not conf.data.is_dir():
        raise ConfigError(
            f"MAILSTEAD_DATA: there is no directory {conf.data}: start `make up` first, or make it if it is to be new"
        )
    key = secrets.token_urlsafe(48)
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(key + "\n")
        os.link(draft, path)  # whole or not at all, and never over another process's key
    except FileExistsError:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigError(f"MAILSTEAD_DATA: cannot write {path}: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):  # where nothing can be written there is none
            draft.unlink()
    return key


def static_url(root: Path, debug: bool) -> str:
    """Where scripts and styles are: below a digest of them all, so that browsers may keep them until they change."""
    if debug:
        return "/static/"
    digest = hashlib.sha256(django.__version__.encode())  # its admin has files of its own
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return f"/static/v-{digest.hexdigest()[:12]}/"
