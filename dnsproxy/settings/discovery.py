"""How the helper asks a registry which other names it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from dnsproxy.settings.values import Model, Name


def _plain(value: str) -> str:
    if value == "." or "*" in value:
        raise ValueError(f"{value!r} is not one domain; write for example aliyuncs.com")
    return value


Domain = Annotated[Name, AfterValidator(_plain)]
# A path as the distribution specification has it, with a tag or a digest.
_PATH = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"
_REFERENCE = r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|@sha256:[0-9a-f]{64})?"


class DiscoverSettings(Model):
    """What to ask for, of whom, and whom to believe."""

    host: Domain | None = None
    port: int = Field(443, ge=1, le=65_535)
    realm_suffixes: list[Domain] = Field(default_factory=lambda: ["aliyuncs.com."])
    storage_suffixes: list[Domain] = Field(default_factory=lambda: ["aliyuncs.com."])
    ca_file: Path | None = None
    credentials_file: Path | None = None
    repository: str | None = Field(None, max_length=255, pattern=f"^{_PATH}{_REFERENCE}$")

    @model_validator(mode="after")
    def _used(self) -> Self:
        if self.credentials_file and not self.repository:
            raise ValueError("credentials_file needs a repository to ask for")
        return self
