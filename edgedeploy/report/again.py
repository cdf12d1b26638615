"""The command that does a study again, as a shell takes it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedeploy.spec.study import StudySpec
from edgedeploy.study.events import read_events
from edgedeploy.study.store import Store


def command_again(store: Store, study: Mapping[str, Any], spec: StudySpec, trials: int) -> str:
    """The lines to type. The study file is the one that the folder was made with, where its relative paths lead; if that has
    changed or is gone, the folder's copy is put beside it first. The result goes into a folder of its own."""
    root, given = store.root.resolve(), _spec_path(study)
    lines = [f"# edgedeploy {study['versions'].get('edgedeploy', 'of an unknown version')}"]
    if not _is_copy(given, store):
        copied = given.with_name(f"{given.stem}.again.toml")
        lines.append(shlex.join(["cp", str(root / "study.toml"), str(copied)]))
        given = copied
    out = root.with_name(f"{root.name}-again")
    argv = ["edgedeploy", "search", str(given), "--out", str(out), "--trials", str(max(1, trials))]
    return "\n".join([*lines, shlex.join([*argv, *_board(store, study, spec)])])


def _spec_path(study: Mapping[str, Any]) -> Path:
    return Path(study["spec_folder"]) / str(study.get("spec_path", "study.toml"))


def _is_copy(path: Path, store: Store) -> bool:
    try:
        return path.read_text(encoding="utf-8") == store.study_text()
    except (OSError, ValueError):
        return False


def _board(store: Store, study: Mapping[str, Any], spec: StudySpec) -> list[str]:
    """The options that name the boards, as the last run had them; nothing for the study file's first one."""
    starts = [event for event in read_events(store.root) if event.get("kind") == "start"]
    options = starts[-1].get("options", {}) if starts else {}
    options = options if isinstance(options, Mapping) else {}
    if boards := options.get("boards"):
        return ["--boards", ",".join(map(str, boards))]
    if dask := options.get("dask"):
        return ["--dask", str(dask)]
    name = str(options.get("board") or study.get("board") or "")
    known = {board.name for board in spec.boards}
    named = "board" in options or (name in known and name != spec.boards[0].name)
    return ["--board", name] if named else []
