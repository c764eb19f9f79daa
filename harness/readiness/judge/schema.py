"""The JSON Schema (draft 2020-12) of scorecard.json, made from the model so that the two cannot part.

The committed copy is schemas/scorecard-1.json; a test keeps it fresh. `python -m readiness.judge.schema` prints it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any

from readiness.judge.codec import JsonValue
from readiness.judge.model import SCHEMA, Scorecard

DRAFT = "https://json-schema.org/draft/2020-12/schema"
POINTS: dict[str, JsonValue] = {"minimum": 0, "maximum": 100}
DIGEST: dict[str, JsonValue] = {"pattern": "^([0-9a-f]{64})?$"}
TIME: dict[str, JsonValue] = {"pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"}
COUNT: dict[str, JsonValue] = {"minimum": 0}
# What the types do not say.
LIMITS: dict[tuple[str, str], dict[str, JsonValue]] = {
    ("Scorecard", "schema"): {"const": SCHEMA},
    ("Scorecard", "status"): {"minimum": 0, "maximum": 4},
    ("Score", "overall"): POINTS,
    ("Score", "reliability"): POINTS,
    ("Score", "observability"): POINTS,
    ("Score", "letter"): {"enum": ["A+", "A", "A-", "B+", "B", "B-", "C+", "C", "C-", "D", "F"]},
    ("SectionResult", "score"): POINTS,
    ("Band", "proven"): POINTS,
    ("Band", "unknown"): POINTS,
    ("Band", "failed"): POINTS,
    ("ClaimResult", "n"): COUNT,
    ("ClaimResult", "failures"): COUNT,
    ("ClaimResult", "weight"): {"minimum": 1, "maximum": 10},
    ("ClaimResult", "digest"): DIGEST,
    ("EvidenceSummary", "manifest_sha256"): DIGEST,
    ("RunFacts", "started_at"): TIME,
    ("RunFacts", "finished_at"): TIME,
}
PLAIN: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def scorecard_schema() -> dict[str, JsonValue]:
    """Return the schema of `Scorecard.to_json()`."""
    definitions: dict[str, JsonValue] = {}
    root = _schema(Scorecard, definitions)
    return {
        "$schema": DRAFT,
        "$id": f"urn:{SCHEMA.replace('/', ':')}",
        "title": "Reliability and observability scorecard",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    """Return the schema as it is committed."""
    return json.dumps(scorecard_schema(), indent=2, ensure_ascii=False) + "\n"


def _schema(kind: Any, definitions: dict[str, JsonValue]) -> dict[str, JsonValue]:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(member, definitions) for member in args]}
    if origin is tuple and args[-1] is Ellipsis:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if origin is tuple:
        members: list[JsonValue] = [_schema(member, definitions) for member in args]
        return {"type": "array", "prefixItems": members, "items": False, "minItems": len(args)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    return _named(kind, definitions)


def _named(kind: Any, definitions: dict[str, JsonValue]) -> dict[str, JsonValue]:
    if kind is type(None):
        return {"type": "null"}
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if kind.__name__ not in definitions:
        definitions[kind.__name__] = None  # keeps a type that holds itself from going round
        is_enum = issubclass(kind, Enum)
        definitions[kind.__name__] = _enum(kind) if is_enum else _object(kind, definitions)
    return {"$ref": f"#/$defs/{kind.__name__}"}


def _enum(kind: type[Enum]) -> dict[str, JsonValue]:
    return {"description": _first_sentence(kind), "enum": [member.value for member in kind]}


def _object(kind: type, definitions: dict[str, JsonValue]) -> dict[str, JsonValue]:
    hints = typing.get_type_hints(kind)
    properties: dict[str, JsonValue] = {}
    for field in dataclasses.fields(kind):
        properties[field.name] = _schema(hints[field.name], definitions) | LIMITS.get(
            (kind.__name__, field.name), {}
        )
    return {
        "description": _first_sentence(kind),
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _first_sentence(kind: type) -> str:
    words = " ".join((kind.__doc__ or "").split("\n\n")[0].split())
    # A dataclass without a docstring gets its signature for one.
    return "" if words.startswith(f"{kind.__name__}(") else words


if __name__ == "__main__":
    sys.stdout.write(schema_text())
