"""Tables of the search index (docs/search.md): segments of words, written by the worker alone, which never change."""

from __future__ import annotations

from django.db import models


class SearchIndex(models.Model):
    """How far an account's mail is indexed, and which worker is at it. Deliveries do not touch this row."""

    account_id = models.BigIntegerField(primary_key=True)
    upto = models.BigIntegerField(db_default=1, help_text="messages below this number are in segments")
    version = models.TextField(db_default="", help_text="index_words.VERSION the segments were made by")
    removed = models.BigIntegerField(
        db_default=0, help_text="messages removed for good since segments were last looked at"
    )
    lease_until = models.DateTimeField(null=True, help_text="by the database's clock")
    fence = models.BigIntegerField(db_default=0, help_text="counts claims; what is stored must carry the current one")

    class Meta:
        db_table = "search_index"


class SearchSegment(models.Model):
    """The words of the messages from `first` to before `beyond`; see store.index_segment."""

    pk = models.CompositePrimaryKey("account_id", "segment")
    account_id = models.BigIntegerField()
    segment = models.BigIntegerField(help_text="from a sequence: never used again")
    first = models.BigIntegerField()
    beyond = models.BigIntegerField()
    documents = models.BinaryField(null=True, help_text="numbers of its messages, packed; NULL = all of the range")
    messages = models.IntegerField()
    pairs = models.IntegerField(help_text="of a word and a section it is in")
    decides = models.BooleanField(help_text="what its words say of a text needs no look at the text")
    natural_blocks = models.IntegerField()
    machine_blocks = models.IntegerField()
    size = models.BigIntegerField(help_text="octets of its blocks and filter")

    class Meta:
        db_table = "search_segment"


class SearchBlock(models.Model):
    """Some hundred sorted words of a segment and the sections each occurs in, both compressed."""

    pk = models.CompositePrimaryKey("account_id", "segment", "block")
    account_id = models.BigIntegerField()
    segment = models.BigIntegerField()
    block = models.IntegerField()
    words = models.BinaryField()
    sections = models.BinaryField()

    class Meta:
        db_table = "search_block"


class SearchFilter(models.Model):
    """In which blocks of a segment pieces of words may be: some slots of its bit-sliced filter, compressed."""

    pk = models.CompositePrimaryKey("account_id", "segment", "number")
    account_id = models.BigIntegerField()
    segment = models.BigIntegerField()
    number = models.IntegerField()
    bits = models.BinaryField()

    class Meta:
        db_table = "search_filter"
