"""Which keys of two study files differ, by their names alone: values may be private."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from edgedeploy.spec.source import key_text

MOST_NAMED: Final = 6


def changed_keys(before: Any, now: Any) -> tuple[str, ...]:
    """The keys that differ between two study files as JSON, such as ``space.width`` or ``objectives number 2, metric``;
    tables in a list go by their ``name`` where they have one. Of more than :data:`MOST_NAMED` the first, and how many more
    there are."""
    found = list(dict.fromkeys(map(key_text, _changed("", before, now))))
    more = len(found) - MOST_NAMED
    return (*found[:MOST_NAMED], f"{more} more") if more > 0 else tuple(found)


def _changed(key: str, before: Any, now: Any) -> Iterator[str]:
    if before == now:
        return
    if isinstance(before, list) and isinstance(now, list) and all(isinstance(item, dict) for item in (*before, *now)):
        before, now = _by_name(before), _by_name(now)
        for name in {**before, **now}:
            yield from _changed(f"{key}{name}", before.get(name), now.get(name))
    elif isinstance(before, dict) and isinstance(now, dict):
        for name in {**before, **now}:
            yield from _changed(f"{key}.{name}" if key else name, before.get(name), now.get(name))
    else:
        yield key


def _by_name(items: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    names = [f".{item['name']}" if item.get("name") else f"[{place}]" for place, item in enumerate(items)]
    return dict(zip(names, items, strict=True))
