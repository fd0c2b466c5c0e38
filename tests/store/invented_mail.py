"""Mail in any number for the figures of the search index, straight into the tables; each has a text of its own.

Words are drawn as people use them (Zipf): 8 million, invented letter by letter after the standard library's, one
in ten in Cyrillic letters. Of a million messages of 2 kB some 4 million words are in at most five.
"""

from __future__ import annotations

import math
import os
import random
import re
from collections import Counter, defaultdict
from itertools import accumulate
from pathlib import Path

import psycopg

VOCABULARY = 8_000_000
WORDS = 250  # of a message, on average
_CYRILLIC = str.maketrans("abcdefghijklmnopqrstuvwxyz", "абцдефгхийклмнопкрстувшхуз")
_WORD = re.compile("[a-z]{3,14}")


def vocabulary(count: int, seed: int = 1) -> list[str]:
    """Different words, roughly the commonest first: each letter is drawn by the two before it."""
    seen: Counter[str] = Counter()
    size = 0
    for path in sorted(Path(os.__file__).parent.rglob("*.py")):
        if size < 8_000_000 and "site-packages" not in path.parts:
            whole = path.read_text(errors="ignore").lower()
            size += len(whole)
            seen.update(_WORD.findall(whole))
    following: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, times in seen.items():
        for at in range(len(word) + 1):
            following[word[max(0, at - 2) : at]][word[at : at + 1]] += 1 + int(math.log(times))
    # A hundred draws of each, so that one is a look into a table.
    rng = random.Random(seed)
    table = {}
    for before, letters in following.items():
        weights = list(accumulate(letters.values()))
        table[before] = rng.choices(list(letters), cum_weights=weights, k=256)
    found: dict[str, None] = dict.fromkeys(word for word, _ in seen.most_common(30_000))
    draw = rng.random
    while len(found) < count:
        word, pair = "", ""
        while letter := table[pair][int(draw() * 256)]:
            word += letter
            pair = word[-2:]
            if len(word) == 14:
                break
        if len(word) > 3:
            found[word if len(found) % 10 else word.translate(_CYRILLIC)] = None
    return list(found)


def fill(url: str, account_id: int, count: int, seed: int = 1, words: int = VOCABULARY) -> list[str]:
    """Give an account that exists and is empty `count` messages in its INBOX; returns the words, by their rank."""
    known = vocabulary(words)
    rng = random.Random(seed)
    draw, exp, steps = rng.random, math.exp, math.log(len(known))
    with psycopg.connect(url) as connection:
        with connection.cursor().copy(
            "COPY message_text (account_id, docno, from_text, to_text, cc_text, bcc_text, subject_text, body_at, text)"
            " FROM STDIN"
        ) as copy:
            for docno in range(1, count + 1):
                # Rank r comes 1/r as often as the first.
                many = 20 + int(rng.expovariate(1 / (WORDS - 20)))
                drawn = [known[int(exp(draw() * steps)) - 1] for _ in range(many)]
                person = known[rng.randrange(20_000)]
                sender, subject = f"{person} <{person}@example.org>", " ".join(drawn[3:9])
                header = (
                    f"received: from mx{rng.randrange(40)}.example.org by mail.example.net id {rng.getrandbits(64):x}\n"
                    f"from: {sender}\nto: me@example.net\nsubject: {subject}\n"
                    f"message-id: <{rng.getrandbits(96):x}@example.org>"
                )
                body = (
                    f"{' '.join(drawn[: many // 2])}. order {rng.randrange(10**7)}"
                    f" https://x.example/{rng.getrandbits(60):x} {' '.join(drawn[many // 2 :])}"
                )
                copy.write_row(
                    (account_id, docno, sender, "me@example.net", "", "", subject, len(header) + 2, f"{header}\1{body}")
                )
        connection.execute(
            """INSERT INTO message (account_id, id, blob, size, header_size, thread_id, created_modseq, received_at,
                sent_at, sent_on, has_attachment, base_subject, sort_keys, ancestry, preview, envelope, bodystructure,
                headers, parts, summary)
            SELECT account_id, docno, '', length(text), body_at - 2, docno, docno, now(), now(), now(), false,
                upper(subject_text), '', '\\x000000000000000000', '', '', '', '', '', '{}'
            FROM message_text WHERE account_id = %s""",
            (account_id,),
        )
        connection.execute(
            """INSERT INTO entry (account_id, mailbox_id, uid, message_id, modseq, flags, internal_date, size)
            SELECT account_id, 1, id, id, id, 1, now() - (%s - id) * interval '20 seconds', size
            FROM message WHERE account_id = %s""",
            (count, account_id),
        )
        connection.execute(
            """UPDATE account_state SET next_message = %(n)s + 1, modseq = %(n)s + 1, messages = %(n)s
            WHERE account_id = %(account)s""",
            {"n": count, "account": account_id},
        )
        connection.execute(
            """UPDATE mailbox SET uidnext = %(n)s + 1, messages = %(n)s, highest_modseq = %(n)s
            WHERE account_id = %(account)s AND id = 1""",
            {"n": count, "account": account_id},
        )
    return known
