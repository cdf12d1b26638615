"""Options and places shared by all tests."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processor: with several threads each they only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parent.parent
BESIDE = {"unit", "contract"}

collect_ignore = ["thirdparty"]
"""A package of its own: it is tested where it is installed, by integration/targets/test_third_party.py."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hardware", action="store_true", help="run the tests that need a real board")
    parser.addoption("--long", action="store_true", help="run the tests that take many minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if BESIDE & set(item.path.relative_to(REPO).parts):
            item.add_marker(pytest.mark.beside)
        if "hardware" in item.keywords and not config.getoption("--hardware"):
            item.add_marker(pytest.mark.skip(reason="needs a real board: give --hardware"))
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes: give --long"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models, which is not part of the project."""
    folder = Path(os.environ.get("EDGEDEPLOY_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set EDGEDEPLOY_SHARED")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return program


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what this user's boards are remembered by."""
    monkeypatch.setenv("EDGEDEPLOY_STATE", str(tmp_path_factory.mktemp("state")))
