from __future__ import annotations

import ctypes
import gc
import socket
import struct

import pytest

from dnsproxy.net import msghdr
from dnsproxy.net.msghdr import BATCH, CONTROL_AT, HEADER, PEER, SLOT, Slots, load_batch_calls
from dnsproxy.net.syscalls import LONGEST


def fields(slots: Slots, name_length: int, control_length: int, index: int) -> tuple[int, ...]:
    """struct msghdr number ``index`` as the kernel reads it, addresses from the start of the memory on.

    name, its length, iovec's address, iovec's length, iovecs, control, its length, flags, length received.
    """
    start = ctypes.addressof(ctypes.c_char.from_buffer(slots.memory))
    headers = slots.headers(name_length, control_length)
    raw = bytes(headers.array)[index * HEADER : (index + 1) * HEADER]
    name, name_size, iov, iovs, control, control_size, flags, received = struct.unpack("@PIPNPNi4xI4x", raw)
    base, size = struct.unpack("@PN", ctypes.string_at(iov, 16))
    place = tuple(address - start if address else -1 for address in (name, base, control))
    return place[0], name_size, place[1], size, iovs, place[2], control_size, flags, received


@pytest.mark.parametrize("index", [0, 1, BATCH - 1])
def test_each_header_names_its_own_place(index: int) -> None:
    at = index * SLOT
    assert fields(Slots(), 28, 40, index) == (at, 28, at + PEER, LONGEST, 1, at + CONTROL_AT, 40, 0, 0)


def test_without_peers_there_is_no_address_and_no_control_data() -> None:
    assert fields(Slots(), 0, 0, 3) == (-1, 0, 3 * SLOT + PEER, LONGEST, 1, -1, 0, 0, 0)


def test_a_peer_has_room_for_its_address_and_for_its_control_data() -> None:
    assert CONTROL_AT >= 28, "struct sockaddr_in6"
    assert CONTROL_AT % 8 == 0, "struct cmsghdr is aligned"
    assert socket.CMSG_SPACE(20) <= PEER - CONTROL_AT, "struct in6_pktinfo"
    assert LONGEST >= 1232, "the longest response over UDP"


def test_addresses_are_of_each_header() -> None:
    headers = Slots().headers(0, 0)
    start = ctypes.addressof(headers.array)
    assert headers.addresses == [start + n * HEADER for n in range(BATCH)]


def test_several_headers_share_the_memory_and_keep_vectors_of_their_own() -> None:
    slots = Slots()
    receiving, answering = slots.headers(16, 0), slots.headers(16, 0)
    assert receiving.iovecs[0].base == answering.iovecs[0].base
    answering.iovecs[0].length = 1
    assert receiving.iovecs[0].length == LONGEST


def test_messages_come_to_their_places() -> None:
    calls = load_batch_calls()
    assert calls is not None
    slots = Slots()
    headers, sending = slots.headers(0, 0), Slots().headers(0, 0)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        sent = [b"%d" % number for number in range(BATCH)]
        assert calls.sendmmsg(one.fileno(), sending.addresses[0], sent[:5]) == 5
        other.setblocking(False)
        assert calls.recvmmsg(other.fileno(), headers.addresses[0], BATCH) == sent[:5]
    assert [slots.view[n * SLOT + PEER : n * SLOT + PEER + 1].tobytes() for n in range(5)] == sent[:5]


def test_linux_has_the_calls() -> None:
    assert load_batch_calls() is not None


def test_another_layout_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msghdr, "HEADER", 60)
    # What an earlier call has found is kept.
    assert load_batch_calls.__wrapped__() is None


def test_headers_keep_the_memory_that_they_tell_the_kernel_of() -> None:
    headers = Slots().headers(0, 0)
    gc.collect()
    ctypes.memmove(headers.iovecs[0].base, b"still here", 10)
    assert bytes(headers.memory[PEER : PEER + 10]) == b"still here"
