"""From the ``[task]`` table of a study to a task."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, SpecError, nearest
from edgedeploy.interfaces.task import Task

TASK_KINDS: Final = ("synthetic-ultrasound", "segmentation-folder", "onnx", "python")
_FROM_EDGEDEPLOY: Final = (
    "A task's file needs no name below edgedeploy: from edgedeploy import Case, MetricInfo, TensorSpec, TrainRecipe"
)


def load_task(table: Mapping[str, Any], base: Path) -> Task:
    """The task a study names. Relative paths are taken from ``base``, the study file's folder.

    Raises ``SpecError`` for a wrong option or object, ``DataError`` for data that cannot be used.
    """
    options = table.get("options") or {}
    if table["kind"] not in TASK_KINDS:
        raise SpecError("task.kind", f"unknown kind {table['kind']!r}", nearest(str(table["kind"]), TASK_KINDS))
    if table["kind"] == "python":
        return _python_task(str(table["object"]), options, base)
    try:
        from edgedeploy.tasks.onnx.task import OnnxOptions, OnnxTask
        from edgedeploy.tasks.options import read_options
        from edgedeploy.tasks.segmentation.folder import FolderOptions, SegmentationFolder
        from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions
    except ModuleNotFoundError as exc:
        raise SpecError(
            f"task kind {table['kind']!r}", f"it needs the package {exc.name!r}", "pip install 'edgedeploy[study]'"
        ) from None
    if table["kind"] == "onnx":
        model = base / Path(str(table["model"])).expanduser()
        return OnnxTask(model, OnnxOptions.from_table(options), base)
    if table["kind"] == "synthetic-ultrasound":
        return SyntheticUltrasound(read_options(UltrasoundOptions, UltrasoundOptions(), options, "task.options"))
    return SegmentationFolder(read_options(FolderOptions, FolderOptions(), options, "task.options"), base)


def _python_task(name: str, options: Mapping[str, Any], base: Path) -> Task:
    """``module:factory`` or ``file.py:factory``, called with the options as keywords: the user's own code."""
    place, colon, attribute = name.rpartition(":")
    asked = f"task.object = {name!r}"
    if not colon or not place or not attribute or place.startswith("."):
        raise SpecError(asked, "no factory is named", 'Write "package.module:factory" or "file.py:factory"')
    try:
        module = _module_of_file(base / place, asked) if place.endswith(".py") else importlib.import_module(place)
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "edgedeploy":
            raise SpecError(asked, f"{place} asks for what is not there: {exc}", _FROM_EDGEDEPLOY) from None
        if not isinstance(exc, ModuleNotFoundError):
            raise
        raise SpecError(asked, f"no module named {exc.name!r}", "Install it, or name a file: file.py:factory") from None
    except SyntaxError as exc:
        raise SpecError(asked, f"{exc.filename}, line {exc.lineno}: {exc.msg}", "Correct that line") from None
    except SystemExit as exc:
        raise SpecError(asked, f"{place} ends the program ({exc!r})", "Remove that from what an import runs") from None
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise SpecError(
            asked, f"{place} has no function or class {attribute!r}", nearest(attribute, _callables(module))
        )
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as exc:
        raise SpecError(asked, f"the factory does not take these options ({exc})") from None
    try:
        task = factory(**options)
    except SystemExit as exc:
        raise SpecError(asked, f"{attribute} ends the program ({exc!r})", "Raise an error instead") from None
    if not isinstance(task, Task):
        missing = [member for member in _members(Task) if not hasattr(task, member)]
        raise SpecError(asked, f"what it made is no task: it lacks {', '.join(missing)}", "See edgedeploy.Task")
    return task


def _module_of_file(path: Path, asked: str) -> Any:
    if not path.is_file():
        raise DataError(asked, f"no file at {path}", "Paths are relative to the study file")
    name = f"edgedeploy_task_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _callables(module: Any) -> list[str]:
    return [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]


def _members(protocol: type) -> list[str]:
    named = set(getattr(protocol, "__annotations__", {})) | set(vars(protocol))
    return sorted(name for name in named if not name.startswith("_"))
