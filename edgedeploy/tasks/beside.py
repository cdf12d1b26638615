"""Modules that lie beside a task's file: how its imports find them, and which files its code is made of.

Which modules those are is read from the import statements, also from those inside functions, which run later. Nothing
is put on ``sys.path``: a finder answers for exactly these names, as ``python my_task.py`` would. A module of the
standard library, or one that is imported already, is never replaced.
"""

from __future__ import annotations

import ast
import importlib
import sys
import tokenize
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from edgedeploy.runtime.files import sha256_file

MOST_FILES: Final = 1000
"""No more files are followed: a task is made of a handful."""

LARGEST_SOURCE_BYTES: Final = 1 << 20
"""Imports of a larger file are not followed."""

_TAKEN: Final[dict[str, str]] = {}
"""Files that were made importable, with the SHA-256 that they had."""


class _Beside:
    """The finder. ``folders`` maps a top-level name to the folder that has it."""

    folders: Mapping[str, Path] = {}

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> Any:
        folder = cls.folders.get(name) if path is None else None
        return PathFinder.find_spec(name, [str(folder)]) if folder else None


def make_importable(entry: Path, roots: Sequence[Path], package: str = "") -> None:
    """Let imports of ``entry`` find what lies in ``roots``. It holds until the next call, so that imports inside functions
    find them too. ``package`` is the package that ``entry`` is a module of.

    Modules that another task had, and those of files that have changed since, are read anew; the others stay what they are,
    because what a module registers elsewhere it may register once only.
    """
    found = modules_beside(entry, roots, package)
    tops = {name.partition(".")[0] for name in (*found, package) if name}
    folders = {name: root for name in tops for root in reversed(roots) if _holds(root, name)}
    current = {str(path): sha256_file(path) for path in found.values()}
    changed = any(_TAKEN.get(file, sha256) != sha256 for file, sha256 in current.items())
    moved = {name for name in tops if folders.get(name) != _Beside.folders.get(name)}
    for name, module in list(sys.modules.items()):
        file, top = getattr(module, "__file__", None), name.partition(".")[0]
        if top not in tops:
            continue
        others = file in _TAKEN and file not in current
        if others or (changed and file in _TAKEN) or (_is_namespace(module) and (changed or top in moved)):
            del sys.modules[name]
    _Beside.folders = folders
    _TAKEN.update(current)
    importlib.invalidate_caches()
    if _Beside not in sys.meta_path:
        sys.meta_path.insert(0, _Beside)


def modules_beside(entry: Path, roots: Sequence[Path], package: str = "") -> dict[str, Path]:
    """Module name to file of what ``entry`` imports from ``roots``, and what that imports from there, without ``entry``."""
    found = {name: file for name, file in _files_of(package, roots).items() if file != entry}
    pending = [(entry, package), *((file, name) for name, file in found.items())]
    while pending and len(found) < MOST_FILES:
        path, parent = pending.pop()
        for name in _imported_names(path, parent):
            for module, file in _files_of(name, roots).items():
                if module not in found and file != entry:
                    found[module] = file
                    pending.append((file, module if file.name == "__init__.py" else module.rpartition(".")[0]))
    return found


def package_of(entry: Path) -> tuple[Path, str]:
    """The folder of the outermost package that ``entry`` lies in, and the dotted name of its own package; its own folder and
    an empty name for a file in no package, and for one without relative imports, which needs none."""
    folder, names = entry.parent, list[str]()
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in _imports(entry))
    return (folder, ".".join(names)) if names and relative else (entry.parent, "")


def _holds(root: Path, name: str) -> bool:
    return (root / f"{name}.py").is_file() or (root / name).is_dir()


def _is_namespace(module: ModuleType) -> bool:
    """A package without ``__init__.py`` knows the folders of the task before."""
    spec: ModuleSpec | None = getattr(module, "__spec__", None)
    return spec is not None and spec.origin is None and spec.submodule_search_locations is not None


def _imported_names(path: Path, package: str) -> Iterator[str]:
    """Dotted names that the import statements of a file may load."""
    for node in _imports(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
            continue
        parents = package.split(".") if package else []
        if node.level > len(parents):
            continue  # beyond its package: Python refuses it
        above = parents[: len(parents) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file; none of one that is no Python, which its import says."""
    try:
        if path.stat().st_size > LARGEST_SOURCE_BYTES:
            return []
        with tokenize.open(path) as stream:
            tree = ast.parse(stream.read())
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def _files_of(name: str, roots: Sequence[Path]) -> dict[str, Path]:
    """Module name to file of a dotted name and its packages, from the first root that has it."""
    parts = name.split(".")
    if parts[0] in sys.stdlib_module_names or not all(parts):
        return {}
    for root in roots:
        found: dict[str, Path] = {}
        place = root
        for index, part in enumerate(parts, start=1):
            module, folder, file = ".".join(parts[:index]), place / part, place / f"{part}.py"
            if (folder / "__init__.py").is_file():
                found[module] = folder / "__init__.py"
            elif file.is_file():
                found[module] = file
                break
            elif not folder.is_dir():
                break
            place = folder
        if found:
            return found
    return {}
