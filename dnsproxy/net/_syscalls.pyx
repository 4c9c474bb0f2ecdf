# cython: language_level=3
# cython: binding=False
"""System calls for `syscalls`, compiled with the query path (setup.py).

Addresses are plain numbers, and trusted. Only `ready` gives up the interpreter's lock, and only when it may have
to wait: the sockets never block, and giving it up and taking it back is a fifth of such a call.
"""

import os

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.errno cimport EINTR, errno
from libc.string cimport memcpy


cdef extern from "sys/socket.h" nogil:
    ctypedef unsigned int socklen_t
    struct sockaddr:
        pass
    struct iovec:
        void *iov_base
        size_t iov_len
    struct msghdr:
        void *msg_name
        socklen_t msg_namelen
        iovec *msg_iov
        void *msg_control
    struct mmsghdr:
        msghdr msg_hdr
        unsigned int msg_len
    int c_recvmmsg "recvmmsg" (int descriptor, mmsghdr *messages, unsigned int count, int flags, void *timeout)
    int c_sendmmsg "sendmmsg" (int descriptor, mmsghdr *messages, unsigned int count, int flags)
    ssize_t c_recvmsg "recvmsg" (int descriptor, msghdr *message, int flags)
    ssize_t c_sendmsg "sendmsg" (int descriptor, const msghdr *message, int flags)
    ssize_t c_recvfrom "recvfrom" (
        int descriptor, void *octets, size_t room, int flags, sockaddr *peer, socklen_t *size
    )
    ssize_t c_sendto "sendto" (
        int descriptor, const void *octets, size_t count, int flags, const sockaddr *peer, socklen_t size
    )


cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        epoll_data_t data
    int c_epoll_wait "epoll_wait" (int descriptor, epoll_event *events, int count, int milliseconds)


cdef extern from "time.h" nogil:
    ctypedef long time_t
    struct timespec:
        time_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC


cdef extern from "sys/timerfd.h" nogil:
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int TFD_CLOEXEC, TFD_NONBLOCK, TFD_TIMER_ABSTIME
    int c_timerfd_create "timerfd_create" (int clock, int flags)
    int c_timerfd_settime "timerfd_settime" (int descriptor, int flags, const itimerspec *to, itimerspec *was)


cdef enum:
    MOST = 64  # events told at once; the rest is told by the next call
    LONGEST = 1976  # as in net/syscalls.py


# The calls for one message do with less code than those for many.


def recvmmsg(int descriptor, size_t messages, unsigned int most):
    cdef mmsghdr *header = <mmsghdr *>messages
    cdef int count = 1, index
    cdef ssize_t size
    cdef list found
    if most == 1:
        size = c_recvmsg(descriptor, &header.msg_hdr, 0)
        if size < 0:
            return None
        header.msg_len = size
    else:
        count = c_recvmmsg(descriptor, header, most, 0, NULL)
        if count < 0:
            return None
    found = []
    for index in range(count):
        found.append(PyBytes_FromStringAndSize(<char *>header.msg_hdr.msg_iov.iov_base, header.msg_len))
        header += 1
    return found


def sendmmsg(int descriptor, size_t messages, list octets not None):
    cdef mmsghdr *first = <mmsghdr *>messages
    cdef mmsghdr *header = first
    cdef bytes message
    for message in octets:
        header.msg_hdr.msg_iov.iov_base = PyBytes_AS_STRING(message)
        header.msg_hdr.msg_iov.iov_len = PyBytes_GET_SIZE(message)
        header += 1
    if len(octets) == 1:
        return -1 if c_sendmsg(descriptor, &first.msg_hdr, 0) < 0 else 1
    return c_sendmmsg(descriptor, first, <unsigned int>len(octets), 0)


# Without control data the two shorter calls do: the kernel need not read the header (0.2 us each).


def receive_one(int descriptor, size_t header, size_t octets):
    cdef msghdr *message = <msghdr *>header
    cdef ssize_t size
    if message.msg_control == NULL:
        size = c_recvfrom(
            descriptor, <void *>octets, message.msg_iov.iov_len, 0,
            <sockaddr *>message.msg_name, &message.msg_namelen,
        )
    else:
        size = c_recvmsg(descriptor, message, 0)
    if size < 0:
        return None
    return PyBytes_FromStringAndSize(<char *>octets, size)


def send_one(int descriptor, size_t header, bytes response not None):
    cdef msghdr *message = <msghdr *>header
    if message.msg_control == NULL:
        return c_sendto(
            descriptor, PyBytes_AS_STRING(response), PyBytes_GET_SIZE(response), 0,
            <const sockaddr *>message.msg_name, message.msg_namelen,
        )
    message.msg_iov.iov_base = PyBytes_AS_STRING(response)
    message.msg_iov.iov_len = PyBytes_GET_SIZE(response)
    return c_sendmsg(descriptor, message, 0)


def read(size_t address, Py_ssize_t length):
    return PyBytes_FromStringAndSize(<char *>address, length)


def write(size_t address, bytes octets not None):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(octets)
    if size > LONGEST:
        raise ValueError("longer than a message may be")
    memcpy(<void *>address, PyBytes_AS_STRING(octets), size)


def ready(int descriptor, bint waiting):
    cdef epoll_event events[MOST]
    cdef int count, index
    if waiting:
        with nogil:
            count = c_epoll_wait(descriptor, events, MOST, -1)
    else:
        count = c_epoll_wait(descriptor, events, MOST, 0)
    if count < 0:
        failure = errno
        if failure == EINTR:
            PyErr_CheckSignals()  # the loop is compiled: nothing else would run Python's handlers
            return []
        raise OSError(failure, os.strerror(failure))
    return [events[index].data.fd for index in range(count)]


def open_timer():
    cdef int descriptor = c_timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)
    if descriptor < 0:
        raise OSError(errno, os.strerror(errno))
    return descriptor


def set_timer(int descriptor, double at):
    cdef itimerspec to
    to.it_interval.tv_sec = to.it_interval.tv_nsec = 0
    to.it_value.tv_sec = <time_t>at
    # Up, that it is never before its time by the clock that sets it.
    to.it_value.tv_nsec = min(<long>((at - <double>to.it_value.tv_sec) * 1e9) + 1, 999999999)
    if c_timerfd_settime(descriptor, TFD_TIMER_ABSTIME, &to, NULL) < 0:
        raise OSError(errno, os.strerror(errno))


def last_error():
    return errno
