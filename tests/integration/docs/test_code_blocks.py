"""Every code block of README and docs runs (see docs_kit.py for how a page says what is not the usual)."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import warm_cli
from docs_kit import REPO, RUN, SHOWN, Block, Page, edgedeploy_commands, read_page, run_block, smaller_study

from edgedeploy.boards.emulated.board import serve
from edgedeploy.cli.app import app
from edgedeploy.spec.study import StudySpec

PAGES = [
    read_page(path)
    for path in sorted([REPO / "README.md", REPO / "CONTRIBUTING.md", *REPO.glob("docs/**/*.md")])
    if not path.is_relative_to(REPO / "docs" / "extend")  # tests/unit/test_contributing.py and its like add that code
]
WITH_CODE = [page for page in PAGES if any(block.language in RUN and block.not_run is None for block in page.blocks)]
NOT_RUN = [(page, block) for page in PAGES for block in page.blocks if block.not_run is not None]


def name_of(page: Page) -> str:
    return page.name


@pytest.mark.beside
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_what_it_is(page: Page) -> None:
    unknown = [
        block.line for block in page.blocks if block.language not in (*RUN, *SHOWN) and "{" not in block.language
    ]
    assert unknown == []
    assert [block.line for block in page.blocks if block.not_run == ""] == []


@pytest.mark.beside
@pytest.mark.parametrize(("page", "block"), NOT_RUN, ids=[f"{page.name}:{block.line}" for page, block in NOT_RUN])
def test_commands_that_no_test_can_run_have_options_that_there_are(page: Page, block: Block) -> None:
    command = typer.main.get_command(app)
    for words in edgedeploy_commands(block.text) if block.language == "sh" else ():
        name, *rest = [word for word in words if word not in ("--verbose", "--quiet")]
        child: Any = command.commands[name]  # type: ignore[attr-defined]
        child.make_context(name, rest, resilient_parsing=False)


@pytest.fixture(scope="module")
def board_lines() -> Iterator[str]:
    """What stands in a study file in the place of ``host``: a server of this host."""
    with serve("embedded") as target:
        yield (
            f'host = "{target.host}"\nport = {target.port}\nuser = "{target.user}"\n'
            f'identity = "{target.identity}"\nknown_hosts = "{target.known_hosts}"'
        )


def environment_of(folder: Path) -> dict[str, str]:
    """The commands of this environment come first; edgedeploy is the one under test. Files of Python find torch loaded."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    a_file = f'case "$1" in *.py) exec {shlex.join(warm_cli.script())} "$@" ;; esac\n'
    for name, words, before in (
        ("edgedeploy", warm_cli.command(), ""),
        ("python", (sys.executable,), a_file),
        ("python3", (sys.executable,), a_file),
    ):
        (programs / name).write_text(f'#!/bin/sh\n{before}exec {shlex.join(words)} "$@"\n', encoding="utf-8")
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH", "")])),
        "OMP_NUM_THREADS": "1",  # pages run side by side
    }


@pytest.mark.beside
@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_the_blocks_of_a_page_run_from_top_to_bottom(page: Page, tmp_path: Path, board_lines: str) -> None:
    folder = tmp_path / "page" if page.folder is None else tmp_path / page.folder
    if page.folder is None:
        folder.mkdir()
    else:
        shutil.copytree(REPO / "docs" / "examples", tmp_path / "examples")  # an example may use its neighbour's files
        for study in folder.glob("*.toml"):
            study.write_text(smaller_study(study.read_text("utf-8"), board_lines), encoding="utf-8")
    environment = environment_of(folder)
    for block in page.blocks:
        if block.not_run is not None:
            continue
        if block.file is not None:
            text = smaller_study(block.text, board_lines) if block.file.endswith(".toml") else block.text
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(text, encoding="utf-8")
        elif block.language == "toml":
            check_part(block)
        elif block.language in ("sh", "python"):
            run_block(block, folder, environment)


def check_part(block: Block) -> None:
    """A part of a study file: with what it lacks from the demo's, it is one."""
    part = tomllib.loads(block.text)
    whole = tomllib.loads((REPO / "edgedeploy" / "study" / "recipes" / "demo.toml").read_text(encoding="utf-8"))
    merged = {**whole, **part}
    if "study" in part:
        merged["study"] = {**whole["study"], **part["study"]}
    StudySpec.model_validate(merged)
