"""One entry of the contest: an artifact of one side, as files, with how it was made and how it is run."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.contest_kit.checkpoint import Source
from benchmarks.shared.sources import say
from edgedeploy.files import write_json
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.targets.registry import find_targets

Side = Literal["tools", "chained", "ours"]
"""``tools`` are recipes of one tool each; ``chained`` are two tools, one after the other, put together by hand."""

FAILED: Final = "failed"


@dataclass(frozen=True)
class Recipe:
    """How one tool makes one artifact. ``make`` gets the source and an empty folder, in which it leaves ``entry`` and what
    belongs to it; ``settings`` are the session's; ``how`` says the recipe in the tool's own words."""

    name: str
    tool: str
    target: str
    precision: str
    entry: str
    how: str
    make: Callable[[Source, Path], None]
    settings: Mapping[str, str] = field(default_factory=dict)
    side: Side = "tools"


@dataclass(frozen=True)
class Entry:
    """An artifact in ``folder``; ``made_s`` is the wall time that its making took."""

    side: Side
    name: str
    tool: str
    how: str
    made_s: float
    artifact: Artifact
    folder: Path


@dataclass(frozen=True)
class Missing:
    """A recipe that left no artifact, and why."""

    name: str
    tool: str
    why: str


def make_all(source: Source, recipes: Sequence[Recipe], folder: Path) -> None:
    """Run every recipe that has left nothing in ``folder`` yet, neither an artifact nor the reason why there is none."""
    for recipe in recipes:
        note = folder / f"{recipe.name}.json"
        if note.is_file():
            continue
        say(f"tools: {recipe.name}")
        write_json(note, _make(source, recipe, folder / recipe.name))


def _make(source: Source, recipe: Recipe, folder: Path) -> dict[str, Any]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    facts = {"name": recipe.name, "tool": recipe.tool, "how": recipe.how, "side": recipe.side}
    started_s = time.monotonic()
    try:
        recipe.make(source, folder)
        artifact = Artifact.of_folder(
            folder,
            target=recipe.target,
            precision=recipe.precision,
            entry=recipe.entry,
            inputs=source.reference.inputs,
            outputs=source.reference.outputs,
            settings=recipe.settings,
            reference_sha256=source.reference.sha256,
            built_with=_versions(recipe.target),
        )
        write_json(folder / MANIFEST, artifact.as_json())
    except Exception as exc:  # a foreign toolchain may raise anything, and the table says what
        say(f"  {type(exc).__name__}: {exc}")
        facts[FAILED] = f"{type(exc).__name__}: {str(exc).strip().splitlines()[0] if str(exc).strip() else 'no reason'}"
    return {**facts, "made_s": time.monotonic() - started_s}


def _versions(target: str) -> Mapping[str, str]:
    return next(dict(plugin.load().probe().versions) for plugin in find_targets() if plugin.name == target)


def tools_entries(folder: Path) -> tuple[list[Entry], list[Missing]]:
    """What :func:`make_all` left in ``folder``: artifacts, and recipes without one."""
    entries, missing = [], []
    for note, facts in _notes(folder):
        if FAILED in facts:
            missing.append(Missing(facts["name"], facts["tool"], facts[FAILED]))
            continue
        place = note.with_suffix("")
        artifact = Artifact.from_json(json.loads((place / MANIFEST).read_text(encoding="utf-8")))
        about = (facts["side"], facts["name"], facts["tool"], facts["how"], facts["made_s"])
        entries.append(Entry(*about, artifact, place))
    return entries, missing


def made_s(folder: Path) -> float:
    """Wall time that all recipes took together, those without an artifact too."""
    return float(sum(facts["made_s"] for _, facts in _notes(folder)))


def _notes(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for note in sorted(folder.glob("*.json")):
        yield note, json.loads(note.read_text(encoding="utf-8"))
