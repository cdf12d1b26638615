"""A study file as a report may show it: a report is handed on, and its study file with it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from typing import Any, Final

KEYS: Final = frozenset({"identity", "known_hosts", "power_cycle", "storage"})
"""Keys of a study file whose values are nobody's business, in whichever table: where its author keeps keys, commands that
may hold a password, the address of a database."""

LEFT_OUT: Final = "(left out)"
NOT_SHOWN: Final = (
    "The study file is left out: what is private in it (where keys lie, commands, the address of a database) could not be "
    "hidden in it."
)
SHORTEST_SECRET: Final = 4
"""Shorter words, options of a command for example, stand in any text."""

_STRING: Final = r"""
    \"{3}(?:\\.|[^\\])*?\"{3,5} | '{3}.*?'{3,5} | "(?:\\.|[^"\\\n])*" | '[^'\n]*'
"""
_PRIVATE: Final = re.compile(
    rf"""(?P<key>(?P<quote>["']?)\b(?:{"|".join(sorted(KEYS))})(?P=quote)[ \t]*=[ \t]*)
    (?:\[(?>{_STRING} | \#[^\n]* | [^\]"'\#])*+\] | {_STRING})""",
    re.VERBOSE | re.DOTALL,
)


def shown(study_text: str) -> str:
    """A study file without its private values; :data:`NOT_SHOWN` in its place where one of them is not sure to be gone.

    The pattern keeps the author's layout and comments, but TOML has more spellings than a pattern knows. So the result is
    parsed, and shown only if each private value in it is the placeholder and no private word is left anywhere else. A word
    that is also a whole value of another key, such as a board's host, is no secret.
    """
    text = _PRIVATE.sub(rf'\g<key>"{LEFT_OUT}"', study_text)
    try:
        before, after = tomllib.loads(study_text), tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return NOT_SHOWN
    if any(value != LEFT_OUT for value in _private_values(after)):
        return NOT_SHOWN
    public, names = set(_texts(after)), " ".join(_names(after))
    words = {word for value in _private_values(before) for word in _texts(value) if len(word) >= SHORTEST_SECRET}
    hidden = all(word not in text for word in words if word not in public and word not in names)
    return text if hidden else NOT_SHOWN


def _private_values(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key in KEYS and isinstance(item, (str, list)):
                yield item
            else:
                yield from _private_values(item)
    elif isinstance(value, list):
        for item in value:
            yield from _private_values(item)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _names(item)
