"""Modules beside a task's file: its imports find them, and they are part of what the task is."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgedeploy.errors import SpecError
from edgedeploy.runtime.files import sha256_file
from edgedeploy.tasks.load import load_task, task_sources

TASK = """
{imports}

class Own:
    name = {name}
    architecture = {{}}
    metrics = {{}}
    def build(self, **arch):
        {lazy}
        return {built}
    def input_specs(self, **arch): ...
    def cases(self, split): return ()
    def inputs(self, case, **arch): ...
    def evaluate(self, outputs, case): ...
"""


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def task_file(path: Path, imports: str = "", name: str = '"own"', lazy: str = "pass", built: str = "None") -> Path:
    return write(path, TASK.format(imports=imports, name=name, lazy=lazy, built=built))


def table(name: str = "my_task.py:Own") -> dict[str, Any]:
    return {"kind": "python", "object": name, "options": {}}


def sources(base: Path, *names: str) -> Mapping[str, str]:
    return {name: sha256_file(base / name) for name in names}


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """What a test imports from its own folder is gone after it; ``sys.path`` stays as it was."""
    known, path = set(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - known:
        del sys.modules[name]


def test_a_module_beside_the_tasks_file_is_imported(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "import helpers", "helpers.NAME")
    write(tmp_path / "helpers.py", "from deeper import NAME\n")
    write(tmp_path / "deeper.py", 'NAME = "deep"\n')
    write(tmp_path / "unused.py", "raise RuntimeError\n")
    assert load_task(table(), tmp_path).name == "deep"
    assert task_sources(table(), tmp_path) == sources(tmp_path, "deeper.py", "helpers.py", "my_task.py")


def test_an_import_inside_a_function_finds_it_later(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", lazy="from lazily import NETWORK", built="NETWORK")
    write(tmp_path / "lazily.py", "NETWORK = 7\n")
    before = task_sources(table(), tmp_path)
    assert load_task(table(), tmp_path).build() == 7
    assert before == task_sources(table(), tmp_path) == sources(tmp_path, "lazily.py", "my_task.py")


def test_a_package_beside_the_tasks_file_is_imported(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "import nets.unet\nfrom nets import blocks", "nets.unet.NAME + blocks.NAME")
    write(tmp_path / "nets/__init__.py", "")
    write(tmp_path / "nets/unet.py", "from . import blocks\nfrom .blocks import NAME\n")
    write(tmp_path / "nets/blocks.py", 'NAME = "block"\n')
    assert load_task(table(), tmp_path).name == "blockblock"
    files = ("my_task.py", "nets/__init__.py", "nets/unet.py", "nets/blocks.py")
    assert task_sources(table(), tmp_path) == sources(tmp_path, *files)


@pytest.mark.parametrize("name", ["tasks/my_task.py:Own", "tasks.my_task:Own"])
def test_a_tasks_file_in_a_package_imports_from_it(name: str, tmp_path: Path) -> None:
    task_file(tmp_path / "tasks/my_task.py", "from .helpers import NAME\nfrom . import helpers", "NAME")
    write(tmp_path / "tasks/__init__.py", "")
    write(tmp_path / "tasks/helpers.py", 'NAME = "relative"\n')
    assert load_task(table(name), tmp_path).name == "relative"
    files = ("tasks/__init__.py", "tasks/helpers.py", "tasks/my_task.py")
    assert task_sources(table(name), tmp_path) == sources(tmp_path, *files)


def test_a_relative_import_outside_of_a_package_is_answered_with_what_works(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "from . import helpers")
    with pytest.raises(SpecError, match=r"my_task.py is in no package: .*Write `import helpers`"):
        load_task(table(), tmp_path)


def test_a_module_that_is_nowhere_is_asked_for_beside_the_file(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "import helpers_of_nobody.nets")
    with pytest.raises(
        SpecError, match=r"no module named 'helpers_of_nobody'.*helpers_of_nobody\.py beside my_task\.py"
    ):
        load_task(table(), tmp_path)


def test_two_tasks_have_helpers_of_the_same_name(tmp_path: Path) -> None:
    for folder in ("left", "right"):
        task_file(
            tmp_path / folder / "my_task.py", "import helpers\nfrom loose.more import SIDE", "helpers.NAME + SIDE"
        )
        write(tmp_path / folder / "helpers.py", f'NAME = "{folder}"\n')
        write(tmp_path / folder / "loose/more.py", f'SIDE = " {folder}"\n')
    for folder in ("left", "right", "left"):
        assert load_task(table(), tmp_path / folder).name == f"{folder} {folder}"


def test_a_helper_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "import helpers", "helpers.NAME")
    write(tmp_path / "helpers.py", 'NAME = "old"\n')
    assert load_task(table(), tmp_path).name == "old"
    before = task_sources(table(), tmp_path)
    write(tmp_path / "helpers.py", 'NAME = "newer"\n')
    assert load_task(table(), tmp_path).name == "newer"
    now = task_sources(table(), tmp_path)
    assert before.keys() == now.keys()
    assert [name for name in now if now[name] != before[name]] == ["helpers.py"]


def test_a_helper_that_stayed_as_it_was_is_not_run_again(tmp_path: Path) -> None:
    """A report loads the task again in the search's process: what a helper registers may be registered once only."""
    task_file(tmp_path / "my_task.py", "import helpers", "helpers.NAME")
    write(tmp_path / "helpers.py", 'import sys\nsys.runs_of_helpers.append(1)\nNAME = "once"\n')
    sys.runs_of_helpers = runs = []  # type: ignore[attr-defined]
    try:
        for _ in range(3):
            assert load_task(table(), tmp_path).name == "once"
    finally:
        del sys.runs_of_helpers  # type: ignore[attr-defined]
    assert runs == [1]


def test_what_is_imported_already_or_of_the_standard_library_stays(tmp_path: Path) -> None:
    task_file(tmp_path / "my_task.py", "import json\nimport pytest\nimport queue", "json.__name__")
    for name in ("json", "queue", "pytest"):
        write(tmp_path / f"{name}.py", "raise RuntimeError\n")
    assert load_task(table(), tmp_path).name == "json"
    assert sys.modules["pytest"] is pytest


def test_tasks_that_come_with_the_package_have_no_sources(tmp_path: Path) -> None:
    assert task_sources({"kind": "synthetic-ultrasound"}, tmp_path) == {}
    own = table("edgedeploy.tasks.segmentation.ultrasound:SyntheticUltrasound")
    assert task_sources(own, tmp_path) == {}


def test_an_installed_package_is_followed_within_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "site/installed_task/__init__.py", "")
    task_file(tmp_path / "site/installed_task/own.py", "import numpy\nfrom installed_task.nets import NAME", "NAME")
    nets = write(tmp_path / "site/installed_task/nets.py", 'import other_installed\nNAME = "installed"\n')
    write(tmp_path / "site/other_installed.py", "")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(tmp_path / "site")
        assert load_task(table("installed_task.own:Own"), tmp_path / "study").name == "installed"
        found = task_sources(table("installed_task.own:Own"), tmp_path / "study")
    assert {Path(name).name for name in found} == {"__init__.py", "nets.py", "own.py"}
    assert found[nets.as_posix()] == sha256_file(nets)
