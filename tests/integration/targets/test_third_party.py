"""A target from a package of its own (tests/thirdparty), installed into a fresh environment and searched over SSH on a
board that has not got the package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from board_kit import STUDY_LIMIT_S, need_sshd, squares_study
from extending_kit import REPO, Tree, promised

from edgedeploy.boards.emulated.board import serve

pytestmark = [pytest.mark.beside, pytest.mark.slow]

PACKAGE = REPO / "tests" / "thirdparty"
PAGE = REPO / "docs" / "extend" / "target.md"
IMPORT_TABLE = "from edgedeploy.runtime.sessions.sources import BUILTIN"
ROW = 'SessionSource(f"{SESSIONS}.capsule", ("onnxruntime", "onnxruntime-gpu"))'
PYTEST = ("-q", "-rA", "-p", "no:cacheprovider", "-p", "no:labgrid")

Run = Callable[[Sequence[str], Path], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Runs Python in an environment that sees this one's dependencies, with edgedeploy and the package installed in it."""
    home = tmp_path_factory.mktemp("host") / "env"
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*/site-packages"))
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(REPO / "edgedeploy", source / "edgedeploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / name, source)
    for place in (source, shutil.copytree(PACKAGE, tmp_path_factory.mktemp("theirs") / "package")):
        with zipfile.ZipFile(wheel_of(place)) as archive:
            archive.extractall(site)
    # addsitedir would follow this environment's editable install of the checkout; a plain path does not
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    clean = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(arguments: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
        state = {"EDGEDEPLOY_STATE": str(home / "state"), "COLUMNS": "200"}
        argv = [str(home / "bin" / "python"), *arguments]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=folder, env={**clean, **state}, timeout=STUDY_LIMIT_S
        )

    return run


def wheel_of(source: Path) -> Path:
    """Without isolation, so that no index is asked."""
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (source / "dist").glob("*.whl")
    return path


def test_a_target_of_ones_own_is_as_many_files_as_promised() -> None:
    found = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    files = {name for name in found if "__pycache__" not in name and name != "README.md"}
    assert len(files) == promised("target")
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in files if f"`{name}`" not in page] == []
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))
    assert list(project["project"]["entry-points"]) == ["edgedeploy.targets"]


def test_a_target_inside_is_three_files_and_three_lines(tmp_path: Path) -> None:
    """The same target as one of edgedeploy's own: the third line, in pyproject.toml, is for who installs it."""
    tree = Tree(tmp_path / "tree")
    target = (PACKAGE / "edgedeploy_capsule" / "__init__.py").read_text(encoding="utf-8")
    for old, new in (
        (
            'SessionSource("edgedeploy_capsule.session", packages=("onnxruntime", "onnxruntime-gpu"))',
            'BUILTIN["capsule"]',
        ),
        ("from edgedeploy_capsule.session import MAGIC", "from edgedeploy.runtime.sessions.capsule import MAGIC"),
        ("from edgedeploy import (", f"{IMPORT_TABLE}\nfrom edgedeploy import ("),
        ('("edgedeploy-capsule", "onnxruntime", "onnx")', '("onnxruntime", "onnx")'),
    ):
        assert target.count(old) == 1, old
        target = target.replace(old, new)
    tree.add("targets/capsule.py", target)
    tree.add("runtime/sessions/capsule.py", (PACKAGE / "edgedeploy_capsule" / "session.py").read_text(encoding="utf-8"))
    tree.change("runtime/sessions/sources.py", "BUILTIN = {\n", f'BUILTIN = {{\n    "capsule": {ROW},\n')
    head = "BUILTIN_TARGETS: Final[Mapping[str, str]] = {\n"
    tree.change("targets/registry.py", head, f'{head}    "capsule": "edgedeploy.targets.capsule:CapsuleTarget",\n')
    test = (PACKAGE / "test_capsule.py").read_text(encoding="utf-8")
    contract = tmp_path / "test_capsule.py"
    contract.write_text(test.replace("from edgedeploy_capsule", "from edgedeploy.targets.capsule"), encoding="utf-8")

    new, changed = 2, 2
    assert len(tree.changed()) == new + changed
    assert "## In edgedeploy: three files and three lines" in PAGE.read_text(encoding="utf-8")
    chosen = "entry_point or without_the_targets_package"
    done = tree.run("-m", "pytest", *PYTEST, "--rootdir", str(tmp_path), "-k", chosen, str(contract), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("PASSED") for line in done.stdout.splitlines()) == 2, done.stdout


def test_it_passes_the_contract_where_it_is_installed(host: Run, tmp_path: Path) -> None:
    shutil.copy(PACKAGE / "test_capsule.py", tmp_path)
    done = host(["-m", "pytest", *PYTEST, "--rootdir", str(tmp_path), "test_capsule.py"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {line.rpartition("::")[2] for line in done.stdout.splitlines() if line.startswith("PASSED")}
    assert "test_a_board_runs_the_artifact_without_the_targets_package" in passed
    assert "test_artifact_computes_what_its_reference_computes[int8]" in passed


def test_a_study_searches_it_over_ssh_on_a_board_without_the_package(host: Run, tmp_path: Path) -> None:
    need_sshd()
    without = [sys.executable, "-c", "import edgedeploy_capsule"]
    assert subprocess.run(without, capture_output=True, check=False, cwd=tmp_path).returncode != 0
    with serve("sshd") as server:
        table = f"""\
[[boards]]
name = "cart"
kind = "ssh"
host = "{server.host}"
port = {server.port}
user = "{server.user}"
identity = "{server.identity}"
known_hosts = "{server.known_hosts}"
python = "{sys.executable}"
root = "{tmp_path / "board"}"

[[boards]]
name = "loopback\""""
        study = squares_study(
            tmp_path,
            ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime", "capsule"]'),
            ('[[boards]]\nname = "loopback"', table),
            ("width = [1.0, 0.5]", "width = [1.0]"),
            ("kernel = [3, 5]", "kernel = [3]"),
            ("trials = 6", "trials = 4"),
        )
        looked = host(["-m", "edgedeploy", "doctor", str(study), "--board", "cart", "--json"], tmp_path)
        assert looked.returncode == 0, looked.stdout + looked.stderr
        boards = host(["-m", "edgedeploy", "boards", str(study), "--json"], tmp_path)
        done = host(["-m", "edgedeploy", "search", str(study), "--board", "cart", "--out", "found"], tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    findings = {item["what"]: item["found"] for item in json.loads(looked.stdout)}
    assert "capsule" in findings["board cart"]
    assert findings["board cart, capsule"].startswith("float32")
    assert "board here, capsule" in {item["what"] for item in json.loads(boards.stdout)}
    measured = [json.loads(path.read_text()) for path in (tmp_path / "found" / "measurements").iterdir()]
    theirs = [item for item in measured if item["variant"]["target"] == "capsule"]
    assert {item["variant"]["precision"] for item in theirs} == {"float32", "int8"}
    assert {item["provenance"] for item in theirs} == {"measured"}

    front = host(["-m", "edgedeploy", "front", "found", "--json"], tmp_path)
    assert front.returncode == 0, front.stdout + front.stderr
    rows = json.loads(front.stdout)["rows"]
    assert {row["variant"]["target"] for row in rows} >= {"onnxruntime", "capsule"}


def test_the_command_line_knows_it(host: Run, tmp_path: Path) -> None:
    done = host(["-m", "edgedeploy", "targets", "--json"], tmp_path)
    findings = {item["what"]: item for item in json.loads(done.stdout)}
    assert findings["target capsule"]["ok"] is True
    assert "edgedeploy-capsule 0.3.0" in findings["target capsule"]["found"]
