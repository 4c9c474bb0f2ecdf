"""What the compiler (mypyc) is told of classes; without it nothing.

``free_list_len=1``: the memory of the last instance is kept for the next, and with it what is in the
processor's cache. Not ``acyclic``: of such objects mypyc 2.4 deallocates those that are nested 50 deep as if
they had a header for the garbage collector, and CPython 3.11 then writes to what is before them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:

    def mypyc_attr(**_attributes: object) -> Callable[[type], type]:
        """Return a decorator that changes nothing."""
        return lambda kind: kind


__all__ = ["mypyc_attr"]
