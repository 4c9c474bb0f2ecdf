"""A program under a seccomp profile that refuses system calls, as strict profiles of containers do."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable

# Numbers of system calls by the name of the machine.
NUMBERS = {
    "x86_64": {
        "epoll_create1": 291,
        "epoll_ctl": 233,
        "epoll_wait": 232,
        "inotify_init1": 294,
        "recvmmsg": 299,
        "sendmmsg": 307,
        "socketpair": 53,
        "timerfd_create": 283,
    },
    "aarch64": {
        "epoll_create1": 20,
        "epoll_ctl": 21,
        "epoll_wait": 22,
        "inotify_init1": 26,
        "recvmmsg": 243,
        "sendmmsg": 269,
        "socketpair": 199,
        "timerfd_create": 85,
    },
}

# Installs a filter (seccomp(2)) that has the calls of the second argument fail with the error of the first,
# and becomes the program. A process without rights may do so with PR_SET_NO_NEW_PRIVS.
LAUNCH = """
import ctypes, os, struct, sys
error, numbers = int(sys.argv[1]), [int(word) for word in sys.argv[2].split(",")]
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
rules = [struct.pack("HBBI", LOAD, 0, 0, 0)]
for number in numbers:
    rules += [struct.pack("HBBI", EQUAL, 0, 1, number), struct.pack("HBBI", RETURN, 0, 0, 0x00050000 | error)]
rules.append(struct.pack("HBBI", RETURN, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(rules))
program = struct.pack("HxxxxxxQ", len(rules), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
for arguments in ((38, 1, 0, 0, 0), (22, 2, ctypes.c_char_p(program), 0, 0)):
    if libc.prctl(*arguments):
        sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[3], sys.argv[3:])
"""


def refusing(error: int, calls: Iterable[str]) -> tuple[str, ...]:
    """Return what stands before a program's path so that ``calls`` fail with the number ``error`` in it."""
    numbers = NUMBERS[platform.machine()]
    return (sys.executable, "-c", LAUNCH, str(error), ",".join(str(numbers[call]) for call in calls))
