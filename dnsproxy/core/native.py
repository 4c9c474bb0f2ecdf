"""What the compiler (mypyc) is told of classes; without it nothing.

``acyclic``: no instance is ever part of a cycle, so that the garbage collector need not know of it and it
is 16 octets smaller. ``free_list_len=1``: the memory of the last one is kept for the next. Together they
save 1 % of a miss and 2 % of the mix.
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
