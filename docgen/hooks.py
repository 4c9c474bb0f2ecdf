"""Hooks of MkDocs, which calls them by their names."""

from __future__ import annotations

import posixpath
import re

from mkdocs.structure.pages import Page

_LINK = re.compile(r"\[([^\]\[]+)\]\((\.\./[^)\s]+)\)")


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Turn links that lead out of docs/ into the path that they lead to.

    They serve readers of the source on a forge; the site has no such files, and the
    build refuses a link to nothing.
    """
    return within_site(markdown, page.file.src_uri)


def within_site(markdown: str, path: str) -> str:
    """Return the text of the page at ``path`` below docs/ without links that lead out of docs/."""

    def replaced(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", posixpath.dirname(path), link[2]))
        if target.startswith("docs/"):
            return link[0]
        text = link[1].replace("`", "")
        return f"`{target}`" if text.rstrip("/") == target else f"{link[1]} (`{target}` in the source)"

    return _LINK.sub(replaced, markdown)
