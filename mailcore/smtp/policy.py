"""How the listeners differ: as data, so that there is one session and one code path for all of them."""

from __future__ import annotations

from dataclasses import dataclass, field

MAIL_PARAMETERS = frozenset({"SIZE", "BODY", "SMTPUTF8", "AUTH", "RET", "ENVID", "BY", "MT-PRIORITY"})
SUBMISSION_PARAMETERS = MAIL_PARAMETERS | {"HOLDFOR", "HOLDUNTIL"}
RCPT_PARAMETERS = frozenset({"NOTIFY", "ORCPT"})


@dataclass(frozen=True, slots=True)
class Policy:
    """What a listener asks of its clients and grants them. Times in seconds."""

    name: str
    """For logs: mx, submission, submissions, lmtp."""
    auth: bool
    """AUTH is offered, and nothing is taken without it; who is in may send to anybody, as an address of his own."""
    tls: bool = False
    """TLS from the first octet; otherwise STARTTLS is offered."""
    lmtp: bool = False
    """It speaks LMTP (RFC 2033), to front ends that `Server.front_ends` names and to nobody else."""
    max_recipients: int = 1_000
    max_messages: int = 10_000
    """Of one session; MAIL is then answered 421."""
    max_errors: int = 30
    """5xx replies without a message taken in between, after which the connection is closed."""
    max_idle_commands: int = 100
    """Commands that bring no mail any nearer (NOOP, RSET, EHLO, AUTH …), likewise."""
    command_timeout: float = 300.0
    data_timeout: float = 180.0
    """Between two pieces of a message."""
    message_timeout: float = 3_600.0
    """For one message in all."""
    stressed_timeout: float = 10.0
    """For commands and pieces while connections become scarce: who is slow makes room for who is not."""
    connections: int = 5_000
    connections_per_source: int = 200
    """From one IPv4 address or one IPv6 /64."""
    mail_parameters: frozenset[str] = field(default=MAIL_PARAMETERS)
    rcpt_parameters: frozenset[str] = field(default=RCPT_PARAMETERS)


MX = Policy("mx", auth=False)
SUBMISSION = Policy("submission", auth=True, mail_parameters=SUBMISSION_PARAMETERS)
SUBMISSIONS = Policy("submissions", auth=True, tls=True, mail_parameters=SUBMISSION_PARAMETERS)
# A front end keeps its connections and passes on what its own clients got wrong.
LMTP = Policy("lmtp", auth=False, lmtp=True, max_errors=10_000, max_idle_commands=10_000, connections_per_source=5_000)
