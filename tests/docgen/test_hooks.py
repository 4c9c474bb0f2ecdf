from __future__ import annotations

import pytest

from docgen.hooks import within_site


@pytest.mark.parametrize(
    ("markdown", "path", "wanted"),
    [
        ("see [bench/results.md](../bench/results.md).", "performance.md", "see `bench/results.md`."),
        ("[the unit](../../deploy/a.service)", "howto/x.md", "the unit (`deploy/a.service` in the source)"),
        ("[`deploy/`](../../deploy/)", "howto/x.md", "`deploy`"),
        ("[Design](../design.md)", "howto/x.md", "[Design](../design.md)"),
        ("[a](../zh/quick-start.md#b) [c](d.md)", "howto/x.md", "[a](../zh/quick-start.md#b) [c](d.md)"),
        ("![picture](../images/a.svg)", "howto/x.md", "![picture](../images/a.svg)"),
    ],
)
def test_links_out_of_docs_become_paths(markdown: str, path: str, wanted: str) -> None:
    assert within_site(markdown, path) == wanted
