"""The page of all options of the task kinds without code, made from the classes that read them.

python scripts/task_options.py           print it
python scripts/task_options.py --write   write docs/reference/task-options.md
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from dataclasses import MISSING, fields
from typing import Any

from made_pages import REFERENCE, write_or_print

from edgedeploy.interfaces.task import TrainRecipe
from edgedeploy.tasks.load import KINDS
from edgedeploy.tasks.options import as_toml

PAGE = REFERENCE / "task-options.md"

HEAD = """\
# All options of the task kinds

Made by `scripts/task_options.py` from the classes that read `[task.options]`. What the kinds do
with them is in the guide, on the page about [task kinds](../guide/kinds.md). An unknown option is an error.
"""

LINKS = {
    "edgedeploy.tasks.images.rules.ImageRules": "the page about [data](../guide/data.md)",
    "edgedeploy.tasks.detection.boxes.Layout": "see [detection](../guide/kinds.md#detection)",
}
"""What a reader of the page sees in place of a class."""

_ITEM = re.compile(r"^- ((?:``\w+``(?:, )?)+): (.*)$")


def options_of(kind: str) -> Any:
    """The options of a kind that is named and has nothing else said of it."""
    found = KINDS[kind]
    return getattr(importlib.import_module(f"edgedeploy.tasks.{found.module}"), found.options)()


def described(table: type) -> dict[str, str]:
    """What the docstrings of a class and of those before it say of each option; a subclass has the last word."""
    found: dict[str, str] = {}
    for one in reversed(table.__mro__):
        items = re.split(r"\n(?=- )", inspect.cleandoc(one.__doc__ or "")) if one is not object else []
        for item in items:
            match = _ITEM.match(" ".join(item.split()))
            if match:
                found |= dict.fromkeys(re.findall(r"\w+", match[1]), _markdown(match[2]))
    return found


def page() -> str:
    parts = [HEAD, *(_kind(name) for name in KINDS), _recipe()]
    return "\n".join(parts)


def _kind(name: str) -> str:
    options = options_of(name)
    text = _markdown(inspect.cleandoc(type(options).__doc__ or "").partition("\n\n")[0])
    told = described(type(options))
    recipes = {item.name: getattr(options, item.name) for item in fields(options)}
    recipes = {key: value for key, value in recipes.items() if isinstance(value, TrainRecipe)}
    rows = [
        _row(item.name, "" if _is_unused(told[item.name]) else _default(getattr(options, item.name)), told[item.name])
        for item in fields(options)
        if item.name not in recipes or _is_unused(told[item.name])
    ]
    parts = [f"## `{name}`\n\n{text}\n\n{_TABLE}{''.join(rows)}"]
    trained = {key: recipe for key, recipe in recipes.items() if not _is_unused(told[key])}
    if trained:
        lines = "\n".join(_recipe_lines(key, recipe, told[key]) for key, recipe in trained.items())
        parts.append(f'```toml\n[task]\nkind = "{name}"\n\n{lines}```\n')
    return "\n".join(parts)


def _recipe_lines(key: str, recipe: TrainRecipe, text: str) -> str:
    """The table of a recipe in a study file, with what is not the default of every recipe."""
    found = {item.name: (getattr(recipe, item.name), item.default) for item in fields(recipe)}
    lines = [f"{name} = {as_toml(value)}" for name, (value, default) in found.items() if value not in (default, {})]
    return "\n".join((f"[task.options.{key}] # {text}", *lines, ""))


def _recipe() -> str:
    told = described(TrainRecipe)
    rows = [_row(item.name, _recipe_default(item), told[item.name]) for item in fields(TrainRecipe)]
    text = "What is not stated under a kind has the default of here. Each key can be written alone: the others stay."
    return f"## `[task.options.baseline]` and `[task.options.recovery]`\n\n{text}\n\n{_TABLE}{''.join(rows)}"


_TABLE = "| option | default | |\n|---|---|---|\n"


def _row(name: str, default: str, text: str) -> str:
    return f"| `{name}` | {default} | {_capital(text)} |\n".replace("|  |", "| |")


def _default(value: Any) -> str:
    return "" if value in ("", None) else f"`{as_toml(value)}`"


def _recipe_default(item: Any) -> str:
    if item.default is not MISSING:
        return f"`{as_toml(item.default)}`"
    return "`{}`" if item.default_factory is not MISSING else "the kind's"


def _is_unused(text: str) -> bool:
    return text.startswith("without effect")


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _markdown(text: str) -> str:
    text = re.sub(r":class:`([\w.]+)`", lambda match: LINKS[match[1]], " ".join(text.split()))
    return text.replace("``", "`")


if __name__ == "__main__":
    raise SystemExit(write_or_print(PAGE, page, __doc__, sys.argv[1:]))
