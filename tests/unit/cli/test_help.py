"""Every command says what it does with an example that its own options take, and shells complete words."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement
from packaging.version import Version
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.cli.options import complete_board, complete_colour, complete_precision, complete_target


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


MEANT = {("boards", "look"), ("nightly", "run")}
"""Commands of groups that are meant when none is named."""

COMMANDS = dict(commands(typer.main.get_command(app)))


def example_of(path: tuple[str, ...]) -> list[str]:
    done = CliRunner().invoke(app, [*path, "--help"], env={"COLUMNS": "80"}, catch_exceptions=False)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("Example: ")]
    assert len(lines) == 1, done.stdout
    words = shlex.split(lines[0].removeprefix("Example: "))
    return words[: words.index(">")] if ">" in words else words


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_has_an_example_that_its_options_take(path: tuple[str, ...]) -> None:
    program, *words = example_of(path)
    assert program == "edgedeploy"
    shown = path[:1] if path in MEANT else path
    assert tuple(words[: len(shown)]) == shown
    COMMANDS[path].make_context(path[-1], words[len(shown) :])


def test_the_first_sentence_of_a_command_stands_in_the_list() -> None:
    listed = CliRunner().invoke(app, ["--help"], catch_exceptions=False).stdout
    assert "Example" not in listed
    for path in COMMANDS:
        assert f"  {path[0]} " in listed


SCREEN_LINES = 60


def test_what_a_command_does_fits_on_a_screen() -> None:
    """With its options: one line for each, whose kind has a name, reads better than a page of them."""
    sizes = {" ".join(path): len(inspect.getsourcelines(command.callback)[0]) for path, command in COMMANDS.items()}
    assert {name: lines for name, lines in sizes.items() if lines > SCREEN_LINES} == {}


GROUPS = [(), *sorted({path[:-1] for path in COMMANDS if len(path) > 1})]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: " ".join(group) or "edgedeploy")
def test_what_a_list_says_of_a_command_is_whole_at_80_columns(group: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(app, [*group, "--help"], env={"COLUMNS": "80"}, catch_exceptions=False).stdout
    lines = shown.partition("Commands:\n")[2].splitlines()
    within = [path[-1] for path in COMMANDS if path[:-1] == group] + [path[0] for path in GROUPS[1:] if not group]
    assert sorted(line.split()[0] for line in lines) == sorted(within), "one line for each"
    assert [line for line in lines if not line.endswith(".") or line.endswith("..") or len(line) > 80] == []


def test_an_option_is_of_one_kind_in_all_commands() -> None:
    """A word that is a flag here and takes a value there is two words."""
    kinds: dict[str, dict[str, list[str]]] = {}
    for path, command in COMMANDS.items():
        for option in (item for item in command.params if item.param_type_name == "option"):
            kind = "flag" if option.is_flag else option.type.name
            for word in option.opts:
                kinds.setdefault(word, {}).setdefault(kind, []).append(" ".join(path))
    assert {word: found for word, found in kinds.items() if len(found) > 1} == {}


def completed(line: str) -> list[str]:
    words = line.split(" ")
    environment = {
        **os.environ,
        "_EDGEDEPLOY_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    argv = [sys.executable, "-m", "edgedeploy"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True, timeout=300)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edgedeploy qua", {"quantize"}),
        ("edgedeploy --verbose mea", {"measure"}),
        ("edgedeploy quantize --tar", {"--target"}),
        ("edgedeploy quantize m.onnx --target op", {"openvino"}),
        ("edgedeploy boards cr", {"create"}),
        ("edgedeploy boards study.toml --cat", {"--catalog"}),
        ("edgedeploy recipe py", {"python"}),
    ],
)
def test_a_shell_completes(line: str, expected: set[str]) -> None:
    assert set(completed(line)) == expected


def test_words_of_options_are_completed() -> None:
    assert complete_board("emulated:arm") == ["emulated:arm64", "emulated:arm64-system"]
    assert complete_precision("int8") == ["int8", "int8-dynamic", "int8-weights"]
    assert complete_colour("b") == ["bgr"]
    assert complete_target("open") == ["openvino"]


def test_completion_can_be_installed() -> None:
    done = CliRunner().invoke(app, ["--help"], catch_exceptions=False)
    assert "--install-completion" in done.stdout
    assert "--show-completion" in done.stdout


FITTING = Version(version("typer")) >= Version("0.21") or Version(version("click")) < Version("8.5")


@pytest.mark.skipif(not FITTING, reason="typer below 0.21 needs click below 8.5, as the extra federated asks for")
@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_help_of_a_command_says_what_its_arguments_are(path: tuple[str, ...]) -> None:
    shown = " ".join(CliRunner().invoke(app, [*path, "--help"], catch_exceptions=False).stdout.split())
    for argument in COMMANDS[path].params:
        if argument.param_type_name == "argument":
            told = getattr(argument, "help", None)
            assert told, argument.name
            assert " ".join(told.split()) in shown


def test_flower_brings_no_release_that_takes_the_help_of_arguments_away() -> None:
    """The typer that it holds is below 0.21."""
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    asked = [Requirement(text) for text in project["optional-dependencies"]["federated"]]
    click = next((one for one in asked if one.name == "click"), None)
    assert click is not None and "8.5.1" not in click.specifier
