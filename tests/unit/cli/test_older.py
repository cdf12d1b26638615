"""Older ways to write a command mean what they meant, and say the new one."""

from __future__ import annotations

from typing import Any

import pytest
import typer

from edgedeploy.cli.app import app

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def read(line: str, capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """What the command would be called with, and what standard error was told."""
    name, *words = line.split()
    found = COMMANDS[name].make_context(name, words).params
    return found, capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "pick", "variant", "said"),
    [
        ("bundle runs --pick pick --out b", True, None, "`bundle --pick pick` is deprecated: write `bundle --pick`"),
        ("bundle --pick 3f runs --out b", False, "3f", "write `bundle --variant 3f`"),
        ("audit runs --pick=3fa9", False, "3fa9", "`audit --pick 3fa9` is deprecated: write `audit --variant 3fa9`"),
        ("audit --out pick runs --pick pick", True, None, "write `audit --pick`"),
        ("export runs --pick 3fa9 --out b", False, "3fa9", "write `export --variant 3fa9`"),
        ("export --pick pick --out b", True, None, ""),
        ("export runs --pick --out b", True, None, ""),
        ("bundle runs --variant 3fa9 --out b", False, "3fa9", ""),
        ("bundle --pick runs --out b", True, None, ""),
    ],
)
def test_a_pick_with_a_value_is_a_variant(
    line: str, pick: bool, variant: str | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found, told = read(line, capsys)
    assert (found["pick"], found["variant"]) == (pick, variant)
    assert said in told if said else told == ""
    assert str(found["folder"]) == ("pick" if line.startswith("export --pick pick") else "runs")


@pytest.mark.parametrize("line", ["report runs --to a.html", "report --to=a.html runs", "report runs --out a.html"])
def test_a_report_goes_to_a_file_by_out(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    found, told = read(line, capsys)
    assert (str(found["folder"]), str(found["to"])) == ("runs", "a.html")
    assert told.count("write `report --out a.html`") == ("--to" in line)
