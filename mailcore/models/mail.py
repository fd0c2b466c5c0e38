"""Tables of the message store. Every key begins with the account, so that an account's rows lie, lock and shard
together.

No foreign keys between them: the verbs of mailcore.store keep them in step under the account's row lock, and
inserts stay cheap. Storage modes, collations and table options that Django cannot say are in migration 0002.
"""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now


class AccountState(models.Model):
    """One narrow hot row per account, locked first by every writing verb: it hands out all numbers of the account."""

    account_id = models.BigIntegerField(primary_key=True)
    modseq = models.BigIntegerField(db_default=1, help_text="highest given out; commit order is modseq order")
    next_message = models.BigIntegerField(db_default=1, help_text="next message (= text) number")
    next_mailbox = models.BigIntegerField(db_default=1)
    next_uidvalidity = models.BigIntegerField(db_default=1)
    messages = models.BigIntegerField(db_default=0, help_text="entries in all mailboxes")
    bytes = models.BigIntegerField(db_default=0, help_text="their octets: what the quota counts")
    quota_bytes = models.BigIntegerField(null=True, help_text="NULL = no limit")
    quota_messages = models.BigIntegerField(null=True, help_text="NULL = no limit")
    gone_floor = models.BigIntegerField(db_default=0, help_text="expunged is not complete up to this modseq")
    flag_floor = models.BigIntegerField(db_default=0, help_text="flag_change knows nothing up to this modseq")

    class Meta:
        db_table = "account_state"


class Mailbox(models.Model):
    """A folder, with its numbers and exact counters."""

    pk = models.CompositePrimaryKey("account_id", "id")
    account_id = models.BigIntegerField()
    id = models.BigIntegerField()
    name = models.TextField(help_text="full name in Unicode, '/' between levels, 'INBOX' upper case")
    special_use = models.TextField(null=True, help_text=r"\Drafts, \Sent, \Archive, \Junk, \Trash, …")
    uidvalidity = models.BigIntegerField()
    uidnext = models.BigIntegerField(db_default=1)
    highest_modseq = models.BigIntegerField(help_text="of its messages (RFC 7162)")
    created_modseq = models.BigIntegerField(help_text="for JMAP Mailbox/changes")
    changed_modseq = models.BigIntegerField(help_text="last change of name, use or subscription")
    messages = models.BigIntegerField(db_default=0)
    unseen = models.BigIntegerField(db_default=0)
    deleted = models.BigIntegerField(db_default=0, help_text=r"with \Deleted")
    bytes = models.BigIntegerField(db_default=0)

    class Meta:
        db_table = "mailbox"
        constraints = [models.UniqueConstraint(fields=["account_id", "name"], name="mailbox_name_once")]


class GoneMailbox(models.Model):
    """A mailbox that was deleted, for JMAP Mailbox/changes."""

    pk = models.CompositePrimaryKey("account_id", "id")
    account_id = models.BigIntegerField()
    id = models.BigIntegerField()
    modseq = models.BigIntegerField()

    class Meta:
        db_table = "gone_mailbox"


class Subscription(models.Model):
    """A subscribed mailbox name; it outlives the mailbox (RFC 9051 §6.3.7)."""

    pk = models.CompositePrimaryKey("account_id", "name")
    account_id = models.BigIntegerField()
    name = models.TextField()

    class Meta:
        db_table = "subscription"


class Blob(models.Model):
    """Raw bytes exactly as received, stored once however many messages hold them."""

    hash = models.BinaryField(primary_key=True, max_length=32, help_text="SHA-256")
    size = models.BigIntegerField()
    data = models.BinaryField()
    touched_at = models.DateTimeField(
        db_default=Now(), help_text="last time somebody stored it: young ones are not swept"
    )

    class Meta:
        db_table = "blob"


class Upload(models.Model):
    """What an account has uploaded (JMAP) within a day and no message holds yet; its octets are the blob's."""

    pk = models.CompositePrimaryKey("account_id", "hash")
    account_id = models.BigIntegerField()
    hash = models.BinaryField(max_length=32, help_text="SHA-256")
    size = models.BigIntegerField()
    uploaded_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "upload"
        indexes = [models.Index(fields=["hash"], name="upload_hash")]


class Message(models.Model):
    """A message of an account: immutable, and all of it but `thread_id` can be derived from the blob again."""

    pk = models.CompositePrimaryKey("account_id", "id")
    account_id = models.BigIntegerField()
    id = models.BigIntegerField(help_text="dense per account; EMAILID and JMAP's Email id")
    blob = models.BinaryField(max_length=32)
    size = models.BigIntegerField()
    header_size = models.IntegerField()
    thread_id = models.BigIntegerField(help_text="id of the thread's first message; THREADID")
    created_modseq = models.BigIntegerField()
    received_at = models.DateTimeField()
    sent_at = models.DateTimeField(null=True)
    sent_on = models.DateField(null=True, help_text="the day as the Date field writes it, in its own zone")
    has_attachment = models.BooleanField()
    base_subject = models.TextField(db_collation="C", help_text="RFC 5256 §2.1, as it is compared")
    sort_keys = models.TextField(db_collation="C", help_text="store.ordering: first addresses, as they are compared")
    ancestry = models.BinaryField(help_text="store.ordering: Message-ID and references, hashed")
    preview = models.TextField()
    envelope = models.BinaryField(help_text="IMAP ENVELOPE, ready to send")
    bodystructure = models.BinaryField(help_text="IMAP BODYSTRUCTURE, ready to send")
    headers = models.BinaryField(help_text="raw lines of the fields clients ask for first, with an index (mime.cached)")
    parts = models.BinaryField(help_text="packed part table (mime.unpack_parts)")
    summary = models.TextField(help_text="decoded addresses and ids as JSON (mime.Summary)")
    derived_version = models.SmallIntegerField(db_default=1)

    class Meta:
        db_table = "message"
        indexes = [
            models.Index(fields=["account_id", "thread_id"], name="message_thread"),
            models.Index(fields=["blob"], name="message_blob"),
        ]


class MessageText(models.Model):
    """What search reads: decoded and folded (mime.fold); `docno` is the message's id."""

    pk = models.CompositePrimaryKey("account_id", "docno")
    account_id = models.BigIntegerField()
    docno = models.BigIntegerField()
    from_text = models.TextField(db_collation="C")
    to_text = models.TextField(db_collation="C")
    cc_text = models.TextField(db_collation="C")
    bcc_text = models.TextField(db_collation="C")
    subject_text = models.TextField(db_collation="C")
    body_at = models.IntegerField(help_text="1-based character of `text` at which the body begins")
    text = models.TextField(db_collation="C", help_text="header, U+0001, body")
    fold_version = models.SmallIntegerField(db_default=1)

    class Meta:
        db_table = "message_text"


class ThreadKey(models.Model):
    """A Message-ID (hashed) that was seen in an account, and the thread it belongs to."""

    pk = models.CompositePrimaryKey("account_id", "key")
    account_id = models.BigIntegerField()
    key = models.BigIntegerField(help_text="first 8 octets of SHA-256 of the Message-ID")
    thread_id = models.BigIntegerField()

    class Meta:
        db_table = "thread_key"


class Entry(models.Model):
    """A message in a mailbox: narrow and hot. What changes is in no index, so that a page is updated in itself."""

    pk = models.CompositePrimaryKey("account_id", "mailbox_id", "uid")
    account_id = models.BigIntegerField()
    mailbox_id = models.BigIntegerField()
    uid = models.BigIntegerField()
    message_id = models.BigIntegerField()
    modseq = models.BigIntegerField()
    flags = models.IntegerField(db_default=0, help_text="bit mask, see store.flags")
    keywords = ArrayField(models.TextField(), null=True, help_text="sorted; NULL = none")
    internal_date = models.DateTimeField()
    saved_at = models.DateTimeField(db_default=Now())
    size = models.BigIntegerField()

    class Meta:
        db_table = "entry"
        indexes = [models.Index(fields=["account_id", "message_id"], name="entry_message")]


class FlagChange(models.Model):
    """Where to look for messages whose flags changed: one row for each change, however many it touched."""

    pk = models.CompositePrimaryKey("account_id", "modseq")
    account_id = models.BigIntegerField()
    modseq = models.BigIntegerField()
    mailbox_id = models.BigIntegerField()
    firsts = ArrayField(models.BigIntegerField(), help_text="UID ranges that hold all of them, and maybe others")
    lasts = ArrayField(models.BigIntegerField())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "flag_change"


class Expunged(models.Model):
    """What left a mailbox and when: VANISHED for QRESYNC, undelete, JMAP's destroyed."""

    pk = models.CompositePrimaryKey("account_id", "modseq", "mailbox_id", "uid")
    account_id = models.BigIntegerField()
    mailbox_id = models.BigIntegerField()
    uid = models.BigIntegerField()
    message_id = models.BigIntegerField()
    modseq = models.BigIntegerField()
    flags = models.IntegerField()
    keywords = ArrayField(models.TextField(), null=True)
    internal_date = models.DateTimeField()
    size = models.BigIntegerField()
    expunged_at = models.DateTimeField(db_default=Now())
    moved = models.BooleanField(db_default=False, help_text="left by MOVE: nothing to undelete")

    class Meta:
        db_table = "expunged"
        indexes = [models.Index(fields=["account_id", "message_id"], name="expunged_message")]
