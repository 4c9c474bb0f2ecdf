"""Which key was meant: the keys that a model has at the place of an unknown one, and the closest of them."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from dnsproxy.settings.values import TYPE_TAG

# How alike a suggestion must be; difflib's default, 0.6, suggests `name` for `domain`.
_ALIKE = 0.65


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean X?`` for the word of ``known`` that is most like ``word``, else nothing."""
    by_lower = {each.lower(): each for each in known}
    found = get_close_matches(word.lower().replace("-", "_"), by_lower, 1, _ALIKE)
    found = found or get_close_matches(word.lower(), by_lower, 1, _ALIKE)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""


def keys_at(model: type[BaseModel], place: Iterable[str | int]) -> list[str]:
    """Return the keys of the mapping at ``place`` below ``model``; none where it is none of a model.

    ``place`` is as pydantic gives it, with the tag of a union's member before the steps below that.
    """
    models: list[Any] = [model]
    for step in place:
        if isinstance(step, str) and step.startswith(TYPE_TAG):
            kind = step.removeprefix(TYPE_TAG)
            models = [held for held in models if _is_of_type(held, kind)]
        elif isinstance(step, int):
            models = [
                each for held in models if get_origin(held) is list for each in _members(get_args(held))
            ]
        else:
            models = [each for held in models for each in _below(held, step)]
    known = {key: None for held in models if _is_model(held) for key in held.model_fields}
    return list(known)


def _below(held: Any, key: str) -> list[Any]:  # noqa: ANN401 - an annotation
    if _is_model(held):
        field = held.model_fields.get(key)
        # A union adds the name of its member as a step: the place stays.
        return _members([field.annotation]) if field is not None else [held] * (held.__name__ == key)
    return _members(get_args(held)[1:]) if get_origin(held) is dict else []


def _members(annotations: Iterable[Any]) -> list[Any]:
    """Return the annotations without what wraps them: ``Annotated``, and unions by their members."""
    found: list[Any] = []
    for annotation in annotations:
        if get_origin(annotation) is list or get_origin(annotation) is dict or not get_args(annotation):
            found.append(annotation)
        elif get_origin(annotation) is not Literal:
            found += _members(get_args(annotation))
    return found


def _is_model(held: Any) -> bool:  # noqa: ANN401 - an annotation
    return isinstance(held, type) and issubclass(held, BaseModel)


def _is_of_type(held: Any, kind: str) -> bool:  # noqa: ANN401 - an annotation
    field = held.model_fields.get("type") if _is_model(held) else None
    return field is not None and kind in get_args(field.annotation)
