"""What is written down of a running program, and of the queries that it answers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from dnsproxy.settings.values import Model

Sample = Annotated[int, Field(ge=1, le=1_000_000)]
Clients = Literal["full", "prefix", "omit"]
QueryField = Literal[
    "time",
    "client",
    "protocol",
    "name",
    "type",
    "rcode",
    "source",
    "upstream",
    "duration",
    "size",
    "ede",
    "reason",
]
# Not through the name of this project: the package of that name on PyPI is another program.
DNSTAP_PACKAGES = "'dnstap-pb>=0.11.3,<1' 'fstrm>=0.6,<1'"
# A path with its end, in a sockaddr_un (unix(7)).
_MAX_SOCKET_PATH = 107


def _switch(value: object) -> object:
    """Let `true` and `false` stand for the whole, and a mapping for being on."""
    if isinstance(value, bool):
        return {"enabled": value}
    if isinstance(value, dict):
        return {"enabled": True} | value
    if not isinstance(value, QueryLogSettings):
        raise ValueError("write true, false, or keys such as file and sample")  # noqa: TRY004 - pydantic collects ValueError
    return value


def _or_switch(entry: dict[str, Any]) -> None:
    entry["anyOf"] = [{"$ref": entry.pop("$ref")}, {"type": "boolean"}]


class QueryLogSettings(Model):
    """One line of JSON for each query; `true` for all defaults."""

    enabled: bool = False
    """Whether queries are written; `true` when any other key is given."""
    file: Path | None = None
    """The file that lines are appended to, which may be renamed at any time. `null`: standard output."""
    sample: Sample = 1
    """One in so many queries is written, at random."""
    fields: list[QueryField] = Field(
        default_factory=lambda: list(QueryField.__args__),  # type: ignore[attr-defined]
        min_length=1,
    )
    """What is in a line."""
    clients: Clients = "full"
    """Addresses of clients: `full`, `prefix` (/24 for IPv4, /56 for IPv6) or `omit`."""
    names: Literal["full", "omit"] = "full"
    """Names that are asked for: `full` or `omit`."""


class DnstapSettings(Model):
    """Queries and responses as dnstap messages in Frame Streams; needs the extra `dnstap`."""

    socket: Path | None = None
    """The Unix socket of a collector, which may come and go."""
    file: Path | None = None
    """A file instead, written anew at each start; several workers add `.1`, `.2` and so on."""
    sample: Sample = 1
    """One in so many queries is written, at random."""
    clients: Clients = "full"
    """Addresses of clients: `full`, `prefix` (/24 for IPv4, /56 for IPv6) or `omit`."""
    identity: str | None = Field(None, min_length=1, max_length=255)
    """What this server is called in the messages. `null`: the name of the host."""

    @property
    def enabled(self) -> bool:
        """Whether there is anywhere to write to."""
        return self.socket is not None or self.file is not None

    @model_validator(mode="after")
    def _writable(self) -> Self:
        if self.socket is not None and self.file is not None:
            raise ValueError("give socket or file, not both")
        if self.socket is not None and len(bytes(self.socket)) > _MAX_SOCKET_PATH:
            raise ValueError(f"socket: the path of a socket has {_MAX_SOCKET_PATH} octets at most")
        missing = [name for name in ("dnstap_pb", "fstrm") if find_spec(name) is None]
        if self.enabled and missing:
            raise ValueError(f"needs {' and '.join(missing)}; run: pip install {DNSTAP_PACKAGES}")
        return self


class LogSettings(Model):
    """Logging; ``auto`` is readable on a terminal and JSON elsewhere."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written."""
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    queries: Annotated[QueryLogSettings, BeforeValidator(_switch)] = Field(
        QueryLogSettings(), json_schema_extra=_or_switch
    )
    """The query log: `true`, `false` or its keys."""
    dnstap: DnstapSettings = DnstapSettings()
    """Where queries go as dnstap messages; nowhere by default."""
