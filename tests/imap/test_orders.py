"""What SORT and THREAD remember of mailboxes."""

from __future__ import annotations

from array import array

from mailcore.imap.orders import Order, Orders, only


def order(*uids: int) -> Order:
    return Order(max(uids), array("I", uids))


def test_an_order_serves_until_a_message_comes():
    known = Orders(10_000, 60)
    known.put((1, 1, "by"), order(3, 1, 2), 0)
    assert known.get((1, 1, "by"), 3, 1) == order(3, 1, 2)
    assert known.get((1, 1, "by"), 2, 1) == order(3, 1, 2)
    assert known.get((1, 1, "by"), 4, 1) is None
    assert known.get((1, 2, "by"), 3, 1) is None
    assert only(array("I", (3, 1, 2)), (1, 3)) == array("I", (3, 1))


def test_orders_are_bounded_and_expire():
    known = Orders(1_000, 60)
    for mailbox in range(10):
        known.put((1, mailbox, "by"), order(2, 1), mailbox)
    kept = [mailbox for mailbox in range(10) if known.get((1, mailbox, "by"), 2, 10)]
    assert kept == [6, 7, 8, 9]
    known.put((1, 6, "by"), order(*range(1, 2_000)), 11)
    assert known.get((1, 6, "by"), 2, 11) is None
    known.expire(71)
    assert all(known.get((1, mailbox, "by"), 2, 71) is None for mailbox in range(10))
