"""Outbound delivery: from a due row of the queue to a remote server's mailbox, or back to the sender.

engine (which destinations are at work) → attempt (a batch over one connection) → route, mx, guard (where to) → connect,
session (SMTP) → outcome (what an answer means) → settle (record it, with trace and bounce, in one transaction).
"""
