from __future__ import annotations

from pathlib import Path

import pytest

from dnsproxy.helper.target_file import FileTarget
from dnsproxy.settings import publishing


def target(path: Path) -> FileTarget:
    return FileTarget(publishing.FileTarget(type="file", path=path))


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "snapshot.jws"
    file = target(path)
    assert file.name == f"file://{path}"
    assert await file.read() is None
    await file.write("a.b.c")
    assert await file.read() == "a.b.c"
    assert path.stat().st_mode & 0o777 == 0o644
    await file.close()


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await target(tmp_path / "nowhere" / "snapshot.jws").write("a.b.c")
