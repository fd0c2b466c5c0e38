"""One client's session: its state, and the order of things around each command."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from mailcore import db, wake
from mailcore.auth import standing
from mailcore.errors import Code, MailError
from mailcore.imap import errors, offers, turns, updates
from mailcore.imap.capabilities import Enabled
from mailcore.imap.commands import append
from mailcore.imap.errors import Gone, Refused
from mailcore.imap.progress import SLOW
from mailcore.imap.registry import COMMANDS, Spec, State
from mailcore.imap.selected import Selected
from mailcore.imap.uidonly import check as check_uid_only
from mailcore.imap.upload import Upload
from mailcore.wake import Change
from mailcore.wire.imap import parse, response
from mailcore.wire.imap.errors import ImapSyntaxError
from mailcore.wire.imap.frames import Continue, Event, Frame, LiteralData, LiteralOffer, Rejected

if TYPE_CHECKING:
    from mailcore.auth.login import Identity
    from mailcore.imap.connection import Connection
    from mailcore.imap.notifier import Notifier
    from mailcore.imap.server import Server

log = logging.getLogger(__name__)


class Session:
    """What a connection is about; handlers read and change it."""

    __slots__ = (
        "_unsubscribe",
        "_unwatch",
        "append_to",
        "connection",
        "described",
        "enabled",
        "errors",
        "failures",
        "heard",
        "identity",
        "idling",
        "notifier",
        "owed",
        "selected",
        "server",
        "state",
        "tag",
        "upload",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.server: Server = connection.server
        self.state = State.NOT_AUTHENTICATED
        self.identity: Identity | None = None
        self.enabled = Enabled(0)
        self.selected: Selected | None = None
        self.idling = False
        self.heard = False
        self.failures = 0
        self.errors = 0
        self.tag = ""
        """Of the command that runs."""
        self.owed: list[str] = []
        """Tags of commands that it answers too, before its own (see `runs`)."""
        self.append_to: tuple[str, append.Target] | None = None
        """The tag of an APPEND that has been checked before its literal came, and its mailbox."""
        self.upload: Upload | None = None
        self.notifier: Notifier | None = None
        """What NOTIFY asked for; None before the first, when IMAP's own rules say what is told."""
        self.described = 0
        """UIDs below have been described to a client that asked NOTIFY for that."""
        self._unsubscribe: Callable[[], None] | None = None
        self._unwatch: Callable[[], None] | None = None

    # -- life

    async def run(self) -> None:
        """Serve the connection until it ends; never raises."""
        connection = self.connection
        try:
            greeting = response.capability_code(offers.capabilities(self))
            self.send(response.status_line(None, "OK", f"{self.server.hostname} Mailstead ready", greeting))
            while self.state is not State.LOGOUT and (event := await self._next_event()) is not None:
                await self._handle(event)
                await connection.drain()
            if self.state is not State.LOGOUT:
                raise Gone(connection.goodbye)
        except Gone as gone:
            self.send(response.status_line(None, "BYE", gone.text))
        except ConnectionError as error:
            if error.__cause__ is not None:
                log.warning("an IMAP session of %s was cut: %s (%r)", self.who, error, error.__cause__)
        except Exception:
            log.exception("an IMAP session of %s broke", connection.remote)
            self.send(response.status_line(None, "BYE", "Internal error", "SERVERBUG"))
        finally:
            self.deselect()
            if self.notifier is not None:
                self.notifier.close()
            if self.upload is not None:
                self.upload.close()
            if self._unwatch is not None:
                self._unwatch()
            if self.identity is not None:
                self.server.leave(self.identity.account_id)
            connection.close()

    async def _next_event(self) -> Event | None:
        """What the client sends next; until then, what NOTIFY wants to be told goes out."""
        connection = self.connection
        while (notifier := self.notifier) is not None and connection.peek() is None:
            view = self.selected if notifier.immediate else None
            if notifier.pending:
                await notifier.flush()
                await connection.drain()
                continue
            if view is not None and (view.dirty or not view.quiet):
                await updates.refresh(self, expunge=True)
                await connection.drain()
                if not view.dirty:
                    continue
                asyncio.get_running_loop().call_later(updates.RETRY_SECONDS, connection.wake)
            if not await connection.wait():
                break
        return await connection.next_event()

    async def _handle(self, event: Event) -> None:
        match event:
            case Frame():
                self.tag = event.tag
                await self._execute(event)
                self._forget_upload()
            case Continue():
                self.send(response.continuation_line("OK"))
            case LiteralOffer():
                self.tag = event.tag
                await self._offer(event)
            case LiteralData():
                self._store(event)
            case Rejected():
                self._forget_upload()
                self.send(response.status_line(event.tag, event.status, event.text, event.code))
                if event.fatal:
                    raise Gone("Your input cannot be followed any more")
                self._count_error(event.status)

    async def _execute(self, frame: Frame) -> None:
        """Run one command and send its tagged answer, with what the client is told unasked before it."""
        name = parse.command_name(frame)
        spec = COMMANDS.get(name)
        gone: Gone | None = None
        try:
            if spec is not None:
                self._check_state(spec)
            command = parse.parse_command(frame, utf8=self.utf8)
            if spec is None:
                raise errors.bad(f"{name} is not supported here")
            if self.enabled & Enabled.UIDONLY:
                check_uid_only(spec, command)
            if name in SLOW:
                self.server.progress.begin(self)
            if spec.state is State.SELECTED and self.view.shared:
                async with db.read() as tx:
                    await updates.renew_rights(self, tx)
            had, view = self.enabled, self.selected
            done = await turns.take(self, name, spec.run(self, command))
            if done is not None:
                gone = await self._tell_news(spec)
                if view is not None and view is self.selected and self.enabled & ~had & Enabled.CONDSTORE:
                    # Whoever asks for the first time is told where the mailbox is (RFC 7162 §3.1).
                    code = response.code("HIGHESTMODSEQ", b"%d" % view.told)
                    self.send(response.status_line(None, "OK", "Highest that you know everything up to", code))
                self.errors = 0
                self._answer("OK", done.text, done.code)
        except (Refused, MailError, ImapSyntaxError) as error:
            refused = self._refuse(name, error)
            if spec is not None and refused.status == "NO":
                gone = await self._tell_news(spec)
            self._answer(refused.status, refused.text, refused.code)
            self._count_error(refused.status)
        except Gone as event:
            if event.answer is not None:
                refused = self._refuse(name, event.answer)
                self._answer(refused.status, refused.text, refused.code)
            raise
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s failed for %s", name, self.who)
            self._answer("NO", "Internal error; it has been logged", "SERVERBUG")
        finally:
            self.server.progress.end(self)
        if gone is not None:
            raise gone

    async def _tell_news(self, spec: Spec) -> Gone | None:
        """What is new, before the tagged answer. That the mailbox is gone waits: what was done has to be answered."""
        try:
            await updates.after(self, spec)
        except Gone as event:
            return event
        return None

    def _answer(self, status: str, text: str, code: bytes | str | None) -> None:
        """The tagged answer to the command that runs, and to all that it still owes one."""
        for tag in (*self.owed, self.tag):
            self.send(response.status_line(tag, status, text, code))
        self.owed = []

    def _refuse(self, name: str, error: Refused | MailError | ImapSyntaxError) -> Refused:
        if isinstance(error, MailError) and error.private:
            log.warning("%s for %s: %s (%s)", name, self.who, error.text, error.private)
        if isinstance(error, ImapSyntaxError) and error.saving and self.selected is not None:
            self.selected.save(())
        return errors.refusal(error)

    def _check_state(self, spec: Spec) -> None:
        if spec.state & self.state:
            return
        if self.state is State.NOT_AUTHENTICATED:
            raise errors.bad(f"{spec.name} is not possible yet: log in first")
        if spec.state & State.NOT_AUTHENTICATED:
            raise errors.bad(f"{spec.name} is not possible any more: you are logged in")
        raise errors.bad(f"{spec.name} needs a mailbox: SELECT one first")

    def _count_error(self, status: str) -> None:
        if status != "BAD":
            return
        self.errors += 1
        limits = self.server.limits
        if self.errors >= (limits.errors if self.identity is None else limits.errors_logged_in):
            raise Gone("Too many errors")

    async def _offer(self, offer: LiteralOffer) -> None:
        """Decide about a message that the client wants to send."""
        framer = self.connection.framer
        try:
            # What comes anyway is looked at when it is there; of what is quickly sent, the words alone before.
            if framer.literal_octets > 2 * framer.limits.message:
                raise MailError(Code.TOO_BIG, "the messages of one APPEND are too big together")
            if offer.sync:
                head = parse.parse_append_head(offer.pieces, utf8=self.utf8)
                if offer.size > framer.limits.literal:
                    await append.check(self, offer.tag, head, offer.size)
        except (Refused, MailError, ImapSyntaxError) as error:
            refused = errors.refusal(error)
            code = refused.code.decode() if isinstance(refused.code, bytes) else refused.code
            framer.refuse(refused.text, status=refused.status, code=code)
            return
        if offer.size <= framer.limits.literal and framer.memory <= self.server.limits.spool:
            framer.accept_in_memory()
            return
        if self.upload is None:
            self.upload = Upload(self.server.limits.spool)
        self.upload.begin()
        framer.accept_stream()

    def _store(self, event: LiteralData) -> None:
        if self.upload is not None:
            try:
                self.upload.add(event.data)
            except OSError as error:
                log.error("an uploaded message cannot be kept: %s", error)
                self._forget_upload()
                if not event.last:
                    self.connection.framer.refuse("There is no room for the message now", code="UNAVAILABLE")

    def _forget_upload(self) -> None:
        self.append_to = None
        if self.upload is not None:
            self.upload.close()
            self.upload = None

    # -- what handlers use

    def enter(self, identity: Identity) -> None:
        """The client has logged in, and stays for as long as what it logged in with is good. Raises TOO_MANY."""
        self.server.enter(identity.account_id)
        self.identity = identity
        self.state = State.AUTHENTICATED
        self.connection.framer.limits = self.server.frames_after_login
        self.connection.known()
        self._unwatch = standing.watch(identity.credential, self._no_longer_welcome)

    def _no_longer_welcome(self) -> None:
        log.info("an IMAP session of %s ends: its login is no longer good", self.who)
        self.connection.dismiss("Your password or account has changed: log in again")

    @property
    def account_id(self) -> int:
        """The account of the client, who has logged in."""
        assert self.identity is not None
        return self.identity.account_id

    @property
    def view(self) -> Selected:
        """The selected mailbox; only in the selected state."""
        assert self.selected is not None
        return self.selected

    @property
    def who(self) -> str:
        """For the log."""
        return self.identity.address if self.identity is not None else self.connection.remote

    @property
    def utf8(self) -> bool:
        """Mailbox names travel as UTF-8."""
        return bool(self.enabled & (Enabled.IMAP4REV2 | Enabled.UTF8))

    @property
    def rev2(self) -> bool:
        """The client enabled IMAP4rev2: no RECENT, ESEARCH instead of SEARCH, LIST in SELECT."""
        return bool(self.enabled & Enabled.IMAP4REV2)

    def send(self, data: bytes) -> None:
        """Queue whole lines."""
        self.connection.write(data)

    def object_id(self, kind: str, account_id: int, number: int) -> str:
        """An object id of RFC 8474; numbers are of an account, so that of another one belongs to it."""
        return f"{kind}{number}" if account_id == self.account_id else f"{kind}{number}-{account_id}"

    def listen(self, account_id: int) -> None:
        """From now on, hear of every change in the account of a mailbox; `heard` says whether there was one."""
        self.heard = False
        if self._unsubscribe is not None:
            self._unsubscribe()
        self._unsubscribe = wake.subscribe(account_id, self._changed)

    def select(self, selected: Selected) -> None:
        """Enter the selected state with a view that was made since `listen`."""
        selected.dirty = self.heard
        selected.uid_only = bool(self.enabled & Enabled.UIDONLY)
        self.selected = selected
        self.described = selected.uidnext
        self.state = State.SELECTED

    def watch(self, notifier: Notifier) -> None:
        """From now on tell the client what NOTIFY asked for, and nothing else."""
        if self.notifier is not None:
            self.notifier.close()
        self.notifier = notifier
        if self.selected is not None:
            self.described = self.selected.uidnext
            # Whatever happened while nothing was to be told.
            self.selected.dirty = True

    def own_names(self, *names: str) -> None:
        """The client itself is about to change these names: NOTIFY need not tell it (RFC 5465 §3)."""
        if self.notifier is not None:
            self.notifier.own(*names)

    @property
    def hears_flags(self) -> bool:
        """The client wants to be told of changed flags."""
        return self.notifier is None or "FLAGCHANGE" in self.notifier.selected

    @property
    def muted(self) -> bool:
        """The client does not want to be told of the selected mailbox."""
        return self.notifier is not None and not self.notifier.selected

    def deselect(self) -> None:
        """Leave the selected state."""
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        if self.selected is not None and self.notifier is not None:
            self.notifier.left(self.selected)
        self.selected = None
        if self.state is State.SELECTED:
            self.state = State.AUTHENTICATED

    def _changed(self, changes: tuple[Change, ...]) -> None:
        """The listener of wake: called in the event loop after a commit; must be quick."""
        self.heard = True
        view = self.selected
        if view is None:
            return
        if changes and not any(c.mailbox_id == view.mailbox_id and c.modseq not in view.own for c in changes):
            return
        view.dirty = True
        if self.idling or (self.notifier is not None and self.notifier.immediate):
            self.connection.wake()
