"""What may be kept of remote parties, in bytes: one limit for each structure that they can fill.

A limit counts bytes as the process pays them: payload, keys, and what CPython needs for the objects around
them. The structures enforce these numbers; `dnsproxy check --memory` adds them up.
"""

from __future__ import annotations

from typing import Final, NamedTuple

KIB: Final = 1024
MIB: Final = 1024 * 1024

# -- what CPython needs -------------------------------------------------------------------

# A bytes object beside its bytes: 33, rounded up to 16, and its place in a list.
BYTES_OBJECT: Final = 48
# A number in a tuple: 8 for its place, 32 for the object.
NUMBER: Final = 40

# -- answers ------------------------------------------------------------------------------

# An entry of the cache beside key, sections and TTL offsets: the object with two floats, the tuples, the
# headers of two bytes objects, the place in the ring and in the dict, which is up to three times as large as
# its entries.
CACHE_ENTRY: Final = 480
# The limit of a cache whose size is given in entries, for each of them. Real answers cost some 700.
CACHE_BYTES_PER_ENTRY: Final = 1024
PREPARED: Final = 12 * MIB
PREPARED_ENTRY: Final = 320

# -- what is remembered of questions and clients ------------------------------------------

FAILURES: Final = 6 * MIB
FAILURE: Final = 160
CUTS: Final = 16 * MIB
CUT: Final = 256
CLIENT_RATES: Final = 24 * MIB
CLIENT_RATE: Final = 256

# -- forwarded queries ---------------------------------------------------------------------

# The longest query that is forwarded. Padding makes usual ones 128 or 256 bytes long.
LONGEST_FORWARDED: Final = 4 * KIB
# One exchange with its first query, at most.
EXCHANGE: Final = 8 * KIB
# All queries that wait for an exchange which another one has begun; one of them beside its bytes.
WAITERS: Final = 16 * MIB
WAITER: Final = 512

# -- clients over TCP, TLS and HTTPS ------------------------------------------------------

# One that waits, or has sent part of a TLS record: objects, OpenSSL, h2.
TCP_CLIENT: Final = 8 * KIB
TLS_CLIENT: Final = 96 * KIB
# What all of them have sent unfinished or have not read yet: messages, requests, responses.
CLIENT_BUFFERS: Final = 16 * MIB
# An HTTP/2 stream beside its headers and body.
HTTP2_STREAM: Final = 1 * KIB
# Buffers of the kernel for one such connection, which count as memory of the service: the kernel doubles what
# it is asked for, and would give up to 10 MiB.
CLIENT_RECEIVE: Final = 32 * KIB
CLIENT_SEND: Final = 64 * KIB
# The same for a UDP listener: 0.2 s of load at 100,000 queries per second while something else runs.
UDP_RECEIVE: Final = 4 * MIB
# Late responses that wait for their turn (`pacing`), of each UDP listener.
PACED: Final = 8 * MIB

# -- upstreams ----------------------------------------------------------------------------

# A connection over TCP, TLS or HTTPS, with one unfinished message and what the upstream has not read.
UPSTREAM_CONNECTION: Final = 1 * MIB
# Unfinished replies on one connection over HTTPS. One reply has 64 kB at most, and usual ones 200 bytes.
UPSTREAM_REPLIES: Final = 1 * MIB

# -- the rest of a proxy --------------------------------------------------------------------

# Interpreter, libraries, configuration, learned names: 70 MiB without any load.
PROCESS: Final = 80 * MIB
# Last snapshots of all helpers, with what is known of their addresses; and for each managed name besides,
# which is four addresses of nine helpers.
SNAPSHOTS: Final = 64 * MIB
SNAPSHOTS_PER_NAME: Final = 16 * KIB
# Records of the history; for each managed name besides, which is 100 records of four addresses. One name of a
# record, and an address of it.
HISTORY: Final = 2 * MIB
HISTORY_PER_NAME: Final = 48 * KIB
RECORDED_NAME: Final = 100
RECORDED_ADDRESS: Final = 80
# One that is being pulled: at most 8 MiB, as bytes and as text.
SNAPSHOT_PULL: Final = 16 * MIB
# A connection to the HTTP endpoint that waits: objects, and OpenSSL.
HTTP_CLIENT: Final = 16 * KIB
HTTP_TLS: Final = 32 * KIB
# What all of them have sent and is not answered, and what they have not read yet.
HTTP_BUFFERS: Final = 8 * MIB
# Buffers of the kernel for one of them; a page that reads megabytes comes in parts.
HTTP_RECEIVE: Final = 16 * KIB
HTTP_SEND: Final = 32 * KIB
# Queues in front of standard error, and of query log and dnstap.
LOG_QUEUE: Final = 1 * MIB
QUERY_QUEUE: Final = 4 * MIB

# The allocator needs more than is counted: the limit of the service is so many times the sum, in quarters.
_QUARTERS: Final = 5
_STEP: Final = 32 * MIB


class Limit(NamedTuple):
    """The bytes that one structure may take."""

    name: str
    size: int


class ProxyShape(NamedTuple):
    """What of the configuration of a proxy decides how much memory it may take."""

    workers: int
    cache: int
    max_in_flight: int
    tcp_clients: int
    serves_tls: bool
    has_rate_limit: bool
    has_cuts: bool
    udp_listeners: int
    # Connections that it may have to all upstreams, and those over HTTPS among them.
    upstream_connections: int
    https_connections: int
    sources: int
    names: int
    admin_clients: int
    admin_has_tls: bool
    query_queues: int


def snapshots_limit(names: int) -> int:
    """Return the bytes that the last snapshots of all helpers may take, where so many names are managed."""
    return SNAPSHOTS + SNAPSHOTS_PER_NAME * names


def history_limit(names: int) -> int:
    """Return the bytes that the records of the history may take, where so many names are managed."""
    return HISTORY + HISTORY_PER_NAME * names


def proxy_limits(shape: ProxyShape) -> list[Limit]:
    """Return all limits; those of what each worker has, multiplied."""
    each = [
        Limit("process", PROCESS),
        Limit("answer cache", shape.cache),
        Limit("prepared packets", PREPARED),
        Limit("failures", FAILURES),
        Limit("NXDOMAIN cuts", CUTS if shape.has_cuts else 0),
        Limit("rate limits of clients", CLIENT_RATES if shape.has_rate_limit else 0),
        Limit("exchanges in flight", shape.max_in_flight * EXCHANGE),
        Limit("waiting queries", WAITERS),
        Limit("TCP and TLS clients", shape.tcp_clients * (TLS_CLIENT if shape.serves_tls else TCP_CLIENT)),
        Limit("their unfinished requests and unread responses", CLIENT_BUFFERS),
        Limit("their buffers in the kernel", shape.tcp_clients * 2 * (CLIENT_RECEIVE + CLIENT_SEND)),
        Limit("UDP listeners' buffers in the kernel", shape.udp_listeners * 2 * UDP_RECEIVE),
        Limit("late responses over UDP", shape.udp_listeners * PACED),
        Limit("connections to upstreams", shape.upstream_connections * UPSTREAM_CONNECTION),
        Limit("their unfinished replies over HTTPS", shape.https_connections * UPSTREAM_REPLIES),
        Limit("queues of query log and dnstap", shape.query_queues * QUERY_QUEUE),
    ]
    control = 1 if shape.workers > 1 else 0
    http_client = HTTP_CLIENT + (HTTP_TLS if shape.admin_has_tls else 0)
    shared = [
        Limit("control process", control * PROCESS),
        Limit("snapshots", snapshots_limit(shape.names) if shape.sources else 0),
        Limit("history", history_limit(shape.names) if shape.sources else 0),
        Limit("snapshots being pulled", shape.sources * SNAPSHOT_PULL),
        Limit("clients of the HTTP endpoint", shape.admin_clients * http_client),
        Limit("its requests and unread responses", HTTP_BUFFERS if shape.admin_clients else 0),
        Limit("its clients' buffers in the kernel", shape.admin_clients * 2 * (HTTP_RECEIVE + HTTP_SEND)),
        Limit("queue of the log", LOG_QUEUE),
    ]
    limits = [Limit(name, shape.workers * size) for name, size in each] + shared
    return [limit for limit in limits if limit.size]


def service_limit(limits: list[Limit]) -> int:
    """Return what the service may be allowed (MemoryMax): 1.25 times the sum, in steps of 32 MiB."""
    wanted = sum(limit.size for limit in limits) * _QUARTERS // 4
    return -(-wanted // _STEP) * _STEP
