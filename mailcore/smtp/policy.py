"""How the listeners differ: as data, so that there is one session and one code path for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH"})
DSN_MAIL_PARAMETERS = frozenset({"RET", "ENVID"})
DSN_RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What a listener asks of its clients and grants them. Times in seconds."""

    name: str
    """For logs: mx, submission, submissions."""
    auth: bool
    """AUTH is offered, and nothing is taken without it; who is in may send to anybody, as an address of his own."""
    tls: bool = False
    """TLS from the first octet; otherwise STARTTLS is offered."""
    dsn: bool = False
    """The DSN extension is offered (RFC 3461)."""
    max_recipients: int = 1_000
    max_errors: int = 30
    """5xx replies without a message taken in between, after which the connection is closed."""
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    """Between two pieces of a message."""
    message_timeout: float = 3_600.0
    """For one message in all."""
    connections: int = 5_000
    connections_per_source: int = 200
    """From one IPv4 address or one IPv6 /64."""
    mail_parameters: frozenset[str] = field(default=MAIL_PARAMETERS)
    rcpt_parameters: frozenset[str] = field(default=frozenset())


MX = Policy("mx", auth=False)
SUBMISSION = Policy(
    "submission",
    auth=True,
    dsn=True,
    mail_parameters=MAIL_PARAMETERS | DSN_MAIL_PARAMETERS,
    rcpt_parameters=DSN_RCPT_PARAMETERS,
)
SUBMISSIONS = Policy(
    "submissions",
    auth=True,
    tls=True,
    dsn=True,
    mail_parameters=MAIL_PARAMETERS | DSN_MAIL_PARAMETERS,
    rcpt_parameters=DSN_RCPT_PARAMETERS,
)
