"""The page of all keys of study files, made from the models that check them.

python scripts/keys.py           print it
python scripts/keys.py --write   write docs/reference/keys.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from made_pages import REFERENCE, write_or_print

from edgedeploy.spec.schema import study_schema

PAGE = REFERENCE / "keys.md"

HEAD = """\
# All keys of a study file

Made by `scripts/keys.py` from the models that check a study file. `edgedeploy schema > study.schema.json` writes them as a
JSON schema: editors with a TOML language server (taplo, Even Better TOML) complete and check by it when the study file
begins with `#:schema ./study.schema.json`.

Quantities are texts with a unit (`"20 min"`, `"40 ms"`, `"8 MB"`). An unknown key is an error.
"""


def tables(schema: dict[str, Any]) -> dict[str, str]:
    """The tables of a study file by their headings, each with its model's name, in the order of the models."""
    found = {}
    for name, value in schema["properties"].items():
        if name == "board":  # the same table as [[boards]]
            continue
        if "$ref" in value:
            found[f"[{name}]"] = _model(value)
        elif "$ref" in value.get("items", {}):
            found[f"[[{name}]]"] = _model(value["items"])
    for name, value in schema["$defs"][found["[measure]"]]["properties"].items():
        if "$ref" in value:
            found[f"[measure.{name}]"] = _model(value)
    return found


def _model(value: dict[str, Any]) -> str:
    return str(value["$ref"]).rpartition("/")[2]


def page() -> str:
    schema = study_schema()
    parts = [HEAD]
    for title, model in tables(schema).items():
        table = schema["$defs"][model]
        parts.append(section(title, table))
        if title == "[[boards]]":
            parts.append(_space(schema["properties"]["space"]))
            plans = schema["properties"]["plans"]["description"]
            parts.append(f"## `[plans.NAME]`\n\n{plans}\n")
        if title == "[search]":
            points = {name: schema["properties"][name]["description"] for name in ("try", "never")}
            parts += [f"## `[[{name}]]`\n\n{text}\n" for name, text in points.items()]
    return "\n".join(parts)


def section(title: str, table: dict[str, Any]) -> str:
    """One table of a file with its keys."""
    text, rows = table["description"], _rows(table)
    head = "| key | takes | default | |\n|---|---|---|---|\n"
    lines = "".join(f"| {' | '.join(_cell(cell) for cell in row)} |\n" for row in rows)
    return f"## `{title}`\n\n{_sentence(text)}\n\n{head}{lines}"


def _rows(table: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    needed = table.get("required", ())
    for name, value in table["properties"].items():
        if "$ref" in value or value.get("deprecated"):  # a table of its own; an older name
            continue
        default = "required" if name in needed else f"`{_toml(value['default'])}`" if "default" in value else ""
        yield f"`{name}`", _takes(value), default, value["description"]


def _space(space: dict[str, Any]) -> str:
    rows = "".join(f"| `{name}` | {_cell(value['description'])} |\n" for name, value in space["properties"].items())
    more = "Every other key is a keyword of the task's `build`, with values of its `architecture`."
    return f"## `[space]`\n\n{space['description']} {more}\n\n| key | |\n|---|---|\n{rows}"


def _takes(value: dict[str, Any]) -> str:
    """What a key takes, in words."""
    if "anyOf" in value:
        return " or ".join(_takes(kind) for kind in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{_toml(item)}`" for item in value["enum"])
    if value.get("type") == "array":
        return f"list of {'tables' if '$ref' in value['items'] else _takes(value['items'])}"
    if "pattern" in value and value["type"] == "string" and "min|h" in value["pattern"]:
        return "time with its unit"
    words = {
        "string": "text",
        "integer": "whole number",
        "number": "number",
        "object": "table",
        "boolean": "true or false",
    }
    return words[value["type"]] + _range(value)


def _range(value: dict[str, Any]) -> str:
    low, high, above = value.get("minimum"), value.get("maximum"), value.get("exclusiveMinimum")
    below = value.get("exclusiveMaximum")
    if below is not None and value["type"] == "number":
        return f" (above {above} and below {below})" if above is not None else f" ({low} or more and below {below})"
    high = high if high is not None else None if below is None else below - 1
    if low is not None and high is not None:
        return f" ({low} to {high})"
    if low is not None:
        return f" ({low} or more)"
    if above is not None:
        return f" (above {above})"
    return f" (at most {value['maxLength']} characters)" if "maxLength" in value else ""


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{value}"'
    return "{}" if value == {} else f"{value:g}" if isinstance(value, float) else str(value)


def _sentence(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    raise SystemExit(write_or_print(PAGE, page, __doc__, sys.argv[1:]))
