"""The wheel holds every package and data file, nothing of the root links, and the unit tests pass against it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import product_kit
import pytest

pytestmark = [pytest.mark.beside, pytest.mark.slow]

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that no earlier build's leftovers get in; without isolation, so that no index is asked."""
    folder = tmp_path_factory.mktemp("wheel")
    source = tmp_path_factory.mktemp("source")
    shutil.copytree(REPO / "edgedeploy", source / "edgedeploy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / name, source)
    for link in ("targets", "search", "runtime"):
        (source / link).symlink_to(f"edgedeploy/{link}")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    sources = {
        str(path.relative_to(REPO))
        for path in (REPO / "edgedeploy").rglob("*")
        if path.suffix in (".py", ".toml", ".typed", ".html", ".css", ".js")
    }
    assert sources <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"edgedeploy"}


def test_unit_tests_pass_against_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """A fresh environment that sees this one's dependencies, with edgedeploy from the wheel in front."""
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site = next((home / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    # addsitedir would follow this environment's editable install of the checkout; a plain path does not
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    tests = [
        "spec/test_spec.py",
        "search/test_search.py",
        "records/test_variant.py",
        "report/test_report.py",
        "test_import.py",
    ]
    argv = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        *(str(REPO / "tests" / "unit" / name) for name in tests),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    code = "import edgedeploy; print(edgedeploy.__file__)"
    where = subprocess.run(
        [str(python), "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    assert where.stdout.startswith(str(site))
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr


BASE = ("numpy", "numpy.libs", "onnxruntime")
"""Packages of a product's environment: the base install and one backend."""

THREE_LINES = """
import sys
from edgedeploy.runtime import load
model = load(sys.argv[1], trust=sys.argv[2])
import numpy
print(model.proof.cases, model(numpy.load(sys.argv[3])).shape)
print(*sys.modules)
"""


def test_a_bundle_answers_in_an_environment_of_the_base_install_and_one_backend(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "env"
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    here = Path(sysconfig.get_paths()["purelib"])
    for path in [here / name for name in BASE] + [
        *here.glob("numpy-*.dist-info"),
        *here.glob("onnxruntime-*.dist-info"),
    ]:
        (site / path.name).symlink_to(path)
    key, trust = product_kit.make_key(tmp_path)
    bundle = product_kit.write_signed(tmp_path / "bundle", product_kit.make_files(), key)
    np.save(tmp_path / "frame.npy", product_kit.frames(1)[0])

    def said(*argv: str | Path) -> list[str]:
        words = [str(home / "bin" / "python"), "-I", *map(str, argv)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert said("-c", "import importlib.util as u; print(u.find_spec('torch'), u.find_spec('typer'))") == ["None None"]
    answer, modules = said("-c", THREE_LINES, bundle, trust, "frame.npy")
    assert answer == "2 (24, 40)"
    assert not {"torch", "onnx", "pydantic", "typer", "optuna", "scipy"} & set(modules.split())
    for command in (["verify", bundle], ["activate", bundle, "--root", "root"], ["run", "root/current"]):
        said("-m", "edgedeploy.runtime", *command, "--trust", trust)


THIRD_PARTY = """\
from edgedeploy.interfaces.target import Target
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.testing import TargetContract


class TestTheirs(TargetContract):
    def make(self) -> Target:
        return OnnxRuntimeTarget()
"""


def test_the_contract_of_targets_runs_from_the_installed_wheel(wheel: Path, tmp_path: Path) -> None:
    """As in a third party's package: a test module of its own, nothing of this checkout's tests beside it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / "test_theirs.py").write_text(THIRD_PARTY, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    argv = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    argv += ["-k", "protocol or equal_bits", "test_theirs.py"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {line.rpartition("::")[2] for line in done.stdout.splitlines() if line.startswith("PASSED")}
    assert passed >= {"test_target_keeps_the_protocol", "test_equal_inputs_give_equal_bits[float32]"}


def test_the_contract_needs_pytest_and_nothing_heavy_to_be_collected(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = "import sys; import edgedeploy.testing; print(edgedeploy.__file__); print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path, env=environment
    )
    where, modules = done.stdout.splitlines()
    assert where.startswith(str(tmp_path / "site"))
    assert not {"torch", "onnx", "onnxruntime", "openvino", "optuna", "pydantic", "litert_torch"} & set(modules.split())
