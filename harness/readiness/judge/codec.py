"""Turn the frozen dataclasses of the scorecard into JSON values and back.

One generic walk over the type hints, so that a field added to the model travels by itself. Knows no file:
reading and writing bytes is the caller's.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from readiness.errors import BadInput

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]

T = TypeVar("T")


def to_json(value: object) -> JsonValue:
    """Return dataclasses as objects, tuples as lists, enums as their value.

    Floats must be finite (ValueError).
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"expected a finite number for JSON, got {value}")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected a JSON value, got {type(value).__name__}")


def from_json(kind: type[T], value: JsonValue, *, where: str = "$") -> T:
    """Build `kind` (a dataclass of the model) from a JSON object.

    BadInput names the path that does not fit.
    """
    return typing.cast(T, _read(kind, value, where))


def _read(kind: Any, value: JsonValue, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _read_union(kind, value, where)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        item_kind = typing.get_args(kind)[1]
        return {key: _read(item_kind, item, f"{where}.{key}") for key, item in _object(value, where).items()}
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), value, where)
    return _read_plain(kind, value, where)


def _read_union(kind: Any, value: JsonValue, where: str) -> Any:
    members = typing.get_args(kind)
    if value is None and type(None) in members:
        return None
    failures: list[str] = []
    for member in members:
        if member is type(None):
            continue
        try:
            return _read(member, value, where)
        except BadInput as error:
            failures.append(str(error))
    raise BadInput(failures[0] if failures else f"{where}: expected null, got {value!r}.")


def _read_tuple(args: tuple[Any, ...], value: JsonValue, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise BadInput(f"{where}: expected a list, got {type(value).__name__}.")
    if len(args) == 2 and args[1] is Ellipsis:
        return tuple(_read(args[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if len(args) != len(value):
        raise BadInput(f"{where}: expected {len(args)} items, got {len(value)}.")
    return tuple(
        _read(arg, item, f"{where}[{i}]") for i, (arg, item) in enumerate(zip(args, value, strict=True))
    )


def _read_dataclass(kind: type, value: JsonValue, where: str) -> Any:
    given = _object(value, where)
    hints = _hints(kind)
    unknown = sorted(set(given) - set(hints))
    if unknown:
        raise BadInput(f"{where}: expected the keys of {kind.__name__}, got the unknown key {unknown[0]!r}.")
    required = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in given]
    if required:
        raise BadInput(f"{where}: expected the key {required[0]!r}, got none.")
    return kind(**{name: _read(hints[name], item, f"{where}.{name}") for name, item in given.items()})


def _read_plain(kind: Any, value: JsonValue, where: str) -> Any:
    if kind is object:
        return value
    if issubclass(kind, Enum):
        if value not in [member.value for member in kind]:
            allowed = ", ".join(str(member.value) for member in kind)
            raise BadInput(f"{where}: expected one of {allowed}, got {value!r}.")
        return kind(value)
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(kind, type) and type(value) is kind:
        return value
    raise BadInput(
        f"{where}: expected {getattr(kind, '__name__', kind)}, got {type(value).__name__} {value!r}."
    )


def _object(value: JsonValue, where: str) -> dict[str, JsonValue]:
    if not isinstance(value, dict):
        raise BadInput(f"{where}: expected an object, got {type(value).__name__}.")
    return value


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
