"""`manage.py certificate`: the certificates that this installation's servers show, issued by ACME or imported."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from accounts import secrets
from accounts.addresses import AddressError, hosted_domain_name
from mailcore import db, tls
from mailcore.certificates import material, renewal
from mailcore.certificates.renewal import Done
from mailcore.conf import conf
from mailcore.delivery.mx import Resolver
from mailcore.errors import Code, MailError
from mailcore.management import base
from mailcore.store import certificates
from mailcore.store.certificates import Stored

T = TypeVar("T")

# Of RFC 5280 §5.3.1, those that authorities take from subscribers.
REASONS = {
    "unspecified": 0,
    "key-compromise": 1,
    "affiliation-changed": 3,
    "superseded": 4,
    "cessation-of-operation": 5,
}


class Command(base.Command):
    help = "List, show, issue, import, renew, revoke, export and remove certificates."

    def add_arguments(self, parser: CommandParser) -> None:
        add = self.subcommands(parser)
        add("list", "List certificates, issued and wanted.").add_argument("--json", action="store_true")
        show = add("show", "Show a certificate and the TLSA records to publish for it.")
        show.add_argument("name", help="a host's name or a hosted domain's, as `list` shows it")
        show.add_argument("--json", action="store_true")
        issue = add("issue", "Have a certificate issued now (MAILSTEAD_ACME), and renewed from then on.")
        issue.add_argument("name", help="a hosted domain (then for its service names that lead here), or a host's name")
        issue.add_argument(
            "others", nargs="*", default=[], metavar="NAME", help="further host names of the same certificate"
        )
        issue.add_argument("--json", action="store_true")
        taken = add("import", "Use a certificate of your own for the names in it; the same again replaces it.")
        taken.add_argument("name", help="one of the names that the certificate is for")
        taken.add_argument("--cert", required=True, metavar="FILE", help="the certificate with its chain, PEM")
        taken.add_argument("--key", required=True, metavar="FILE", help="its private key, PEM")
        taken.add_argument("--json", action="store_true")
        renew = add("renew", "Renew what is due, or the named certificate now.")
        renew.add_argument("name", nargs="?")
        renew.add_argument("--next-key", action="store_true", help="change to the next key, whose TLSA record is out")
        renew.add_argument("--json", action="store_true")
        export = add("export", "Write a certificate and its key to files, for the web proxy.")
        export.add_argument("name")
        export.add_argument("--cert", required=True, metavar="FILE")
        export.add_argument("--key", required=True, metavar="FILE")
        revoke = add("revoke", "Have the authority revoke a certificate, and issue another with the next key.")
        revoke.add_argument("name")
        revoke.add_argument(
            "--reason",
            choices=REASONS,
            default="key-compromise",
            help="what the world is told (default key-compromise)",
        )
        add("remove", "Forget a certificate and its keys.").add_argument("name")

    def list(self, options: dict[str, Any]) -> None:
        with db.django_transaction() as tx:
            stored = db.run_sync(certificates.every(tx))
        rows = [_row(each) for each in stored]
        own = tls.certificate(conf)
        rows.insert(0, _of_files(own.not_valid_after_utc, tuple(tls.names(own)), own.issuer == own.subject))
        if options["json"]:
            self.show_json(rows)
            return
        self.show_rows([row | {"names": ", ".join(row["names"]) or "-"} for row in rows], "")

    def show(self, options: dict[str, Any]) -> None:
        stored = _get(options["name"])
        sealed = [stored.private_key, stored.next_key] if stored.source == "acme" else [stored.private_key]
        keys = [material.unsealed(each) for each in sealed]
        records = [
            record
            for host in _hosts(stored)
            for record in material.tlsa_records(host, [material.key_digest(key) for key in keys])
        ]
        fields = _row(stored) | {"valid_from": stored.not_before, "tried_at": stored.tried_at}
        if stored.error:
            fields |= {"next_try_at": stored.next_try_at}
        if options["json"]:
            listed = [{"name": each.name, "type": each.type, "value": each.value} for each in records]
            self.show_json(fields | {"records": listed, "chain": stored.chain})
            return
        self.show_fields((fields | {"names": ", ".join(stored.names) or None}).items())
        if records:
            self.stdout.write("\nTLSA records, of use where DNSSEC signs the zone and a host takes mail by that name:")
        for record in records:
            self.stdout.write(str(record))
        if records and stored.source == "acme":
            self.stdout.write(
                "The first is for its key, the other for the one that `renew --next-key` changes to; both"
            )
            self.stdout.write("stay valid when the certificate is renewed.")

    def issue(self, options: dict[str, Any]) -> None:
        _need_authority()
        names = [_host_name(each) for each in (options["name"], *options["others"])]
        with db.django_transaction() as tx:
            domains = db.run_sync(certificates.hosted_domains(tx))
            known = db.run_sync(certificates.get(tx, names[:1]))
        of_domain = names[0] in domains and names[0] != conf.hostname.lower()
        if of_domain and len(names) > 1:
            raise CommandError(f"{names[0]} is a hosted domain: its certificate is for its service names.")
        if known and (known[0].source == "imported" or (not of_domain and known[0].chain and len(names) > 1)):
            raise CommandError(f"There is a certificate of that name: `manage.py certificate remove {names[0]}` first.")

        async def work() -> Done | None:
            below = [f"{service}.{names[0]}" for service in renewal.SERVICES]
            await renewal.want(names[0], below if of_domain else names)
            return await renewal.obtain(conf, names[0], force=True)

        self._report([_run(work())], options)

    def renew(self, options: dict[str, Any]) -> None:
        _need_authority()
        if options["name"]:
            stored = _get(options["name"])
            if stored.source == "imported":
                raise CommandError(f"{stored.name} was imported: import the new one.")
            done: Sequence[Done | None] = [
                _run(renewal.obtain(conf, stored.name, force=True, next_key=options["next_key"]))
            ]
        elif options["next_key"]:
            raise CommandError("Say which certificate is to change its key.")
        else:
            done = _run(self._renew_all(quiet=options["json"]))
        self._report(done, options)

    async def _renew_all(self, *, quiet: bool) -> Sequence[Done | None]:
        due = await renewal.look(conf, Resolver(conf.dns))
        done = []
        for number, name in enumerate(due, 1):
            if not quiet:
                self.stdout.write(f"{number} of {len(due)}: {name}")
                self.stdout.flush()
            done.append(await renewal.obtain(conf, name))
        return done

    def _report(self, results: Sequence[Done | None], options: dict[str, Any]) -> None:
        done = [each for each in results if each is not None]
        if options["json"]:
            self.show_json([{"name": each.name, "names": each.names, "error": each.error} for each in done])
        else:
            for each in done:
                if each.names:
                    self.stdout.write(f"Certificate for {', '.join(each.names)}: in use within seconds.")
                if each.error:
                    self.stderr.write(f"Not issued: {each.error}")
            if not results:
                self.stdout.write("Nothing is due.")
        if None in results and not options["json"]:
            self.stderr.write("Somebody else is at it, or it has to wait: `manage.py certificate list`.")
        if any(each is None or each.error for each in results):
            raise SystemExit(1)

    def export(self, options: dict[str, Any]) -> None:
        stored = _get(options["name"])
        if stored.chain is None:
            raise CommandError(f"{stored.name} has not been issued yet.")
        _write(Path(options["key"]), material.unsealed(stored.private_key), 0o600)
        _write(Path(options["cert"]), stored.chain.encode(), 0o644)
        self.stdout.write(f"Valid until {stored.not_after:%Y-%m-%d}; export it again after each renewal.")

    def revoke(self, options: dict[str, Any]) -> None:
        _need_authority()
        stored = _get(options["name"])
        if stored.source == "imported" or stored.chain is None:
            raise CommandError("Only a certificate that MAILSTEAD_ACME issued can be revoked here.")

        async def work() -> Done | None:
            await renewal.revoke(conf, stored, REASONS[options["reason"]])
            self.stdout.write("Certificate revoked; another one is asked for.")
            self.stdout.flush()
            return await renewal.obtain(conf, stored.name, force=True, next_key=True)

        done = _run(work())
        self._report([done], {"json": False})
        self.stdout.write("Its key has changed: `manage.py certificate show` has the TLSA record of the one after it.")

    def remove(self, options: dict[str, Any]) -> None:
        stored = _get(options["name"])
        with db.django_transaction() as tx:
            db.run_sync(certificates.remove(tx, stored.name))
        self.stdout.write(f"Certificate {stored.name} removed.")
        if conf.acme and stored.source == "acme":
            self.stdout.write("What leads to this host gets a new one, with a new key, when the worker looks next.")


def _import(self: Command, options: dict[str, Any]) -> None:
    name = _host_name(options["name"])
    checked = material.check(_read(options["cert"]), _read(options["key"]))
    if not tls.covers(checked.names, name):
        raise CommandError(f"The certificate is not for {name}, only for {', '.join(checked.names)}.")
    if checked.ends < timezone.now():
        raise CommandError(f"The certificate expired on {checked.ends:%Y-%m-%d}.")
    following = secrets.seal(material.new_key())
    with db.django_transaction() as tx:
        if known := db.run_sync(certificates.get(tx, [name])):
            following = known[0].next_key
        keep = certificates.keep(
            tx,
            name,
            "imported",
            checked.names,
            checked.chain,
            secrets.seal(checked.key),
            following,
            (checked.begins, checked.ends),
        )
        db.run_sync(keep)
    done = Done(name, checked.names)
    if checked.self_signed:
        self.stderr.write("It is self-signed: nobody else will trust it.")
    self._report([done], options)


setattr(Command, "import", _import)  # a word that Python keeps for itself


def _run(work: Coroutine[Any, Any, T]) -> T:
    logging.getLogger(renewal.__name__).setLevel(logging.ERROR)  # what it warns of, _report says

    async def run() -> T:
        await db.open_pool(2)
        try:
            return await work
        finally:
            await db.close_pool()

    return asyncio.run(run())


def _need_authority() -> None:
    if not conf.acme:
        raise CommandError("No authority is named: set MAILSTEAD_ACME=letsencrypt, or another's address.")


def _host_name(text: str) -> str:
    try:
        name = hosted_domain_name(text.removeprefix("*."))
    except AddressError as error:
        raise CommandError(f"{text!r} is no host name: {error}") from None
    if text.startswith("*."):
        raise CommandError("Certificates for all names of a domain (*) can be imported under one of the names.")
    return name


def _get(text: str) -> Stored:
    name = _host_name(text)
    with db.django_transaction() as tx:
        found = db.run_sync(certificates.get(tx, [name]))
    if not found:
        text = f"There is no certificate {name}, issued or imported: `manage.py certificate list`."
        raise MailError(Code.NOT_FOUND, text)
    return found[0]


def _row(stored: Stored) -> dict[str, Any]:
    return {
        "name": stored.name,
        "source": stored.source,
        "names": list(stored.names),
        "valid_until": stored.not_after,
        "error": stored.error or None,
    }


def _of_files(ends: datetime, names: tuple[str, ...], self_signed: bool) -> dict[str, Any]:
    source = "file" if conf.tls_cert else "self-signed" if self_signed else "data directory"
    return {"name": "(default)", "source": source, "names": list(names), "valid_until": ends, "error": None}


def _hosts(stored: Stored) -> tuple[str, ...]:
    """The names among a certificate's that may be a mail server's."""
    web = ("mta-sts.", "autoconfig.", "autodiscover.", "*.")
    return tuple(name for name in stored.names or (stored.name,) if not name.startswith(web))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(material.MAX_FILE + 1)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    if len(content) > material.MAX_FILE:
        raise CommandError(f"{path} is too large for a certificate.")
    return content


def _write(path: Path, content: bytes, mode: int) -> None:
    try:
        aside = path.with_name(path.name + ".new")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(content)
        aside.replace(path)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
