"""Board descriptions: every fact has a source, every reader exists, and a wrong file is named with its key."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

from edgedeploy.boards.catalog import BoardDescription, load_board, load_catalog, parse_board
from edgedeploy.cli.app import app
from edgedeploy.errors import SpecError
from edgedeploy.runtime.sensors.power import TOTAL_RAILS
from edgedeploy.runtime.sensors.tegrastats import parse

REPO = Path(__file__).resolve().parents[3]
CATALOG = {board.id: board for board in load_catalog()}

GOOD = """\
name = "A board"

[sources]
manual = "its manual"

[hardware]
text = "one core"
units = ["cpu"]
source = "manual"

[[sensors]]
what = "temperature"
where = "/sys/class/thermal/thermal_zone0/temp"
unit = "millidegree Celsius"
reader = "sysfs"
source = "manual"

[[runtimes]]
target = "onnxruntime"
units = ["cpu"]
source = "manual"
"""


def test_the_boards_that_were_promised() -> None:
    assert set(CATALOG) >= {
        "intel-cart",
        "jetson-nano",
        "jetson-xavier-nx",
        "jetson-orin-nano",
        "jetson-orin-nx",
        "jetson-agx-orin",
        "jetson-thor",
        "imx8m-plus",
        "raspberry-pi-5",
    }


@pytest.mark.parametrize("board", CATALOG.values(), ids=lambda board: board.id)
class TestEveryBoard:
    def test_readers_are_modules_of_the_agent(self, board: BoardDescription) -> None:
        for sensor in board.sensors:
            if sensor.reader is not None:
                importlib.import_module(f"edgedeploy.runtime.sensors.{sensor.reader}")

    def test_the_agent_takes_the_same_rails_for_the_total(self, board: BoardDescription) -> None:
        if board.total_rails:
            assert board.total_rails in TOTAL_RAILS

    def test_runtimes_use_units_that_the_board_has(self, board: BoardDescription) -> None:
        for runtime in board.runtimes:
            assert set(runtime.units) <= set(board.hardware.units)

    def test_modes_have_one_value_each(self, board: BoardDescription) -> None:
        values = [(mode.key, mode.value) for mode in board.power_modes]
        assert len(values) == len(set(values))

    def test_sources_in_the_project_exist(self, board: BoardDescription) -> None:
        for source in board.sources.values():
            if source.startswith(("tests/", "edgedeploy/")):
                assert (REPO / source.partition(":")[0]).is_file(), source

    def test_every_fact_is_shown_with_its_source(self, board: BoardDescription) -> None:
        lines = board.lines()
        assert len(lines) == len(board.facts())
        assert {source for _, _, source in lines} == set(board.sources)


@pytest.mark.parametrize(
    ("board", "recorded"),
    [
        ("jetson-nano", "nano_jp4.txt"),
        ("jetson-xavier-nx", "xavier_nx_jp4.txt"),
        ("jetson-orin-nano", "orin_nano_l4t36.txt"),
        ("jetson-orin-nx", "orin_nx_l4t36_nosudo.txt"),
        ("jetson-agx-orin", "agx_orin_l4t36.txt"),
    ],
)
def test_recorded_lines_have_the_rails_that_are_described(board: str, recorded: str) -> None:
    line = (REPO / "tests" / "data" / "tegrastats" / recorded).read_text(encoding="utf-8").splitlines()[0]
    printed = {rail.name for rail in parse(line).rails}
    assert printed <= {rail.name for rail in CATALOG[board].power_rails}
    assert set(CATALOG[board].total_rails) <= printed


def test_a_new_board_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "my-board.toml"
    path.write_text(GOOD, encoding="utf-8")
    board = load_board(path)
    assert (board.id, board.name, board.total_rails) == ("my-board", "A board", ())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('reader = "sysfs"', 'raeder = "sysfs"', ["sensors number 1, raeder", "unknown key", "Did you mean 'reader'?"]),
        ('reader = "sysfs"', 'reader = "sysf"', ["sensors number 1, reader", "'sysf'"]),
        ('what = "temperature"\n', "", ["sensors number 1, what", "required"]),
        ('target = "onnxruntime"', 'target = "onxruntime"', ["runtimes number 1, target"]),
        (
            'units = ["cpu"]\nsource = "manual"\n\n[[sensors',
            'units = []\nsource = "manual"\n\n[[sensors',
            ["hardware.units"],
        ),
        ('manual = "its manual"', 'book = "a book"', ["source 'manual' is not in [sources]"]),
        ('manual = "its manual"', 'manual = "its manual"\nbook = "a book"', ["source 'book' supports no fact"]),
        ('name = "A board"', 'id = "x"\nname = "A board"', ["id", "unknown key"]),
        ('name = "A board"', "name = = 1", ["not TOML"]),
    ],
)
def test_errors_name_file_and_key(old: str, new: str, words: list[str]) -> None:
    assert old in GOOD
    with pytest.raises(SpecError) as caught:
        parse_board(GOOD.replace(old, new, 1), Path("my-board.toml"))
    for word in ("my-board.toml", *words):
        assert word in str(caught.value), str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_board(tmp_path / "absent.toml")


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command_shows_the_catalog(as_json: bool) -> None:
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["boards", "--catalog", *(["--json"] if as_json else [])])
    assert done.exit_code == 0, done.output
    if as_json:
        assert {board["id"] for board in json.loads(done.stdout)} == set(CATALOG)
    else:
        assert "POM_5V_IN: the whole module (total)" in done.output
