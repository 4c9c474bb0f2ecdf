"""The JSON schema of the file: what may be written, with meaning, range and default of every key."""

from __future__ import annotations

import math
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# From the longest; 60 s and 24 h are written as people say them.
_UNITS = ((86_400, "d", 2), (3_600, "h", 1), (60, "m", 5), (1, "s", 1))


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the schema of a file whose sections are the fields of ``model``.

    Defaults and kinds are those of the YAML text, so an editor can complete
    and check a file with it. What must hold between keys, and the bounds of
    durations written with a unit, only ``dnsproxy check`` knows.
    """
    document = model.model_json_schema(mode="validation", schema_generator=_AsWritten)
    for key, section in document["properties"].items():
        # A section whose keys are all commented out is null to YAML; `config.parse` leaves it out.
        if "$ref" in section:
            held = {"anyOf": [{"$ref": section.pop("$ref")}, {"type": "null"}]}
            document["properties"][key] = held | section
    return {"$schema": _DIALECT, **_on_one_line(document), "title": "Configuration of dnsproxy"}


def _on_one_line(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Undo the line breaks of docstrings."""
    if isinstance(value, dict):
        return {
            key: " ".join(held.split())
            if key == "description" and isinstance(held, str)
            else _on_one_line(held)
            for key, held in value.items()
        }
    return [_on_one_line(item) for item in value] if isinstance(value, list) else value


def as_written(value: object) -> Any:  # noqa: ANN401 - any JSON value
    """Return the JSON value that stands for a validated one in the file; a float is a duration in seconds."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return duration_text(value)
    # Not an Endpoint, which is a tuple.
    if type(value) is list:
        return [as_written(item) for item in value]
    if isinstance(value, dict):
        return {str(key): as_written(item) for key, item in value.items()}
    return str(value)


def duration_text(seconds: float) -> str:
    """Return ``30s``, ``800ms``, ``24h`` or ``forever``; whole milliseconds, at least 0."""
    if math.isinf(seconds):
        return "forever"
    for unit, letter, least in _UNITS:
        if seconds >= least * unit and seconds % unit == 0:
            return f"{seconds // unit:.0f}{letter}"
    return f"{seconds * 1000:.0f}ms" if seconds else "0s"


class _AsWritten(GenerateJsonSchema):
    """pydantic's schema, but for what it takes from the values that the text becomes."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002 - pydantic's signature
        """Keep pydantic's "Max Ttl" out: the key says as much."""
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Add the default as it would be written, also one that is made anew each time."""
        inner = self.generate_inner(schema["schema"])
        if "default_factory" in schema:
            default = schema["default_factory"]()  # type: ignore[call-arg]  # none of ours looks at other keys
        elif "default" in schema:
            default = schema["default"]
        else:
            return inner
        # The defaults of a section stand at its own keys.
        return inner if isinstance(default, BaseModel) else {**inner, "default": as_written(default)}

    def sort(self, value: JsonSchemaValue, parent_key: str | None = None) -> JsonSchemaValue:  # noqa: ARG002
        """Keep the order of the source, which is the order of the example and of the reference."""
        return value
