"""``python -m docgen``: write the generated pages."""

from __future__ import annotations

from docgen.pages import write

for path in write():
    print(f"wrote {path}")  # noqa: T201 - a command's output
