"""What a test lays out in network namespaces: they and the programs in them end with its context."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.e2e.processes import Process
from tests.netns.spaces import Space, Spaces


class Network:
    """Hosts and programs; a subclass lays them out in `_lay_out`. ``folder`` has the files of all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            spaces = stack.enter_context(Spaces())
            stack.callback(self._end)
            self._lay_out(spaces)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _lay_out(self, spaces: Spaces) -> None:
        raise NotImplementedError

    def _end(self) -> None:
        for process in self.processes:
            process.kill()
            # Captured by pytest, and shown only when a test fails.
            print(f"--- {process.name}\n{process.text()[-8_000:]}")  # noqa: T201

    def add_process(self, space: Space, name: str, *argv: str | Path) -> Process:
        """Make a program of the host ``space``, which ends with the network."""
        process = Process(name, space.within(*argv), self.folder / f"{name}.log")
        self.processes.append(process)
        return process
