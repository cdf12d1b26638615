"""From the ``[task]`` table of a study to a task."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgedeploy.errors import DataError, SpecError
from edgedeploy.protocols import Task


def load_task(table: Mapping[str, Any], base: Path) -> Task:
    """The task a study names. Relative paths are taken from ``base``, the study file's folder.

    Raises ``SpecError`` for a wrong option or object, ``DataError`` for data that cannot be used.
    """
    options = table.get("options") or {}
    if table["kind"] == "python":
        return _python_task(str(table["object"]), options, base)
    try:
        from edgedeploy.tasks.folder import FolderOptions, SegmentationFolder
        from edgedeploy.tasks.options import read_options
        from edgedeploy.tasks.ultrasound import SyntheticUltrasound, UltrasoundOptions
    except ModuleNotFoundError as exc:
        raise SpecError(
            f"task kind {table['kind']!r}", f"it needs the package {exc.name!r}", "pip install 'edgedeploy[study]'"
        ) from None
    if table["kind"] == "synthetic-ultrasound":
        return SyntheticUltrasound(read_options(UltrasoundOptions, UltrasoundOptions(), options, "task.options"))
    return SegmentationFolder(read_options(FolderOptions, FolderOptions(), options, "task.options"), base)


def _python_task(name: str, options: Mapping[str, Any], base: Path) -> Task:
    """``module:factory`` or ``file.py:factory``, called with the options as keywords: the user's own code."""
    place, colon, attribute = name.rpartition(":")
    asked = f"task.object = {name!r}"
    if not colon or not place or not attribute:
        raise SpecError(asked, "no factory is named", 'Write "package.module:factory" or "file.py:factory"')
    try:
        module = _module_of_file(base / place, asked) if place.endswith(".py") else importlib.import_module(place)
        factory = getattr(module, attribute)
    except ModuleNotFoundError as exc:
        raise SpecError(asked, f"no module named {exc.name!r}", "Install it, or name a file: file.py:factory") from None
    except AttributeError:
        raise SpecError(asked, f"{place} has no {attribute!r}") from None
    try:
        task = factory(**options)
    except TypeError as exc:
        raise SpecError(asked, f"the factory does not take these options ({exc})") from None
    if not isinstance(task, Task):
        missing = [member for member in _members(Task) if not hasattr(task, member)]
        raise SpecError(
            asked, f"what it made is no task: it lacks {', '.join(missing)}", "See edgedeploy.protocols.Task"
        )
    return task


def _module_of_file(path: Path, asked: str) -> Any:
    if not path.is_file():
        raise DataError(asked, f"no file at {path}", "Paths are relative to the study file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _members(protocol: type) -> list[str]:
    named = set(getattr(protocol, "__annotations__", {})) | set(vars(protocol))
    return sorted(name for name in named if not name.startswith("_"))
