"""Which values of a study or lab file may be published: an allow-list, so that a key that nobody thought of stays private.

A report, a front and a log are handed on; hosts, users, paths of keys, commands that may hold a password, the address of a
database and whatever a task's options say are nobody's business but the author's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Final

from edgedeploy.errors import EdgeDeployError, Setting

NOT_SHOWN: Final = "(not shown)"
LEFT_OUT: Final = "(left out)"
SHORTEST_SECRET: Final = 4
"""Shorter words, options of a command for example, stand in any text."""

_LONG: Final = 8
ANY: Final = "*"
PUBLIC: Final = frozenset(
    {
        *(f"study.{key}" for key in ("name", "targets")),
        *(f"task.{key}" for key in ("kind", "checkpoint_key")),
        *(f"boards.{key}" for key in ("name", "kind", "machine", "server", "governor", "nvpmodel")),
        f"space.{ANY}",
        f"plans.{ANY}.{ANY}",
        *(f"objectives.{key}" for key in ("metric", "goal", "min_effect", "scale")),
        *(f"constraints.{key}" for key in ("metric", "at_most", "at_least", "margin")),
        "budget.wall_clock",
        "pick.non_inferiority_margin",
        *(f"evidence.{key}" for key in ("margin", "lost_case")),
        *(f"evidence.{key}.{ANY}" for key in ("margin", "lost_case")),
        "search.sampler",
        *(f"{table}.{ANY}" for table in ("try", "never", "only.when")),
        "only.parameter",
        *(f"measure.{key}" for key in ("scenarios", "time_limit", "cool_down")),
        *(f"measure.sustained.{key}" for key in ("duration", "window")),
        *(f"measure.realtime.{key}" for key in ("deadline", "policy", "stages")),
        "measure.multi_stream.interval",
        *(f"measure.{name}.period" for name in ("resources", "flare")),
        *(f"measure.{name}.stuck_after" for name in ("sustained", "realtime", "multi_stream", "offline")),
        *(f"measure.{name}.stuck_after" for name in ("resources", "flare")),
        *(f"measure.server.{key}" for key in ("deadline", "every", "max_wait", "time_limit", "stuck_after")),
    }
)
"""Keys whose texts are shown, items of lists by the key of the list."""

LAB_PUBLIC: Final = frozenset(
    {
        *(f"lab.{key}" for key in ("name", "budget")),
        *(f"entries.{key}" for key in ("id", "pick", "boards", "owner", "metrics", "accuracy_margin")),
        "idle.studies.board",
    }
)
"""As :data:`PUBLIC`, of a lab file's own tables."""

FILE_NAMES: Final = frozenset({"task.object", "task.model", "task.checkpoint", "search.warm_start", "study.ranges"})
"""Keys of which the name of the file is shown, which says what was deployed, without the folders."""

NO_NUMBERS: Final = ("task.options", "boards.port")
"""Keys whose numbers are not shown either."""

SECRETS: Final = frozenset(
    {"study.storage", "lab.storage", "alarm.command", "boards.power_cycle", "boards.labgrid_coordinator"}
)
"""Keys whose values are in no message, not to their author either: a terminal is logged and copied into questions."""

_OLDER: Final = {"board": "boards", "measure.protocols": "measure.scenarios"}
_SECRET_NAME: Final = re.compile(r"passw|secret|token|credential|auth|pin$|key$", re.IGNORECASE)


def published(data: Mapping[str, Any]) -> dict[str, Any]:
    """The parsed study or lab file with :data:`NOT_SHOWN` in the place of what is not public."""
    return {key: _published(value, _OLDER.get(key, key)) for key, value in data.items()}


def _published(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        return {name: _published(item, _below(key, name)) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        items = [_published(item, key) for item in value]
        return NOT_SHOWN if NOT_SHOWN in items else items
    if is_public(key, value):
        return value
    return PurePath(value).name if key in FILE_NAMES and isinstance(value, str) else NOT_SHOWN


def is_public(key: str, value: object = "") -> bool:
    """Whether a value of the key, dotted and without places in lists, may be published."""
    if not isinstance(value, str):
        return not any(key == hidden or key.startswith(f"{hidden}.") for hidden in NO_NUMBERS)
    table, _, name = key.partition(".")
    if table == "plans":
        return True
    if key in PUBLIC or key in LAB_PUBLIC:
        return True
    return (f"{table}.{ANY}" in PUBLIC and bool(name)) or f"{key.rpartition('.')[0]}.{ANY}" in PUBLIC


def private_words(data: Mapping[str, Any]) -> tuple[str, ...]:
    """What must not get into anything that is kept or handed on, the longest first: the texts of a parsed study file that
    are not public. A word that is also a public value, such as the name of a board, is no secret."""
    found = list(_texts(data, ""))
    public = {text for key, text in found if is_public(key)}
    words = {text for key, text in found if not is_public(key) and key not in FILE_NAMES}
    words |= {f"{PurePath(text).parent}/" for key, text in found if key in FILE_NAMES and PurePath(text).name != text}
    return _longest_first(words - public)


def secret_words(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Those of them that must not be printed to the author either."""
    found = _texts(data, "")
    return _longest_first(
        {
            text
            for key, text in found
            if key in SECRETS
            or (key.startswith("task.options.") and _SECRET_NAME.search(key.removeprefix("task.options.")))
        }
    )


def without(text: str, words: Sequence[str]) -> str:
    """The text without any of the words; short ones only where they stand as words of their own."""
    for word in words:
        if word not in text:
            continue
        if len(word) >= _LONG:
            text = text.replace(word, LEFT_OUT)
        else:
            before, after = r"(?<!\w)" * word[0].isalnum(), r"(?!\w)" * word[-1].isalnum()
            text = re.sub(f"{before}{re.escape(word)}{after}", LEFT_OUT, text)
    return text


def hide_in(exc: EdgeDeployError, words: Sequence[str]) -> None:
    """Take the words out of an error that is about to be told."""
    exc.asked, exc.found, exc.remedy = (without(text, words) for text in (exc.asked, exc.found, exc.remedy))
    exc.args = (exc.asked, exc.found, exc.remedy)
    if exc.setting is not None:
        exc.setting = Setting(without(exc.setting.key, words), without(exc.setting.value, words))
    if exc.advice is not None:
        before, after = (without(text, words) for text in (exc.advice.before, exc.advice.after))
        settings = {key: without(value, words) for key, value in exc.advice.settings.items()}
        exc.advice = replace(exc.advice, before=before, settings=settings, after=after)


def _longest_first(words: set[str]) -> tuple[str, ...]:
    """Each also as Python and JSON quote it: messages of other people's code have it so."""
    words = {form for word in words for form in (word, repr(word)[1:-1], json.dumps(word)[1:-1])}
    return tuple(sorted((word for word in words if len(word) >= SHORTEST_SECRET), key=lambda word: (-len(word), word)))


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _texts(item, _below(key, str(name)))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item, key)


def _below(key: str, name: str) -> str:
    found = f"{key}.{name}" if key else name
    return _OLDER.get(found, found)
