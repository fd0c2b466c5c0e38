"""What happens between "the database answers" and "the roles start": checks of the servers, migrations, first run.

It runs in a forked child, so that the supervisor itself never holds a connection; its result comes back as JSON.
"""

from __future__ import annotations

import json
import os
import traceback
from dataclasses import asdict, dataclass

from mailcore.conf import Conf
from mailcore.errors import ConfigError

OLDEST_POSTGRES = 150000
# Off, any of them lets Postgres forget, after a crash, what was acknowledged to a sender.
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")


@dataclass(frozen=True, slots=True)
class Result:
    """What the supervisor needs to know; `error` is one line for the operator and ends the start."""

    error: str = ""
    admin: str = ""  # address and password of the account made on the first run, shown once
    password: str = ""


def run(conf: Conf, embedded: bool, result: int) -> None:
    """Prepare everything and write a Result to the descriptor `result`."""
    try:
        outcome = _prepare(conf, embedded)
    except ConfigError as error:
        outcome = Result(error=str(error))
    except Exception as error:
        traceback.print_exc()
        outcome = Result(error=f"the installation could not be prepared: {_one_line(error)}")
    with os.fdopen(result, "w") as file:
        json.dump(asdict(outcome), file)


def _prepare(conf: Conf, embedded: bool) -> Result:
    check_database(conf.database_url, create=embedded)
    check_redis(conf.redis_url)
    from mailcore import tls

    tls.ensure_certificate(conf)
    tls.trusting(conf.tls_ca)  # says now what is wrong with it, rather than with the first mail that needs it
    _migrate()
    return _first_account(conf)


def check_database(url: str, *, create: bool = False) -> None:
    """Raise ConfigError when the database cannot be reached, is too old, or may lose what it has committed."""
    import psycopg
    from psycopg import sql
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    try:
        wanted = conninfo_to_dict(url)
    except psycopg.ProgrammingError as error:
        raise ConfigError(f"DATABASE_URL: {_one_line(error)}") from None
    name = str(wanted.get("dbname") or "")
    try:
        if create:
            with psycopg.connect(make_conninfo(url, dbname="postgres"), connect_timeout=10, autocommit=True) as server:
                if not server.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
                    server.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with psycopg.connect(url, connect_timeout=10, autocommit=True) as connection:
            version = connection.info.server_version
            values = [
                connection.execute(sql.SQL("SHOW {}").format(sql.Identifier(each))).fetchone() for each in DURABILITY
            ]
    except psycopg.OperationalError as error:
        where = f"{wanted.get('host') or 'the local socket'}"
        raise ConfigError(f"DATABASE_URL: no database at {where}: {_one_line(error)}") from None
    if version < OLDEST_POSTGRES:
        raise ConfigError(f"DATABASE_URL: Postgres {version // 10000} is too old, 15 or newer is needed")
    for setting, value in zip(DURABILITY, values, strict=True):
        if value and value[0] == "off":
            raise ConfigError(
                f"the database has {setting} = off and would lose accepted mail in a crash: set {setting} = on"
            )


def check_redis(url: str) -> None:
    """Raise ConfigError when Redis or Valkey cannot be used."""
    import redis

    try:
        with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
            client.ping()
    except (redis.RedisError, ValueError) as error:
        raise ConfigError(f"REDIS_URL: no Redis or Valkey there: {_one_line(error)}") from None


def _migrate() -> None:
    from django.core.management import call_command
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    from mailcore.supervise import schema

    if trouble := schema.misfit():
        raise ConfigError(trouble)
    executor = MigrationExecutor(connection)
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if plan:
        with connection.cursor() as cursor:  # hosts that start together migrate one after the other
            cursor.execute("SELECT pg_advisory_lock(hashtext('mailstead migrations'))")
            print(f"bringing the database up to date: {len(plan)} step{'' if len(plan) == 1 else 's'}", flush=True)
            call_command("migrate", verbosity=0, interactive=False)
            cursor.execute("SELECT pg_advisory_unlock(hashtext('mailstead migrations'))")
            print("the database is up to date", flush=True)


def _first_account(conf: Conf) -> Result:
    from accounts import passwords
    from accounts.models import Account, Domain
    from mailcore import provision

    if Account.objects.exists():
        return Result()
    domain = Domain.objects.order_by("id").first()
    if domain is None:
        domain = provision.add_domain(first_domain(conf.hostname))
    address, password = f"admin@{domain.name}", passwords.generate_password()
    provision.add_account(address, password=password, admin=True)
    return Result(admin=address, password=password)


def first_domain(hostname: str) -> str:
    """The domain of the first account: example.org for mail.example.org, a local name where the host has none."""
    name = hostname.strip(".").lower()
    labels = name.split(".")
    if len(labels) < 2 or labels[-1] in ("localdomain", "localhost", "internal", "lan", "local"):
        return "mailstead.localhost"
    if len(labels) > 2 and labels[0] in ("mail", "mx", "mx1", "smtp", "imap", "webmail"):
        return ".".join(labels[1:])
    return name


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text[:300] or type(error).__name__
