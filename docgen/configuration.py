"""docs/reference/configuration.md, from what ``dnsproxy schema`` prints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dnsproxy.settings.schema import duration_text

HEAD = """\
# Configuration

Generated from the models in `dnsproxy/settings` by `make pages`.

One YAML file serves helper and proxy; each uses its part. `config.example.yaml` holds every key with
remarks. `dnsproxy check FILE` reports every mistake at once, with its line and key path, and exits 2;
what may be a mistake is a warning.
`dnsproxy schema` prints the JSON schema of the file: an editor that takes one checks and completes while
you write.

- A *duration* is `800ms`, `30s`, `5m`, `1h`, `1d`, `forever`, or a number of seconds.
- A *range of addresses* is `10.0.0.0/8` or `fc00::/7`, without bits set behind the prefix.
- An *address with port* is `127.0.0.1:53` or `[::1]:53`. Addresses of servers are numeric.
- Names are case-insensitive; a dot at the end makes no difference.
- Unknown keys are mistakes. A section that is left out, or whose keys are all commented out, has its
  defaults.
- `[]` in a key path stands for each entry of a list, `[file]` for those of `type: file`, `ZONE` for a name
  that you choose.
"""


@dataclass(frozen=True)
class Key:
    """One key of the file."""

    path: str
    kind: str
    meaning: str
    default: str
    bounds: str
    is_section: bool


def page(document: dict[str, Any]) -> str:
    """Return the page for the schema ``document``."""
    return HEAD + "".join(_entry(key) for key in keys(document))


def keys(document: dict[str, Any]) -> Iterator[Key]:
    """Yield the keys in the order of the schema, each section before what is in it."""
    yield from _keys(document, document["properties"], set(document.get("required", ())), "")


def _keys(
    document: dict[str, Any], properties: dict[str, Any], required: set[str], above: str
) -> Iterator[Key]:
    for name, entry in properties.items():
        path = f"{above}{name}"
        inner = _sections(document, entry)
        default = entry.get("default", "")
        suffix = "[]" if inner and "items" in entry else ".ZONE" if "additionalProperties" in entry else ""
        yield Key(
            path + suffix,
            _kind(entry) + (", must be given" if name in required else ""),
            entry["description"],
            "" if inner else default if isinstance(default, str) else json.dumps(default),
            _bounds(entry),
            is_section=bool(inner),
        )
        for model in inner:
            below = f"{path}{_label(model)}." if suffix == "[]" else f"{path}."
            yield from _keys(document, model["properties"], set(model.get("required", ())), below)


def _sections(document: dict[str, Any], entry: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the models that ``entry`` holds: several where ``type`` chooses among them."""
    held = entry.get("items", entry)
    parts = held["oneOf"] if "oneOf" in held else _alternatives(held)[:1]
    return [document["$defs"][part["$ref"].rpartition("/")[2]] for part in parts if "$ref" in part]


def _label(model: dict[str, Any]) -> str:
    """Return ``[]``, or ``[TYPE]`` for the entries of a list that have a ``type`` which must be given."""
    return f"[{model['properties']['type']['const']}]" if "type" in model.get("required", ()) else "[]"


def _alternatives(entry: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = entry.get("anyOf", [entry])
    return found


def _kind(entry: dict[str, Any]) -> str:
    kinds = [_one_kind(part) for part in _alternatives(entry)]
    # A section may be null, which is the same as leaving it out.
    return "section" if "section" in kinds else " or ".join(kinds)


def _one_kind(entry: dict[str, Any]) -> str:
    if "$ref" in entry or "oneOf" in entry:
        return "section"
    if "enum" in entry or "const" in entry:
        return ", ".join(f"`{choice}`" for choice in entry.get("enum", [entry.get("const")]))
    if entry.get("type") == "array":
        return f"list: {_kind(entry['items'])}"
    if entry.get("type") == "object":
        return f"mapping to {_kind(entry['additionalProperties'])}"
    if entry.get("format") == "path":
        return "file"
    plain = {"null": "`null`", "boolean": "`true`, `false`", "string": "text"}
    return str(entry.get("title") or plain.get(entry["type"], entry["type"]))


def _bounds(entry: dict[str, Any]) -> str:
    texts = []
    for part in _alternatives(entry):
        texts.append(_one_bound(part))
        if "items" in part and (inner := _bounds(part["items"])):
            texts.append(f"each {inner}")
    return "; ".join(text for text in texts if text)


def _one_bound(entry: dict[str, Any]) -> str:
    least, most = entry.get("minimum"), entry.get("maximum")
    if entry.get("title") == "duration":
        least, most = (bound and duration_text(bound) for bound in (least, most))
    unit = ""
    if "maxLength" in entry:
        least, most, unit = entry.get("minLength"), entry["maxLength"], " characters"
    if "minItems" in entry:
        least, unit = entry["minItems"], " entry" if entry["minItems"] == 1 else " entries"
    if most is not None:
        return f"{least} to {most}{unit}" if least else f"at most {most}{unit}"
    return f"at least {least}{unit}" if least else ""


def _entry(key: Key) -> str:
    level = "###" if "." in key.path else "##"
    facts = [key.kind]
    if key.bounds:
        facts.append(key.bounds)
    if key.default:
        facts.append(f"default `{key.default}`")
    shown = "" if key.kind == "section" else f"\n\n*{facts[0]}*" + "".join(f" · {fact}" for fact in facts[1:])
    anchor = key.path.replace("[]", "").replace("[", ".").replace("]", "")
    return f"\n{level} {key.path} {{ #{anchor} }}{shown}\n\n{key.meaning}\n"
