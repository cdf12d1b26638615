"""From the ``[task]`` table of a study to a task."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import DataError, EdgeDeployError, SpecError, nearest
from edgedeploy.interfaces.task import Task
from edgedeploy.interfaces.their_code import their_code, told
from edgedeploy.runtime.files import sha256_file
from edgedeploy.tasks.beside import make_importable, modules_beside, package_of
from edgedeploy.tasks.places import place_of


@dataclass(frozen=True)
class Kind:
    """A kind of task that comes with edgedeploy: its module below ``edgedeploy.tasks``, the class, made of its options and
    the study file's folder (where it ``reads_files``), and the class of its options. ``own_network``: the option ``network``
    names a function of the user's, which the class takes as a third argument."""

    module: str
    task: str
    options: str
    own_network: bool = False
    reads_files: bool = True


KINDS: Final[Mapping[str, Kind]] = {
    "classification": Kind("classification", "Classification", "ClassificationOptions", own_network=True),
    "image-to-image": Kind("image_to_image", "ImageToImage", "ImageToImageOptions", own_network=True),
    "low-dose-ct": Kind("lowdose.task", "LowDoseCt", "LowDoseOptions", own_network=True),
    "detection": Kind("detection.task", "make_detection", "DetectionOptions", own_network=True),
    "volumes": Kind("volumes", "Volumes", "VolumeOptions", own_network=True),
    "promptable": Kind("promptable.task", "Promptable", "PromptableOptions"),
    "multi-modal": Kind("image_text.task", "ImageText", "ImageTextOptions"),
    "synthetic-ultrasound": Kind(
        "segmentation.ultrasound", "SyntheticUltrasound", "UltrasoundOptions", reads_files=False
    ),
    "segmentation-folder": Kind("segmentation.folder", "SegmentationFolder", "FolderOptions", own_network=True),
}
EXTRAS: Final[Mapping[str, str]] = {
    "nibabel": "volumes",
    "pycocotools": "detection",
    "skimage": "ct",
    "tokenizers": "text",
}
"""The extra that a package of one kind alone comes with; all others come with ``study``."""

TASK_KINDS: Final = (*KINDS, "onnx", "python")
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
        if table["kind"] == "onnx":
            return _onnx_task(str(table["model"]), options, base)
        return _shipped_task(KINDS[table["kind"]], options, base)
    except ModuleNotFoundError as exc:
        package = (exc.name or "").partition(".")[0]
        if package == "edgedeploy":
            raise
        remedy = f"pip install 'edgedeploy[{EXTRAS.get(package, 'study')}]'"
        raise SpecError(f"task kind {table['kind']!r}", f"it needs the package {exc.name!r}", remedy) from None


def _onnx_task(model: str, options: Mapping[str, Any], base: Path) -> Task:
    from edgedeploy.tasks.onnx.task import OnnxOptions, OnnxTask

    return OnnxTask(place_of(base, model), OnnxOptions.from_table(options), base)


def _shipped_task(kind: Kind, table: Mapping[str, Any], base: Path) -> Task:
    from edgedeploy.tasks.options import read_options

    module = importlib.import_module(f"edgedeploy.tasks.{kind.module}")
    make, defaults = getattr(module, kind.task), getattr(module, kind.options)()
    options = read_options(type(defaults), defaults, table, "task.options")
    arguments: list[Any] = [options, base] if kind.reads_files else [options]
    if kind.own_network and options.network:
        arguments.append(_named(options.network, base, f"task.options.network = {options.network!r}"))
    task: Task = make(*arguments)
    return task


def _python_task(name: str, options: Mapping[str, Any], base: Path) -> Task:
    """``module:factory`` or ``file.py:factory``, called with the options as keywords: the user's own code."""
    asked = f"task.object = {name!r}"
    factory, attribute = _named(name, base, asked), name.rpartition(":")[2]
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as exc:
        raise SpecError(asked, f"the factory does not take these options ({exc})") from None
    with their_code(factory, asked):
        try:
            task = factory(**options)
        except SystemExit as exc:
            raise SpecError(asked, f"{attribute} ends the program ({exc!r})", "Raise an error instead") from None
    if not isinstance(task, Task):
        missing = [member for member in _members(Task) if not hasattr(task, member)]
        raise SpecError(asked, f"what it made is no task: it lacks {', '.join(missing)}", "See edgedeploy.Task")
    return task


def _named(name: str, base: Path, asked: str) -> Callable[..., Any]:
    """The user's own function or class: ``module:name`` or ``file.py:name``. Raises ``SpecError`` and ``DataError``."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute or (place.startswith(".") and not place.endswith(".py")):
        raise SpecError(asked, "no factory is named", 'Write "package.module:factory" or "file.py:factory"')
    try:
        module = _module_of_file(base / place, asked) if place.endswith(".py") else _module_named(place, base)
    except ImportError as exc:
        if (exc.name or "").partition(".")[0] == "edgedeploy":
            raise SpecError(asked, f"{place} asks for what is not there: {exc}", _FROM_EDGEDEPLOY) from None
        if "relative import" in str(exc):
            remedy = "Write `import helpers`, or put an __init__.py beside it"
            raise SpecError(asked, f"{place} is in no package: {exc}", remedy) from None
        if not isinstance(exc, ModuleNotFoundError):
            raise SpecError(asked, told(exc), "Correct that line") from exc
        remedy = "Install it, or name a file: file.py:factory"
        if place.endswith(".py"):
            remedy = f"Install it, or put {(exc.name or '').partition('.')[0]}.py beside {place}"
        raise SpecError(asked, f"no module named {exc.name!r}", remedy) from None
    except SyntaxError as exc:
        raise SpecError(asked, f"{exc.filename}, line {exc.lineno}: {exc.msg}", "Correct that line") from None
    except SystemExit as exc:
        raise SpecError(asked, f"{place} ends the program ({exc!r})", "Remove that from what an import runs") from None
    except EdgeDeployError:
        raise
    except Exception as exc:  # whatever the user's module runs when it is imported
        raise SpecError(asked, told(exc), "Correct that line") from exc
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise SpecError(
            asked, f"{place} has no function or class {attribute!r}", nearest(attribute, _callables(module))
        )
    made: Callable[..., Any] = factory
    return made


def task_sources(table: Mapping[str, Any], base: Path) -> dict[str, str]:
    """SHA-256 of each file of the user's own code that a task is made of: its file, and the modules beside it that it
    imports, wherever the import stands. The keys are paths relative to ``base`` where they lie below it. Empty for a task
    that comes with the package. Loads nothing; files that are gone are left out."""
    own = table.get("object") if table["kind"] == "python" else (table.get("options") or {}).get("network")
    place = str(own or "").rpartition(":")[0]
    if not place:
        return {}
    found: dict[str, Path] = {}
    if place.endswith(".py"):
        entry = base / place
        root, package = package_of(entry)
        found = modules_beside(entry, (root, entry.parent), package)
    else:
        origin = _origin(place, base)
        if origin is None:
            return {}
        entry, root, package = origin
        own = place.partition(".")[0]
        beside = root == base
        found = {
            name: path
            for name, path in modules_beside(entry, (root,), package).items()
            if beside or name.partition(".")[0] == own  # of an installed package, not all that is installed beside it
        }
    files = {path for path in (entry, *found.values()) if path.is_file()}
    return {_shown(path, base): sha256_file(path) for path in sorted(files)}


def _shown(path: Path, base: Path) -> str:
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _origin(place: str, base: Path) -> tuple[Path, Path, str] | None:
    """File, folder of the top-level package and package of a module by its dotted name; None for a module of edgedeploy, or
    one that is no Python file."""
    parts = place.split(".")
    if PathFinder.find_spec(parts[0]) is None:  # it is not installed
        for entry in (base.joinpath(*parts[:-1], f"{parts[-1]}.py"), base.joinpath(*parts, "__init__.py")):
            if entry.is_file():
                return entry, base, place if entry.name == "__init__.py" else ".".join(parts[:-1])
    try:
        spec = importlib.util.find_spec(place)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or not spec.has_location or not str(spec.origin).endswith(".py"):
        return None
    entry = Path(str(spec.origin))
    if entry.is_relative_to(Path(__file__).parents[1]):
        return None
    above = len(parts) - (0 if entry.name == "__init__.py" else 1)
    return entry, entry.parents[above], spec.parent or ""


def _module_named(place: str, base: Path) -> Any:
    """An installed module, or one beside the study file."""
    origin = _origin(place, base)
    if origin is not None and PathFinder.find_spec(place.partition(".")[0]) is None:
        entry, _, package = origin
        make_importable(entry, (base,), package)
        return _executed(place, entry, package)
    return importlib.import_module(place)


def _module_of_file(path: Path, asked: str) -> Any:
    if not path.is_file():
        raise DataError(asked, f"no file at {path}", "Paths are relative to the study file")
    root, package = package_of(path)
    make_importable(path, (root, path.parent), package)
    if package:
        return _executed(f"{package}.{path.stem}", path, package)
    return _executed(f"edgedeploy_task_{path.stem}", path, "")


def _executed(name: str, path: Path, package: str) -> Any:
    """The module ``name`` from its file, executed anew."""
    if package and package != name:
        importlib.import_module(package)
    places = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=places)
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
