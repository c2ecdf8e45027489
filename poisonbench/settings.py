"""The base of every configuration: strict, frozen, and with errors that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from poisonbench.errors import UserError, did_you_mean


class Settings(BaseModel):
    """A pydantic model that refuses unknown fields and cannot be changed after it was checked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse ``yes`` for a number, which pydantic would take for 1."""
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation in (int, float):
            raise ValueError("input should be a number")
        return value


S = TypeVar("S", bound=BaseModel)

Presets = Mapping[str, Mapping[str, Any]]
"""Named variants of one plugin, each the fields of its configuration that it changes."""


def validated(model: type[S], values: Mapping[str, Any], where: str) -> S:
    """Check ``values`` against ``model``.

    Args:
        model: the pydantic model.
        values: what was read from a file or the command line.
        where: what the values are, for the message ("tier 'clipart'", "--set attack").

    Raises:
        UserError: names the first wrong field and how to mend it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {explain(error, model)}") from None


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of a validation error as one sentence, with a suggestion for unknown fields."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    name = ".".join(path)
    message = first["msg"].removeprefix("Value error, ")
    if not path:
        return message
    if first["type"] == "extra_forbidden":
        owner = _owner(model, path[:-1])
        return f"unknown field '{name}'; {did_you_mean(path[-1], owner.model_fields)}"
    hint = (
        """; text that looks like something else is quoted, as in '"no"'"""
        if first["type"] == "string_type"
        else ""
    )
    return f"field '{name}': {message[:1].lower()}{message[1:]} (got {first['input']!r:.80}){hint}"


def _owner(model: type[BaseModel], path: list[str]) -> type[BaseModel]:
    for part in path:
        field = model.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            break
        model = field.annotation
    return model
