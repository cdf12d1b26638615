"""Boards whose own files say something else than what the agent wrote: damaged where they lie, and not on their way."""

from __future__ import annotations

import sys
from pathlib import Path

SPOILER = """
import json, pathlib

{change}

_replace = pathlib.Path.replace


def replace(self, target):
    if pathlib.Path(target).name == {name!r}:
        self.write_bytes(change(self.read_bytes()))
    return _replace(self, target)


pathlib.Path.replace = replace
"""


def spoiling_python(folder: Path, name: str, change: str) -> str:
    """A board's Python under which each file called ``name`` is changed in the moment that it appears. ``change`` is the
    source of a function ``change(data: bytes) -> bytes``; it may use ``json`` and ``pathlib``."""
    place = folder / "spoiler"
    place.mkdir(parents=True)
    (place / "sitecustomize.py").write_text(SPOILER.format(name=name, change=change), encoding="utf-8")
    python = place / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={place} exec {sys.executable} "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    return str(python)


def once(marker: Path, source: str) -> str:
    """The same change, of the first file alone that it changes at all."""
    inner = "\n".join(f"    {line}" for line in source.strip().splitlines())
    return f"""
def change(data):
{inner}
    marker = pathlib.Path({str(marker)!r})
    changed = data if marker.exists() else change(data)
    if changed != data:
        marker.touch()
    return changed
"""
