"""The limits of the endpoint: announced in the Session object and enforced where they apply."""

from __future__ import annotations

from typing import Final

MAX_SIZE_UPLOAD: Final = 50_000_000  # octets
MAX_CONCURRENT_UPLOAD: Final = 4  # per account
# Per account: what was uploaded within a day and became no message. The oldest make room, none younger than an hour.
MAX_UNUSED_UPLOADS: Final = 5_000
MAX_UNUSED_OCTETS: Final = max(1_000_000_000, 2 * MAX_SIZE_UPLOAD)
MAX_SIZE_REQUEST: Final = 10_000_000  # octets
MAX_CONCURRENT_REQUESTS: Final = 10  # per account
MAX_CALLS: Final = 32
MAX_OBJECTS_IN_GET: Final = 5_000
MAX_OBJECTS_IN_SET: Final = 1_000

PATIENCE: Final = 10.0  # seconds that a request waits for one of its account's to end
REQUEST_SECONDS: Final = 60.0  # until the body of a request is there
UPLOAD_SECONDS: Final = 1800.0

MAX_MAILBOXES_PER_EMAIL: Final = 100
MAX_ATTACHMENTS: Final = 50_000_000  # octets of all attachments of one email, before encoding
MAX_MAILBOX_NAME: Final = 255  # octets
MAX_RECIPIENTS: Final = 1_000
MAX_DELAYED_SEND: Final = 31 * 86_400  # seconds

MAX_QUERY: Final = 10_000  # ids in one answer of Email/query
MAX_CHANGES: Final = 5_000
DEFAULT_CHANGES: Final = 1_000

MAX_BODY_VALUE: Final = 5_000_000  # octets of one body value
MAX_BODY_OCTETS: Final = 64_000_000  # encoded octets of bodies and headers read for one Email/get
MAX_HEADER: Final = 256 * 1024  # octets of a message's header that are looked at
MAX_HEADERS: Final = 2_000  # fields of one email that are rendered one by one
MAX_FILTER_DEPTH: Final = 20
MAX_SEARCHES: Final = 4  # at a time, whole process: half of the pool's connections
MAX_SEARCHES_OF_ONE: Final = 2  # … of one account
SEARCH_SECONDS: Final = 30.0  # that a search may take when its turn has come; for the turn it waits as a request does

MAX_EVENT_STREAMS: Final = 20  # per account
MIN_PING: Final = 5  # seconds
MAX_PING: Final = 300
MAX_DEPTH: Final = 200  # nesting of a request's JSON
