"""The exceptions of this program.

    DnsproxyError
    ├── ConfigError        the configuration file: every problem at once
    ├── StartError         a port, key or folder that start-up needs cannot be had
    ├── HostError          this host refuses a system call that the program cannot run without
    ├── ReloadError        a configuration that a running proxy was given and did not take
    ├── WireError          bytes that are not a DNS message we can use
    ├── ForeignError       quotes others, printable and of bounded length:
    │   ├── SnapshotError  a snapshot that must not be used, with its Rejection
    │   ├── StoreError     an object store, etcd or API server did not do what it was asked
    │   ├── FetchError     a source of snapshots could not be read
    │   ├── PublishError   a target of snapshots could not be written, or read
    │   ├── ResolveError   the helper got no usable response from a resolver
    │   └── DiscoverError  a registry did not tell, or told what must not be believed, with its Doubt
    ├── OrderError         a pin, freeze or roll-back that cannot be obeyed
    └── WorkerError        a worker process cannot be started, or does not answer
        └── MessageError   bytes between control process and worker that are not a message

Anything else that leaves a public function is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from dnsproxy.core.text import printable

# Characters of a problem: lists of what may be written have some 500.
MAX_PROBLEM = 2000


class DnsproxyError(Exception):
    """Root of all errors that this program raises on purpose."""


class ForeignError(DnsproxyError):
    """An error whose message may hold text of others: printable, and at most `text.LIMIT` characters long."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a configuration file.

    ``line`` counts from 1; 0 when the file as a whole is meant. ``path`` is
    the key path, such as ``forward.upstreams[0]``.
    """

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"

    @property
    def place(self) -> str:
        """The file, with the line where there is one."""
        file = printable(self.file)
        return f"{file}:{self.line}" if self.line else file

    @property
    def text(self) -> str:
        """The message, behind the key path where there is one; printable."""
        return printable(f"{self.path}: {self.message}" if self.path else self.message, MAX_PROBLEM)


class ConfigError(DnsproxyError):
    """The configuration cannot be used; ``problems`` holds every reason."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


class StartError(DnsproxyError):
    """Start-up, or a reload, cannot go on. ``reasons`` are one line each for the operator."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = reasons
        super().__init__("; ".join(reasons))


class HostError(DnsproxyError):
    """The host refuses a system call that the program cannot run without; the message names it."""


class ReloadError(DnsproxyError):
    """Another configuration was not taken; ``problems`` holds every reason, a line each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DropReason(StrEnum):
    """Why a message got no response. The value is the metric's label."""

    SHORT = "short"
    NOT_A_QUERY = "not_a_query"
    SEND_FAILED = "send_failed"
    TCP_CLIENTS = "tcp_clients"
    TCP_PER_CLIENT = "tcp_per_client"
    # All connections were taken: this one, of the client with the most, was closed for another client's.
    TCP_DISPLACED = "tcp_displaced"
    TLS_HANDSHAKE = "tls_handshake"
    HTTP_FLOOD = "http_flood"
    REFUSED_CLIENT = "refused_client"
    OVERLOADED = "overloaded"
    # All exchanges were taken: this query, of the client with the most, gave way to another client's.
    OVER_SHARE = "over_share"
    # So many queries of this client, or of all, wait for the answer to the same question, or in all.
    TOO_MANY_WAITERS = "too_many_waiters"
    # A response for which there was no room among those that are sent to one client little by little.
    PACED = "paced"
    # A copy of a query that waits: same address, port, id and question.
    DUPLICATE = "duplicate"
    # A connection was closed, as all together held too much of what is unfinished or unread.
    MEMORY = "memory"
    # A peer in `serve.proxy_protocol` sent no PROXY header, or one that is not accepted.
    PROXY_HEADER = "proxy_header"
    RATE_LIMITED = "rate_limited"


class WireError(DnsproxyError):
    """Bytes that are not a DNS message we can use.

    ``reason`` says what the listener counts when it drops them.
    """

    def __init__(self, message: str, reason: DropReason = DropReason.SHORT) -> None:
        self.reason = reason
        super().__init__(message)


class Rejection(StrEnum):
    """Why a snapshot was not taken. The value is the metric's label."""

    MALFORMED = "malformed"
    BAD_SIGNATURE = "bad_signature"
    UNKNOWN_KEY = "unknown_key"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    OLDER = "older"
    SHRANK_TO_EMPTY = "shrank_to_empty"
    NOT_OURS = "not_ours"


class SnapshotError(ForeignError):
    """A snapshot that must not be used."""

    def __init__(self, reason: Rejection, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class OrderError(DnsproxyError):
    """What the operator asked a running proxy to do cannot be done; the message says why in one line."""


class StoreError(ForeignError):
    """An object store, etcd or API server did not do as asked; the message says why, without secrets."""


class FetchError(ForeignError):
    """A source of snapshots could not be read; the message says which and why.

    ``retry_after`` is the seconds after which the source asks for the next request; None when it names none.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class PublishError(ForeignError):
    """A target of snapshots could not be written or read; the message says why, without secrets."""


class ResolveError(ForeignError):
    """No usable response came from a resolver."""


class Doubt(StrEnum):
    """Why a registry told nothing of use. The value is the ``reason`` in the log."""

    # It could not be asked.
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    CERTIFICATE = "certificate"
    NOT_HTTP = "not_http"
    STATUS = "status"
    TOO_LARGE = "too_large"
    CREDENTIALS = "credentials"
    # It answered, and nothing follows from that.
    NOT_A_REGISTRY = "not_a_registry"
    NO_HINT = "no_hint"
    NO_BLOB = "no_blob"
    NO_BEARER = "no_bearer"
    NO_REDIRECT = "no_redirect"
    TOO_MANY = "too_many"
    # What it told must not be believed.
    MALFORMED = "malformed"
    TOO_LONG = "too_long"
    NO_REALM = "no_realm"
    NOT_A_URL = "not_a_url"
    NOT_HTTPS = "not_https"
    USERINFO = "userinfo"
    IP_LITERAL = "ip_literal"
    PORT = "port"
    BAD_HOST = "bad_host"
    IDN = "idn"
    FOREIGN = "foreign"


class DiscoverError(ForeignError):
    """A registry did not tell what was asked. The message holds no credential and no signed query."""

    def __init__(self, reason: Doubt, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class WorkerError(DnsproxyError):
    """A worker process cannot be started or told, or none answers."""


class MessageError(WorkerError):
    """Bytes between the control process and a worker that are not a message, or one that is too large."""
