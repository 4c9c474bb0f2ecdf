"""What may be kept of remote parties, in bytes: one limit for each structure that they can fill.

A limit counts bytes as the process pays them: payload, keys, and what CPython needs for the objects around
them. The structures enforce these numbers; `dnsproxy check --memory` adds them up.
"""

from __future__ import annotations

from typing import Final

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

# -- upstreams ----------------------------------------------------------------------------

# Unfinished replies on one connection over HTTPS. One reply has 64 kB at most, and usual ones 200 bytes.
UPSTREAM_REPLIES: Final = 1 * MIB
