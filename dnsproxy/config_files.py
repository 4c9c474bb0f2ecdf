"""The files that a configuration names and the program reads: keys, tokens, certificates, credentials."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from dnsproxy.settings import Settings

KeyPath = tuple[str | int, ...]

# The keys that name a file which must be there; a list of files is one under its key.
_KEYS = frozenset(
    {
        *("ca_file", "cert_file", "client_ca_file", "credentials_file", "key_file", "kubeconfig"),
        *("password_file", "peer_keys", "read_token_file", "signing_key_file", "token_file"),
        *("trusted_keys", "file"),
    }
)
# Written by this program, or not there yet.
_OUTPUT = frozenset({"log"})


def missing_files(settings: Settings, role: str | None) -> Iterator[tuple[KeyPath, str]]:
    """Yield the key path of each named file that cannot be read, and the reason with the command's name.

    ``role`` limits them to the files of ``dnsproxy serve`` or ``dnsproxy helper``; None: both.
    """
    found = dict(_named(settings, ()))
    if role == "helper":
        found.setdefault(("helper", "signing_key_file"), settings.helper.signing_key_file)
    for place, path in found.items():
        user = "helper" if place[0] in {"helper", "registries"} else "serve"
        if role not in {None, user}:
            continue
        reason = _refusal(path)
        if reason is not None:
            yield place, f"{path}: {reason}; `dnsproxy {user}` needs it"


def _named(value: object, place: KeyPath) -> Iterator[tuple[KeyPath, Path]]:
    """Yield the files that the configuration itself names, in its order; defaults are left out."""
    if isinstance(value, BaseModel):
        for key in type(value).model_fields:
            if key in value.model_fields_set and (*place, key)[0] not in _OUTPUT:
                yield from _named(getattr(value, key), (*place, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _named(item, (*place, index))
    elif isinstance(value, Path):
        keys = [step for step in place if isinstance(step, str)]
        if keys[-1] in _KEYS:
            yield place, value


def _refusal(path: Path) -> str | None:
    """Return why ``path`` cannot be read; None if it can."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a file"
        with path.open("rb"):
            return None
    except OSError as exc:
        return exc.strerror or str(exc)
