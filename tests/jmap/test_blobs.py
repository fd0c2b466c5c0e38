"""Uploads and downloads (RFC 8620 §6)."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest

from mailcore import db
from mailcore.jmap import limits
from mailcore.jmap.transfer import UPLOADS
from tests.jmap.world import SIMPLE, Client, World

pytestmark = pytest.mark.django_db(transaction=True)

ATTACHED = b"""From: a@x\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/html\r
\r
<script>alert(1)</script>\r
--b\r
Content-Type: application/pdf\r
Content-Disposition: attachment; filename=a.pdf\r
Content-Transfer-Encoding: base64\r
\r
JVBERi0xLjcKAAEC\r
--b--\r
"""


async def upload(client: Client, octets: bytes, kind: str = "application/pdf", pieces: int = 1) -> str:
    answer = await client.request("POST", f"/jmap/upload/{client.id}/", octets, {"content-type": kind}, pieces)
    assert answer.status == 201, answer.body
    assert answer.json["size"] == len(octets) and answer.json["accountId"] == client.id
    return str(answer.json["blobId"])


async def test_uploads_come_back_octet_for_octet(world: World) -> None:
    alice = world.alice
    for octets, pieces in ((b"", 1), (b"x", 1), (os.urandom(700_000), 9), (bytes(range(256)) * 10, 3)):
        blob = await upload(alice, octets, pieces=pieces)
        answer = await alice.request("GET", f"/jmap/download/{alice.id}/{blob}/x.pdf?type=application%2Fpdf")
        assert (answer.status, answer.body) == (200, octets)
        assert answer.headers["content-type"] == "application/pdf"
    assert (await upload(alice, b"x")) == (await upload(alice, b"x")), "the same octets have the same id"


async def test_the_type_of_an_upload_is_a_type(world: World) -> None:
    alice = world.alice
    for kind, told in (("Image/PNG; x=y", "image/png"), ("nonsense", "application/octet-stream"), ("", None)):
        answer = await alice.request("POST", f"/jmap/upload/{alice.id}/", b"x", {"content-type": kind})
        assert answer.json["type"] == (told or "application/octet-stream")


async def test_messages_and_decoded_parts_download(world: World) -> None:
    alice = world.alice
    email = await world.deliver(alice.account, ATTACHED)
    found = await alice.email(email, properties=["blobId", "attachments"])
    assert (await alice.request("GET", f"/jmap/download/{alice.id}/{found['blobId']}/m.eml")).body == ATTACHED
    (pdf,) = found["attachments"]
    answer = await alice.request("GET", f"/jmap/download/{alice.id}/{pdf['blobId']}/a.pdf")
    assert answer.body == b"%PDF-1.7\n\0\1\2" and len(answer.body) == pdf["size"]
    assert answer.headers["content-type"] == "application/pdf", "what the message says, when nobody asks for another"


async def test_a_download_cannot_run_as_a_page(world: World) -> None:
    alice = world.alice
    email = await world.deliver(alice.account, ATTACHED)
    answer = await alice.request(
        "GET", f"/jmap/download/{alice.id}/P{email[1:]}-1/x.html?type=text/html&disposition=inline"
    )
    assert answer.status == 200
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "private" in answer.headers["cache-control"]
    blob = await upload(alice, b"\x89PNG")
    for kind, shown in (("image/png", "inline"), ("image/svg+xml", "attachment"), ("text/html", "attachment"),
                        ("application/pdf", "attachment"), ("text/plain", "inline")):  # fmt: skip
        answer = await alice.request("GET", f"/jmap/download/{alice.id}/{blob}/x?type={kind}&disposition=inline")
        assert answer.headers["content-disposition"].split(";")[0] == shown, kind
    answer = await alice.request("GET", f"/jmap/download/{alice.id}/{blob}/x?type=text/html%0d%0aSet-Cookie:%20a=b")
    assert answer.headers["content-type"] == "application/octet-stream" and "set-cookie" not in answer.headers


async def test_names_of_downloads_are_names(world: World) -> None:
    alice = world.alice
    blob = await upload(alice, b"x")
    for name, plain, whole in (
        ("Rechnung März.pdf", "Rechnung M_rz.pdf", "Rechnung%20M%C3%A4rz.pdf"),
        ("../../etc/passwd", "_.._etc_passwd", "_.._etc_passwd"),
        ('a"b\r\nSet-Cookie: x', "a_b__Set-Cookie_ x", "a_b__Set-Cookie_%20x"),
        ("50%25.txt", "50%25.txt", "50%2525.txt"),
        ("", "attachment", "attachment"),
        ("...", "attachment", "attachment"),
    ):
        answer = await alice.request("GET", f"/jmap/download/{alice.id}/{blob}/{name}")
        expected = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{whole}"
        assert answer.headers["content-disposition"] == expected, name


async def _age(octets: bytes, hours: int) -> None:
    """As if these had been uploaded so long ago."""
    digest = hashlib.sha256(octets).digest()
    async with db.transaction() as tx:
        for table, column in (("upload", "uploaded_at"), ("blob", "touched_at")):
            await tx.execute(
                f"UPDATE {table} SET {column} = now() - make_interval(hours => %s::int) WHERE hash = %s::bytea",
                (hours, digest),
            )


async def _there(client: Client, blob: str) -> bool:
    return (await client.request("GET", f"/jmap/download/{client.id}/{blob}/x")).status == 200


async def test_uploads_that_are_in_no_message_cannot_fill_the_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNUSED_OCTETS", 1_000_000)
    alice, bob = world.alice, world.bob
    first, second, third = (os.urandom(400_000) for _ in range(3))
    blobs = [await upload(alice, first), await upload(alice, second)]
    for _ in range(2):
        refused = await alice.request("POST", f"/jmap/upload/{alice.id}/", third)
        assert refused.status == 429
        assert (refused.json["type"], refused.json["limit"]) == (
            "urn:ietf:params:jmap:error:limit",
            "maxUnusedUploads",
        )
    assert await upload(alice, first) == blobs[0], "the same octets again take no room"
    shared = await upload(bob, first)
    assert await upload(bob, third), "everybody has an allowance of his own"
    # Whatever is older than an hour makes room, the oldest first; what somebody else needs stays his.
    await _age(first, 3)
    await _age(second, 2)
    blobs.append(await upload(alice, third))
    assert [await _there(alice, blob) for blob in blobs] == [True, True, True], "first is still held for Bob"
    async with db.transaction() as tx:
        await tx.execute("DELETE FROM upload WHERE account_id = %s::bigint", (bob.account,))
    await _age(first, 3)
    await upload(alice, first)  # makes `second` leave: it is the oldest now
    assert not await _there(alice, blobs[1])
    assert await _there(alice, blobs[0]) and await _there(bob, shared)


async def test_what_became_a_message_counts_no_longer_as_an_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_UNUSED_UPLOADS", 2)
    alice = world.alice
    inbox = await alice.inbox()
    for n in range(7):
        letter = SIMPLE.format(subject=f"Import {n}").replace("\n", "\r\n").encode()
        blob = await upload(alice, letter)
        done = await alice.call("Email/import", emails={"a": {"blobId": blob, "mailboxIds": {inbox: True}}})
        assert done["created"]
    for octets in (b"one", b"two"):
        await upload(alice, octets)
    assert (await alice.request("POST", f"/jmap/upload/{alice.id}/", b"three")).status == 429


async def test_caches_and_ranges(world: World) -> None:
    alice = world.alice
    blob = await upload(alice, b"0123456789")
    path = f"/jmap/download/{alice.id}/{blob}/x"
    tag = (await alice.request("GET", path)).headers["etag"]
    unchanged = await alice.request("GET", path, headers={"if-none-match": f'"other", {tag}'})
    assert (unchanged.status, unchanged.body) == (304, b"")
    for wish, status, body, span in (
        ("bytes=2-4", 206, b"234", "bytes 2-4/10"),
        ("bytes=7-", 206, b"789", "bytes 7-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=4-2", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=-", 200, b"0123456789", None),
    ):
        answer = await alice.request("GET", path, headers={"range": wish})
        assert (answer.status, answer.body, answer.headers.get("content-range")) == (status, body, span), wish
    assert (await alice.request("GET", path, headers={"range": "bytes=10-"})).status == 416
    head = await alice.request("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")


async def test_what_is_not_there_is_not_found(world: World) -> None:
    alice = world.alice
    email = await world.deliver(alice.account, ATTACHED)
    n = email[1:]
    for blob in ("B99", "B0", "B", "x", f"P{n}-9", f"P{n}-", f"P{n}-1.2", f"P{n}", "U", "U" + "A" * 64, "U" + "!" * 64,
                 "a" * 300, "%00", "..", f"P{n}-1_1"):  # fmt: skip
        answer = await alice.request("GET", f"/jmap/download/{alice.id}/{blob}/x")
        assert answer.status == 404, blob
        assert answer.headers["content-type"].startswith("application/problem+json")


async def test_uploads_are_bounded_in_size_and_number(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    alice = world.alice
    monkeypatch.setattr(limits, "MAX_SIZE_UPLOAD", 1000)
    assert await upload(alice, b"x" * 1000)
    for pieces in (1, 5):
        answer = await alice.request("POST", f"/jmap/upload/{alice.id}/", b"x" * 1001, {}, pieces)
        assert (answer.status, answer.json["limit"]) == (413, "maxSizeUpload")
    taken = [UPLOADS.taken(alice.account) for _ in range(limits.MAX_CONCURRENT_UPLOAD)]
    for one in taken:
        one.__enter__()
    answer = await alice.request("POST", f"/jmap/upload/{alice.id}/", b"x")
    assert (answer.status, answer.json["limit"]) == (400, "maxConcurrentUpload")
    assert await upload(world.bob, b"x")
    for one in taken:
        one.__exit__(None, None, None)
    assert await upload(alice, b"x")


async def test_a_large_attachment_is_decoded_on_the_way(world: World) -> None:
    alice = world.alice
    content = os.urandom(5_000_001)
    encoded = base64.encodebytes(content)  # lines end in LF, and junk is passed over
    encoded = encoded[:1000] + b"!!\n" + encoded[1000:]
    raw = b"Content-Type: application/zip\nContent-Transfer-Encoding: base64\n\n" + encoded
    email = await world.deliver(alice.account, raw)
    answer = await alice.request("GET", f"/jmap/download/{alice.id}/P{email[1:]}-1/x.zip")
    assert answer.body == content and "content-length" not in answer.headers
    made = await alice.call(
        "Email/set",
        create={"a": {"mailboxIds": {"F2": True}, "attachments": [{"blobId": f"P{email[1:]}-1", "type": "a/b"}]}},
    )
    number = made["created"]["a"]["id"][1:]
    assert (await alice.request("GET", f"/jmap/download/{alice.id}/P{number}-1/x.zip")).body == content


async def test_a_large_message_downloads_in_pieces(world: World) -> None:
    alice = world.alice
    raw = SIMPLE.format(subject="Large").replace("\n", "\r\n").encode() + os.urandom(1_000_000).hex().encode()
    email = await world.deliver(alice.account, raw)
    answer = await alice.request("GET", f"/jmap/download/{alice.id}/B{email[1:]}/x.eml")
    assert answer.body == raw and answer.headers["content-length"] == str(len(raw))
