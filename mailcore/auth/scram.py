"""Logging in with SCRAM: what is known of an account's app passwords, and the login that a proof leads to.

An account's own password is kept in a form that SCRAM cannot use (Argon2id): only app passwords log in this way.
"""

from __future__ import annotations

from accounts import app_passwords
from mailcore import db
from mailcore.auth import lookup
from mailcore.auth.login import SCOPES, Identity, admit, names, refuse_guessing
from mailcore.auth.standing import Credential
from mailcore.db import sql
from mailcore.wire.sasl import Keys, Proven, Verifier

VERIFIERS = sql(f"""
    SELECT p.digest, p.scram FROM accounts_apppassword p JOIN accounts_account a ON a.id = p.account_id
    WHERE a.address = %s::text LIMIT {app_passwords.MAX_PER_ACCOUNT}""")


async def keys(address: str, *, protocol: str, source: str) -> Keys:
    """What a client that names this address is to be asked, whether or not there is such an account.

    Raises MailError: TOO_MANY (guesses), UNAVAILABLE.
    """
    wanted, named = names(address)
    refuse_guessing(source, named, protocol)
    async with db.read() as tx:
        rows = await tx.fetch(VERIFIERS, (wanted,)) if wanted else []
    verifiers = []
    for digest, sealed in rows:
        pair = app_passwords.open_scram(sealed)
        if pair is not None:
            verifiers.append(Verifier(*pair, bytes(digest)))
    return Keys(app_passwords.scram_salt(named), app_passwords.SCRAM_ITERATIONS, verifiers)


async def login(proven: Proven, *, protocol: str, source: str) -> Identity:
    """Let in whoever has proven to know an app password. Raises as auth.login.login does."""
    wanted, named = names(proven.authcid)
    person = await lookup.person(wanted)
    credential = None
    if person is not None and proven.secret_id is not None and proven.secret_id in person.digests:
        credential = Credential(person.account_id, "app password", proven.secret_id, SCOPES.get(protocol, ""))
    # What was guessed is not known, so each failure counts.
    return await admit(person, credential, named, None, protocol=protocol, source=source)
