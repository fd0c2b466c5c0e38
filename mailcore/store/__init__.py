"""The message store: each file holds one family of verbs, `async def verb(tx, …)`, written once for both drivers.

A writing verb locks the account's row first, several accounts in ascending order, then mailboxes in ascending order; so
one writer per account works at a time, commit order is modseq order, and nothing can deadlock (docs/architecture.md).
"""
