"""Build script. Pure Python by default; ``DNSPROXY_COMPILE=1`` compiles the query path.

mypyc turns the same annotated source into C extensions, which need a C compiler and
Python's headers at build time and nothing at run time. Forwarded misses then cost
about 60 % of the CPU; nothing else differs. See docs/performance.md.
"""

from __future__ import annotations

import os

from setuptools import Extension, setup

QUERY_PATH = [
    *(f"dnsproxy/core/{name}.py" for name in ("access", "answers", "cache", "chance", "engine", "exchange")),
    *(f"dnsproxy/core/{name}.py" for name in ("failures", "group", "inflight", "limiter", "names", "policy")),
    *(
        f"dnsproxy/core/{name}.py"
        for name in ("prepared", "prober", "question", "recent", "response", "stats")
    ),
    *(f"dnsproxy/core/{name}.py" for name in ("upstreams", "wire")),
    *(f"dnsproxy/net/{name}.py" for name in ("connection", "hot", "mmsg", "tcp", "udp", "upstream")),
]


def extensions() -> list[Extension]:
    """Return what to compile."""
    if os.environ.get("DNSPROXY_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - only a compiled build needs mypy

    return list(mypycify(["--config-file=", "--ignore-missing-imports", *QUERY_PATH], opt_level="3"))


setup(ext_modules=extensions())
