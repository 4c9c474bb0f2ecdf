"""Build script. Pure Python by default; ``DNSPROXY_COMPILE=1`` compiles the query path.

mypyc turns the same annotated source into C extensions, and cffi the declarations of four
system calls; both need a C compiler and Python's headers at build time and nothing at run
time. Forwarded misses then cost about 60 % of the CPU; nothing else differs. See
docs/performance.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

QUERY_PATH = [
    *(f"dnsproxy/core/{name}.py" for name in ("access", "answers", "cache", "chance", "engine", "exchange")),
    *(f"dnsproxy/core/{name}.py" for name in ("failures", "gate", "group", "inflight", "limiter", "names")),
    *(
        f"dnsproxy/core/{name}.py"
        for name in ("policy", "prepared", "prober", "question", "recent", "response", "seen", "stats")
    ),
    *(f"dnsproxy/core/{name}.py" for name in ("times", "upstreams", "wire")),
    *(
        f"dnsproxy/net/{name}.py"
        for name in ("connection", "hot", "mmsg", "tcp", "udp", "upstream", "upstream_udp", "watched")
    ),
]

# As in sendmmsg(2), recvmmsg(2), sendto(2) and epoll_wait(2), with `void *` for structures that are
# made elsewhere. net/syscalls.py calls them through ctypes where they are not compiled.
SYSTEM_CALLS = """
    int recvmmsg(int descriptor, void *messages, unsigned int count, int flags, void *timeout);
    int sendmmsg(int descriptor, void *messages, unsigned int count, int flags);
    ssize_t sendto(int descriptor, const char *octets, size_t length, int flags,
                   void *peer, unsigned int peer_size);
    int epoll_wait(int descriptor, void *events, int count, int milliseconds);
"""


def extensions() -> list[Extension]:
    """Return what to compile."""
    if os.environ.get("DNSPROXY_COMPILE") != "1":
        return []
    # Only a compiled build needs these two.
    from cffi import FFI  # noqa: PLC0415
    from mypyc.build import mypycify  # noqa: PLC0415

    calls = FFI()
    calls.cdef(SYSTEM_CALLS)
    calls.set_source("dnsproxy.net._syscalls", "#include <sys/epoll.h>\n#include <sys/socket.h>\n")
    return [
        *mypycify(["--config-file=", "--ignore-missing-imports", *QUERY_PATH], opt_level="3"),
        calls.distutils_extension(tmpdir="build"),
    ]


# Where man and the shells look, below the prefix: /usr, or the environment that it is installed into.
SHARED = {
    "share/man/man1": "docs/man/dnsproxy.1",
    "share/bash-completion/completions": "completions/dnsproxy",
    "share/zsh/site-functions": "completions/_dnsproxy",
    "share/fish/vendor_completions.d": "completions/dnsproxy.fish",
}


def shared_files() -> list[tuple[str, list[str]]]:
    """Return what goes beside the package; an image is built from less than the whole source."""
    return [(folder, [file]) for folder, file in SHARED.items() if Path(file).is_file()]


setup(ext_modules=extensions(), data_files=shared_files())
