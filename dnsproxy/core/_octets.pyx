# cython: language_level=3
# cython: binding=False
"""What changes single octets of messages, compiled with the query path (setup.py); `response` has it in Python."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.string cimport memcpy


def aged(bytes sections not None, tuple offsets not None, long long elapsed):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(sections), offset
    cdef bytes changed = PyBytes_FromStringAndSize(NULL, size)
    cdef unsigned char *octets = <unsigned char *>PyBytes_AS_STRING(changed)
    cdef unsigned char *field
    cdef unsigned int ttl
    elapsed = max(elapsed, 0)
    memcpy(octets, PyBytes_AS_STRING(sections), size)
    for offset in offsets:
        if offset < 0 or offset > size - 4:
            raise IndexError("a TTL outside of the sections")
        field = octets + offset
        ttl = <unsigned int>field[0] << 24 | field[1] << 16 | field[2] << 8 | field[3]
        ttl = <unsigned int>(ttl - elapsed) if ttl > elapsed else 0
        field[0], field[1], field[2], field[3] = ttl >> 24, ttl >> 16 & 0xFF, ttl >> 8 & 0xFF, ttl & 0xFF
    return changed
