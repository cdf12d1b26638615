"""The JSON schemas of study and lab files, made from the models that check them: editors complete and check by it.

It says what a file by itself can get wrong. What a task, a target or a board offers, and rules over several keys, a search
checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edgedeploy.records.units import parse_quantity
from edgedeploy.spec.boards import EMULATED_WORD, MACHINES
from edgedeploy.spec.lab import LabSpec
from edgedeploy.spec.scenarios import BASE_UNIT
from edgedeploy.spec.space import MAX_CHOICES, SPACE_KEYS
from edgedeploy.spec.study import StudySpec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SCALES: Final = {"s": ("h", "min", "s"), "ns": ("s", "ms", "us", "ns")}


def study_schema() -> dict[str, Any]:
    """The schema, draft 2020-12, as plain data."""
    schema = StudySpec.model_json_schema()
    for table in _tables(schema):
        table.pop("title", None)
        table["properties"] = {name: _plain(value) for name, value in table["properties"].items()}
    properties, required = schema["properties"], schema["required"]
    properties["space"] = _space(properties["space"]["description"])
    kind = schema["$defs"]["BoardTable"]["properties"]["kind"]
    kind["enum"] = [*kind["enum"], *(f"{EMULATED_WORD}{machine}" for machine in MACHINES)]
    board = {"$ref": "#/$defs/BoardTable"}
    words = {"type": "string", "enum": kind["enum"]}
    properties["board"] = {"anyOf": [board, words], "description": "A study's only board, in the place of [[boards]]."}
    measure = schema["$defs"]["MeasureTable"]["properties"]
    measure["protocols"] = {**measure["scenarios"], "deprecated": True, "description": "Older name of `scenarios`."}
    rest = {name: value for name, value in schema.items() if name not in ("description", "title", "required")}
    return {
        "$schema": DIALECT,
        "title": "edgedeploy study file",
        **rest,
        "required": [name for name in required if name != "boards"],
        "oneOf": [{"required": ["boards"]}, {"required": ["board"]}],
    }


def lab_schema() -> dict[str, Any]:
    """As :func:`study_schema`, of lab files."""
    schema = LabSpec.model_json_schema()
    for table in _tables(schema):
        table.pop("title", None)
        table["properties"] = {name: _plain(value) for name, value in table["properties"].items()}
    kind = schema["$defs"]["BoardTable"]["properties"]["kind"]
    kind["enum"] = [*kind["enum"], *(f"{EMULATED_WORD}{machine}" for machine in MACHINES)]
    rest = {name: value for name, value in schema.items() if name not in ("description", "title")}
    return {"$schema": DIALECT, "title": "edgedeploy lab file", **rest}


def quantity_text(value: float, unit: str) -> str:
    """A number of base units as a study file may say it: ``24 h``, ``50 ms``."""
    for name in _SCALES[unit]:
        scaled = value / parse_quantity(f"1 {name}", unit)
        if scaled >= 1 and scaled == int(scaled):
            return f"{scaled:.0f} {name}"
    return f"{value:g} {unit}"


def _tables(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    yield from (table for table in schema.get("$defs", {}).values() if "properties" in table)


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """A key's schema as a file has it: TOML has no null, and a default is written with its unit."""
    kept = {name: item for name, item in value.items() if name not in ("title", "anyOf", BASE_UNIT)}
    kinds = [kind for kind in value.get("anyOf", ()) if kind != {"type": "null"}]
    kept |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds} if kinds else {}
    unit = kept.pop(BASE_UNIT, value.get(BASE_UNIT))
    if "$ref" in kept or kept.get("default", "") is None:  # a table whose keys have defaults of their own; nothing
        kept.pop("default", None)
    elif unit is not None and "default" in kept:
        kept["default"] = quantity_text(kept["default"], unit)
    if "description" in kept:
        kept["description"] = " ".join(kept["description"].split()).replace("``", "`")
    return kept


def _space(description: str) -> dict[str, Any]:
    scalar = {"type": ["boolean", "number", "string"]}
    listed = {"type": "array", "items": scalar, "minItems": 1, "maxItems": MAX_CHOICES, "uniqueItems": True}
    number = {"type": "number"}
    stepped = {
        "type": "object",
        "properties": {"low": number, "high": number, "step": number},
        "required": ["low", "high", "step"],
        "additionalProperties": False,
    }
    choices = {"anyOf": [listed, stepped]}
    return {
        "type": "object",
        "description": description,
        "minProperties": 1,
        "properties": {name: {**choices, "description": text} for name, text in SPACE_KEYS.items()},
        "additionalProperties": choices,
    }
