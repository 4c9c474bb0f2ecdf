from __future__ import annotations

import ctypes
import errno
import importlib
import socket
import struct

import pytest

from dnsproxy.net import msghdr
from dnsproxy.net.msghdr import (
    BATCH,
    CONTROL_AT,
    HEADER,
    LONGEST,
    PEER,
    SLOT,
    Headers,
    Slots,
    load_batch_calls,
)


def address(pointer: object) -> int:
    """The address in a pointer, of ctypes or (in a compiled build) of cffi."""
    if isinstance(pointer, ctypes.c_void_p):
        return pointer.value or 0
    return int(importlib.import_module("dnsproxy.net._syscalls").ffi.cast("size_t", pointer))


def made(slots: Slots, name_length: int = 0, control_length: int = 0) -> Headers:
    calls = load_batch_calls()
    assert calls is not None
    return slots.headers(calls, name_length, control_length)


def fields(slots: Slots, name_length: int, control_length: int, index: int) -> tuple[int, ...]:
    """struct msghdr number ``index`` as the kernel reads it, addresses from the start of the memory on.

    name, its length, iovec's address, iovec's length, iovecs, control, its length, flags, length received.
    """
    start = ctypes.addressof(ctypes.c_char.from_buffer(slots.memory))
    headers = made(slots, name_length, control_length)
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


def test_pointers_start_at_each_header() -> None:
    headers = made(Slots())
    start = ctypes.addressof(headers.array)
    assert [address(pointer) for pointer in headers.pointers] == [start + n * HEADER for n in range(BATCH)]


def test_lengths_are_read_and_written_where_the_kernel_has_them() -> None:
    headers = made(Slots())
    for index in range(BATCH):
        headers.array[index].length = 1000 + index
        headers.to_send[index] = 2000 + index
    assert list(headers.received) == [1000 + index for index in range(BATCH)]
    assert [iovec.length for iovec in headers.iovecs] == [2000 + index for index in range(BATCH)]


def test_several_headers_share_the_memory_and_keep_lengths_of_their_own() -> None:
    slots = Slots()
    receiving, answering = made(slots, 16), made(slots, 16)
    answering.to_send[0] = 1
    assert receiving.to_send[0] == LONGEST
    assert receiving.iovecs[0].base == answering.iovecs[0].base


def test_the_calls_move_messages_between_the_places_of_two() -> None:
    calls = load_batch_calls()
    assert calls is not None
    recvmmsg, sendmmsg, forever = calls.recvmmsg, calls.sendmmsg, calls.null
    sending, receiving = Slots(), Slots()
    to_send, received = made(sending), made(receiving)
    for index in range(BATCH):
        message = b"%d" % index
        sending.view[index * SLOT + PEER : index * SLOT + PEER + len(message)] = message
        to_send.to_send[index] = len(message)
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        # From the second one on: a pointer is an array of what follows.
        count = sendmmsg(one.fileno(), to_send.pointers[1], 5, 0)
        assert (
            count,
            recvmmsg(other.fileno(), received.pointers[0], BATCH, socket.MSG_DONTWAIT, forever),
        ) == (
            5,
            5,
        )
        assert recvmmsg(other.fileno(), received.pointers[0], BATCH, socket.MSG_DONTWAIT, forever) == -1
        assert calls.last_error() == errno.EAGAIN
    assert [receiving.view[n * SLOT + PEER : n * SLOT + PEER + 1].tobytes() for n in range(5)] == [
        b"%d" % number for number in range(1, 6)
    ]
    assert list(received.received[:6]) == [1, 1, 1, 1, 1, 0]


def test_linux_has_the_calls() -> None:
    assert load_batch_calls() is not None


def test_another_layout_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(msghdr, "HEADER", 60)
    assert load_batch_calls() is None
