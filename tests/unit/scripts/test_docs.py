"""The pages hold together: links lead somewhere, and what is said to be public is what the code says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import edgedeploy
from edgedeploy import errors
from edgedeploy.interfaces.moved import MOVED

REPO = Path(__file__).resolve().parents[3]
PAGES = sorted([*REPO.glob("*.md"), *REPO.glob("docs/**/*.md")])
MOVED_NAMES = {module.partition(".")[2] for module in MOVED}
STABILITY = REPO / "docs" / "stability.md"


def name_of(page: Path) -> str:
    return str(page.relative_to(REPO))


def words_of(page: Path) -> set[str]:
    """What stands between backticks."""
    return set(re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_to_one(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    assert [link for link in links if link and not (page.parent / link).exists()] == []


def test_the_pages_are_found_and_one_of_them_has_links() -> None:
    assert {"README.md", "CHANGELOG.md", "docs/stability.md", "docs/reference/targets.md"} <= set(map(name_of, PAGES))
    assert "](docs/stability.md)" in (REPO / "README.md").read_text(encoding="utf-8")


def test_every_public_name_stands_on_the_page_about_stability() -> None:
    classes = {name for name, value in vars(errors).items() if isinstance(value, type)}  # told there as the errors
    assert set(edgedeploy.__all__) - classes - {"__version__"} - words_of(STABILITY) == set()


DOCUMENTED = sorted(
    [
        REPO / "README.md",
        *REPO.glob("docs/**/*.md"),
        *(path for path in REPO.glob("docs/examples/**/*.*") if path.parent.name != "__pycache__"),
        *REPO.glob("edgedeploy/study/recipes/*.*"),
        *REPO.glob("tests/thirdparty/**/*.py"),
    ]
)
IMPORTED = re.compile(r"^\s*(?:>>> )?(?:from|import)\s+(edgedeploy\b[\w.]*)", re.MULTILINE)
PUBLIC_MODULES = {
    "edgedeploy",
    "edgedeploy.errors",
    "edgedeploy.testing",
    *(f"edgedeploy.runtime{part}" for part in ("", ".dicom", ".faults", ".pipeline.run", ".pipeline.steps")),
    *(f"edgedeploy.runtime.pipeline.{part}" for part in ("codecs", "coded_check")),
    *(f"edgedeploy.federated.{part}" for part in ("calibration", "flower", "grid", "histograms")),
    *(f"edgedeploy.compress.codec.{part}" for part in ("coded", "container", "delta")),
}
DOTTED = re.compile(r"\bedgedeploy\.(\w+)")
NO_ATTRIBUTES = {"targets", "runtime", "federated", "compress", *MOVED_NAMES}
"""``edgedeploy.targets`` is the group of entry points too, ``edgedeploy.runtime`` all that there is on a board; modules that
have moved are told of as deprecated. ``federated`` and ``compress`` have the experimental modules among those above."""


OF_THE_INSIDE = REPO / "docs" / "extend" / "scenario.md"
"""Code that becomes a part of the package, which may import any other part."""


@pytest.mark.parametrize("page", [page for page in DOCUMENTED if page != OF_THE_INSIDE], ids=name_of)
def test_readers_are_shown_nothing_deeper_than_the_public_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(IMPORTED.findall(text)) <= PUBLIC_MODULES
    public = {*edgedeploy.__all__, "__all__", "errors", "testing"}
    assert set(DOTTED.findall(text)) - public - NO_ATTRIBUTES == set()


def test_a_whole_package_of_a_target_is_among_them() -> None:
    package = REPO / "tests" / "thirdparty"
    ours = {path for path in DOCUMENTED if path.is_relative_to(package)}
    assert {package / "edgedeploy_capsule" / name for name in ("__init__.py", "session.py")} <= ours


def test_deeper_imports_are_seen() -> None:
    code = "x\n    from edgedeploy.interfaces.task import Task\nimport edgedeploy\nimport edgedeploy_capsule"
    assert IMPORTED.findall(code) == ["edgedeploy.interfaces.task", "edgedeploy"]
    assert DOTTED.findall("`edgedeploy.interfaces.task.Task`, edgedeploy boards") == ["interfaces"]


def test_every_exit_code_stands_in_the_table() -> None:
    tree = [value for value in vars(errors).values() if isinstance(value, type) and hasattr(value, "exit_code")]
    table = set(map(int, re.findall(r"^\| (\d) \|", STABILITY.read_text(encoding="utf-8"), flags=re.MULTILINE)))
    assert {0, *(error.exit_code for error in tree)} == table


def test_entry_points_and_extras_are_named() -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {"board-*" if extra.startswith("board-") else extra for extra in project["optional-dependencies"]}
    assert (set(project["entry-points"]) | extras - {"dev", "signing-peer"}) - words_of(STABILITY) == set()
