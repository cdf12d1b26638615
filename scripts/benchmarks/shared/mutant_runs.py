"""Runs tests over a copy of the tree in which one file is changed, each time in a fork of one process.

The process has imported what the tests import of others (numpy, torch, pytest) and nothing of the tree: a run costs a
second and not ten. Which tests call which functions is found once, with the interpreter's profiling hook, so that a
mutant meets only tests that run it, the fastest first. What other processes run of the tree is not seen by that: such
tests are no near ones.
"""

from __future__ import annotations

import compileall
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

COPIED: Final = ("edgedeploy", "tests", "scripts", "docs", "pyproject.toml")
QUIET: Final = ("-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore", "--no-header", "--tb=no")

Function = tuple[str, int]
"""A file of the tree, and the first line of a function; 0 for the module's own lines."""


@dataclass
class Coverage:
    """What the tests of a scope call. ``seconds`` is each test's time, by its id."""

    called: dict[str, set[Function]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)

    def tests_of(self, file: str, function: int | None) -> list[str]:
        """Tests that call the function, or anything of the file, the fastest first."""
        found = [
            test
            for test, called in self.called.items()
            if any(where == file and function in (None, line) for where, line in called)
        ]
        return sorted(found, key=lambda test: self.seconds[test])


class Watch:
    """A plugin of pytest that finds the :class:`Coverage` of a run. What a shared fixture calls counts for each test that
    uses it."""

    def __init__(self, root: Path, watched: Sequence[str]) -> None:
        self.coverage = Coverage()
        self._prefix = f"{root}/"
        self._watched = {f"{root}/{file}": file for file in watched}
        self._seen: set[Function] = set()
        self._by_fixture: dict[str, set[Function]] = {}

    def _hook(self, frame: FrameType, event: str, argument: object) -> None:
        file = self._watched.get(frame.f_code.co_filename) if event == "call" else None
        if file is not None:
            named = frame.f_code.co_name != "<module>"
            self._seen.add((file, frame.f_code.co_firstlineno if named else 0))

    @contextmanager
    def _watching(self, into: set[Function]) -> Iterator[None]:
        before, self._seen = self._seen, into
        try:
            yield
        finally:
            self._seen = before
            before |= into

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Any:
        with self._watching(self._by_fixture.setdefault(fixturedef.argname, set())):
            return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        started_s = time.perf_counter()
        sys.setprofile(self._hook)
        threading.setprofile(self._hook)
        called = self.coverage.called.setdefault(item.nodeid, set())
        try:
            with self._watching(called):
                return (yield)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
            for name in getattr(item, "fixturenames", ()):
                called |= self._by_fixture.get(name, set())
            self.coverage.seconds[item.nodeid] = time.perf_counter() - started_s


class Tree:
    """A copy of the tree in a temporary folder."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.root = folder / "tree"
        self.root.mkdir()
        for name in COPIED:
            if (source / name).is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source / name, self.root / name, symlinks=True, ignore=ignored)
            else:
                shutil.copy2(source / name, self.root / name)
        compileall.compile_dir(self.root / "edgedeploy", quiet=2)

    @contextmanager
    def changed(self, file: str, text: str) -> Iterator[None]:
        path = self.root / file
        before, times = path.read_bytes(), path.stat()
        path.write_text(text, encoding="utf-8")
        os.utime(path, ns=(0, 0))  # no compiled file is of that time
        try:
            yield
        finally:
            path.write_bytes(before)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def run(self, tests: Sequence[str], limit_s: float, plugins: Callable[[], Sequence[object]] = tuple) -> int | None:
        """pytest's exit code over ``tests``, None when they took too long. In a fork."""
        child = os.fork()
        if child == 0:
            self._run(tests, plugins())
        give_up_s = time.monotonic() + limit_s
        while time.monotonic() < give_up_s:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None

    def _run(self, tests: Sequence[str], plugins: Sequence[object]) -> None:
        code = 99
        try:
            os.setpgid(0, 0)
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1, 2):
                os.dup2(nowhere, number)
            os.chdir(self.root)
            os.environ["PYTHONPATH"] = str(self.root)
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
            sys.dont_write_bytecode = True
            sys.path[:] = [str(self.root), *(item for item in sys.path if not _of_a_tree(item))]
            for name in [name for name in sys.modules if name.split(".")[0] in ("edgedeploy", "benchmarks")]:
                del sys.modules[name]
            code = int(pytest.main([*QUIET, *tests], plugins=list(plugins)))
        finally:
            os._exit(code)


def _of_a_tree(folder: str) -> bool:
    return (Path(folder) / "edgedeploy").is_dir() or (Path(folder) / "benchmarks").is_dir()


def coverage_of(tree: Tree, files: Sequence[str], tests: Sequence[str], limit_s: float = 1200.0) -> Coverage:
    """Runs the tests of a scope once, unchanged. Raises ``RuntimeError`` when they do not pass."""
    with tempfile.TemporaryDirectory(prefix="edgedeploy-coverage-") as folder:
        path = Path(folder) / "coverage.json"
        code = tree.run(tests, limit_s, lambda: [_Written(tree.root, files, path)])
        if code != 0:
            raise RuntimeError(f"the unchanged tests ended with {code}: {' '.join(tests)}")
        kept = json.loads(path.read_text(encoding="utf-8"))
    called = {test: {(str(file), int(line)) for file, line in found} for test, found in kept["called"].items()}
    return Coverage(called, kept["seconds"], kept["modules"])


class _Written(Watch):
    def __init__(self, root: Path, watched: Sequence[str], path: Path) -> None:
        super().__init__(root, watched)
        self._path = path

    def pytest_sessionfinish(self) -> None:
        called: Mapping[str, Any] = {test: sorted(found) for test, found in self.coverage.called.items()}
        others = sorted({name for name in sys.modules if name.split(".")[0] not in ("edgedeploy", "benchmarks")})
        kept = {"called": called, "seconds": self.coverage.seconds, "modules": others}
        self._path.write_text(json.dumps(kept), encoding="utf-8")


def import_beforehand(names: Sequence[str], tests: Path) -> None:
    """What the tests import of others, as far as it lies in installed packages."""
    local = {path.stem for path in tests.glob("*.py")} | {"conftest", "__main__", "tests"}
    for name in names:
        if name.split(".")[0] not in local and not name.startswith(("test_", "_")):
            with suppress(Exception):
                importlib.import_module(name)
