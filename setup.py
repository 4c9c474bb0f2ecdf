"""Build script. Pure Python by default; ``DNSPROXY_COMPILE=1`` compiles the query path.

mypyc turns the same annotated source into C extensions, and Cython the system calls that they
make and what changes single octets; both need a C compiler and Python's headers at build time
and nothing at run time. Forwarded misses then cost about 60 % of the CPU; nothing else differs.
See docs/performance.md.
"""

from __future__ import annotations

import os
from pathlib import Path

from setuptools import Extension, setup

QUERY_PATH = [
    *(
        f"dnsproxy/core/{name}.py"
        for name in ("access", "answers", "cache", "chains", "chance", "clients", "cname", "cuts", "memory")
    ),
    *(
        f"dnsproxy/core/{name}.py"
        for name in ("attempt", "engine", "exchange", "failures", "fairness", "gate", "group", "inflight")
    ),
    *(
        f"dnsproxy/core/{name}.py"
        for name in (
            "limiter",
            "names",
            "options",
            "pacing",
            "policy",
            "prepared",
            "prober",
            "proxy_protocol",
        )
    ),
    *(
        f"dnsproxy/core/{name}.py"
        for name in (
            "question",
            "rebuild",
            "recent",
            "reserved",
            "records",
            "response",
            "rotation",
            "seen",
            "shares",
            "special",
            "spelling",
        )
    ),
    *(f"dnsproxy/core/{name}.py" for name in ("stats", "times", "upstreams", "wire")),
    *(
        f"dnsproxy/net/{name}.py"
        for name in (
            "connection",
            "hot",
            "mmsg",
            "proxied",
            "tcp",
            "udp",
            "upstream",
            "upstream_udp",
            "watched",
        )
    ),
]


def extensions() -> list[Extension]:
    """Return what to compile."""
    if os.environ.get("DNSPROXY_COMPILE") != "1":
        return []
    # Only a compiled build needs these two.
    from Cython.Build import cythonize  # noqa: PLC0415
    from mypyc.build import mypycify  # noqa: PLC0415

    return [
        *mypycify(["--config-file=", "--ignore-missing-imports", *QUERY_PATH], opt_level="3"),
        # net/syscalls.py calls through ctypes where these are not compiled, core/response.py has its own.
        *cythonize(["dnsproxy/net/_syscalls.pyx", "dnsproxy/core/_octets.pyx"], build_dir="build/cython"),
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
