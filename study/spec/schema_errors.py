"""What pydantic says of a study file's shape, in our words: with file, line, key, nearest match and what is allowed."""

from __future__ import annotations

import re
import typing
from typing import Any

from pydantic import BaseModel, ValidationError

from vistudy.study.spec.messages import (
    KeyPath,
    LocatedError,
    closest_match,
    error_message,
)

EXPECTED = {
    "list_type": "a list, such as [1, 2]",
    "dict_type": "keys with values",
    "model_type": "keys with values",
    "model_attributes_type": "keys with values",
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_pattern_mismatch": "at most 80 letters, digits, '.', '_' and '-', the first a letter or digit",
}
"""pydantic's error type -> what is expected, in words."""


def to_study_error(error: ValidationError, model: type[BaseModel], base: KeyPath = ()) -> LocatedError:
    """The first of pydantic's complaints about a `model` that stands at `base`."""
    complaints = error.errors(include_url=False)
    first = min(complaints, key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key also makes one missing
    inner, got, kind = tuple(first["loc"]), first["input"], first["type"]
    path = (*base, *inner)
    if kind == "extra_forbidden":
        allowed = keys(_model_at(model, inner[:-1]))
        word = str(path[-1])
        return LocatedError(
            path,
            error_message(
                f"unknown key '{word}'", got=got, closest=closest_match(word, allowed), allowed=", ".join(allowed)
            ),
        )
    if kind == "missing":
        return LocatedError(path[:-1], error_message(f"'{path[-1]}' is missing", hint=f"add '{path[-1]}: ...'"))
    words = EXPECTED.get(kind, first["msg"].removeprefix("Input should be "))
    guess = None
    if kind == "literal_error":
        words = str(first["ctx"]["expected"])
        guess = closest_match(got, re.findall("'([^']*)'", words))
    hint = "put it in quotes" if kind == "string_type" and isinstance(got, int | float) else ""
    return LocatedError(path, error_message("wrong value", got=got, closest=guess, allowed=words, hint=hint))


def keys(model: type[BaseModel]) -> list[str]:
    """The keys of a part of the file, as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], path: KeyPath) -> type[BaseModel]:
    """The file model whose keys stand at `path` below `model`."""
    is_key = True
    for part in path:
        if isinstance(part, int) or not is_key:
            is_key = True  # a place in a list, or a key that the user has chosen
            continue
        annotation = next(f.annotation for name, f in model.model_fields.items() if (f.alias or name) == part)
        models = _models_in(annotation)
        model = models[0] if models else model
        is_key = dict not in _origins(annotation)
    return model


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in _models_in(part)]


def _origins(annotation: Any) -> set[Any]:
    return {typing.get_origin(annotation)}.union(*(_origins(part) for part in typing.get_args(annotation)))
