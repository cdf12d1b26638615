"""The session of a target from another package, as it travels to boards.

A board has none of the packages of this host. What a declaration names is therefore read here, held to the rules of the
agent, and packed with it, below a folder of its own in which it can hide nothing of the agent or of the board.
"""

from __future__ import annotations

import ast
import importlib.util
import keyword
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from edgedeploy.errors import TargetUnavailable
from edgedeploy.runtime import OLDEST_PYTHON
from edgedeploy.runtime.sessions import thirdparty
from edgedeploy.runtime.sessions.sources import BUILTIN, SESSIONS, SessionSource

LIMIT_BYTES: Final = 256 * 1024
"""Of one session's sources: a board reads its agent anew after each change. The package's own have 5 to 25 KiB."""

OPENS: Final = "open_model"
PLACE: Final = thirdparty.__name__
OURS: Final = "edgedeploy.runtime"
NEWER: Final = frozenset({"graphlib", "tomllib", "zoneinfo"})
"""Of the standard library, and not in the oldest Python of a board."""


@dataclass(frozen=True)
class PackedSession:
    """A target's declaration with ``module`` as it is called in the agent, and the files to pack: path and text."""

    target: str
    source: SessionSource
    files: tuple[tuple[str, str], ...]


def pack_session(target: str, source: SessionSource) -> PackedSession:
    """Reads the session that a target declares; its module is not imported. The package's own are in every agent.

    Raises ``TargetUnavailable`` for a declaration that no board could follow.
    """
    if not isinstance(source, SessionSource):
        raise _wrong(target, f"its session is a {type(source).__name__}", "Declare session = SessionSource(...)")
    if target in BUILTIN:
        if source != BUILTIN[target]:
            raise _wrong(target, "edgedeploy's own target of that name has another session", "Choose another name")
        return PackedSession(target, source, ())
    _check_packages(target, source)
    source = replace(source, packages=tuple(source.packages))
    parts = str(source.module).split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise _wrong(target, f"{source.module!r} is no module's name", "Name it as an import would")
    if source.module.startswith(f"{SESSIONS}."):
        _find(target, source.module)
        return PackedSession(target, source, ())
    if parts[0] == "edgedeploy":
        found = f"its session {source.module} is a part of edgedeploy that no board has"
        raise _wrong(target, found, f"Put it into {SESSIONS}, or into a package of your own")
    texts = _read(target, source)
    for path, text in texts.items():
        _check_text(target, source, path, text, package="__init__.py" in texts)
    if OPENS not in _names(texts.get("__init__.py") or next(iter(texts.values()))):
        raise _wrong(target, f"{source.module} has no {OPENS}", f"Write def {OPENS}(path, settings, threads)")
    size_bytes = sum(len(text.encode()) for text in texts.values())
    if size_bytes > LIMIT_BYTES:
        found = f"its session has {size_bytes} bytes of source, more than {LIMIT_BYTES}"
        raise _wrong(target, found, "Leave to the board's runtime what is not the session's")
    module = f"{PLACE}.{source.module}"
    folder = (module if "__init__.py" in texts else module.rpartition(".")[0]).replace(".", "/")
    files = tuple((f"{folder}/{path}", text) for path, text in sorted(texts.items()))
    return PackedSession(target, replace(source, module=module), files)


def files_of(sessions: Sequence[PackedSession]) -> Mapping[str, str]:
    """What packing these sessions adds to the agent's files: their sources and the table that names them."""
    files: dict[str, str] = {}
    rows: dict[str, tuple[str, tuple[str, ...], bool]] = {}
    for session in sessions:
        if session.target in BUILTIN:
            continue
        source = session.source
        rows[session.target] = (source.module, source.packages, bool(source.built_on_board))
        files |= dict(session.files)
    if not rows:
        return {}
    root = PLACE.replace(".", "/")
    for path in list(files):
        folder = path.rpartition("/")[0]
        while folder != root:
            files.setdefault(f"{folder}/__init__.py", "")
            folder = folder.rpartition("/")[0]
    table = "".join(f"    {target!r}: {rows[target]!r},\n" for target in sorted(rows))
    return {**files, f"{root}/__init__.py": f"ROWS = {{\n{table}}}\n"}


def _wrong(target: str, found: str, remedy: str) -> TargetUnavailable:
    return TargetUnavailable(f"the session of target {target!r}", found, remedy)


def _check_packages(target: str, source: SessionSource) -> None:
    given = source.packages
    if not isinstance(given, (tuple, list)) or not given or not all(isinstance(name, str) and name for name in given):
        found = f"packages = {given!r} names no distribution"
        raise _wrong(target, found, 'Name what brings its runtime to a board: packages=("numpy",)')


def _find(target: str, module: str) -> ModuleSpec:
    try:
        spec = importlib.util.find_spec(module)
    except (Exception, SystemExit) as exc:  # the packages around it are imported, and may raise anything
        raise _wrong(target, f"{module}: {type(exc).__name__}: {exc}", "Name a module of the package") from exc
    if spec is None:
        raise _wrong(target, f"there is no module {module}", "Name a module of the package")
    return spec


def _read(target: str, source: SessionSource) -> dict[str, str]:
    """Sources by path: one file, or all of a package's below its own folder, ``__init__.py`` among them."""
    spec = _find(target, source.module)
    try:
        if spec.submodule_search_locations:
            root = Path(next(iter(spec.submodule_search_locations)))
            return {path.relative_to(root).as_posix(): path.read_text("utf-8") for path in sorted(root.rglob("*.py"))}
        text = spec.loader.get_source(source.module) if isinstance(spec.loader, InspectLoader) else None
    except (OSError, UnicodeDecodeError, ImportError) as exc:
        raise _wrong(target, f"{source.module}: {exc}", "Ship its source as UTF-8 text") from exc
    if text is None:
        raise _wrong(target, f"{source.module} has no Python source", "Ship its source: boards get text")
    return {f"{source.module.rpartition('.')[2]}.py": text}


def _check_text(target: str, source: SessionSource, path: str, text: str, *, package: bool) -> None:
    """Whether one file can be loaded on a board: its syntax, and what it imports."""
    oldest = ".".join(str(part) for part in OLDEST_PYTHON)
    try:
        tree = ast.parse(text, feature_version=OLDEST_PYTHON)
    except (SyntaxError, ValueError, RecursionError) as exc:
        raise _wrong(target, f"{path}: {exc}", f"Keep to Python {oldest}, which boards have") from exc
    own = source.module.partition(".")[0]
    for line, name, level, at_load in _imports(tree.body, at_load=True):
        where, top = f"{path}, line {line}", name.partition(".")[0]
        if level:
            if not package or level > path.count("/") + 1:
                found = f"{where}: a relative import of what is not packed along"
                raise _wrong(target, found, "Make the session one module, or a package of its own")
        elif top == "edgedeploy":
            if not f"{name}.".startswith(f"{OURS}."):
                found = f"{where}: it imports {name}, and boards have {OURS} alone"
                raise _wrong(target, found, "Leave it to the target, which stays on this host")
        elif top == own and not _on_boards(top, source):
            found = f"{where}: it imports {name}, and boards have no package {top}"
            raise _wrong(target, found, "Make the session a package of its own, with relative imports in it")
        elif at_load and (top in NEWER or top not in {*sys.stdlib_module_names, "numpy"}):
            found = f"{where}: it imports {name} when it is loaded"
            remedy = f"Import numpy and what Python {oldest} brings at the top, the runtime inside {OPENS}"
            raise _wrong(target, found, remedy)


def _imports(nodes: Iterable[ast.AST], *, at_load: bool) -> Iterator[tuple[int, str, int, bool]]:
    """Line, module, level of a relative import, and whether it happens when the file is loaded and not in a function."""
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, 0, at_load
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.module or "", node.level, at_load
        elif isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            yield from _imports(node.orelse, at_load=at_load)
        else:
            inside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
            yield from _imports(ast.iter_child_nodes(node), at_load=at_load and not inside)


def _names(text: str) -> set[str]:
    """What a file defines or imports at its top."""
    found: set[str] = set()
    for node in ast.parse(text).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            found |= {name.id for name in node.targets if isinstance(name, ast.Name)}
    return found


def _on_boards(top: str, source: SessionSource) -> bool:
    """Whether a package that a board is to have brings the module ``top``: a runtime with its target in one."""
    wanted = {_plain(name) for name in source.packages}
    return any(_plain(name) in wanted for name in metadata.packages_distributions().get(top, ()))


def _plain(distribution: str) -> str:
    return distribution.lower().replace("_", "-").replace(".", "-")
