"""Lab files: what is refused, at which line, and what is said to be done about it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.errors import SpecError
from edgedeploy.spec.lab import LabSpec, load_lab, parse_lab

LAB = """\
[lab]
name = "ward"
budget = "6 h"

[alarm]
command = ["mail", "-s", "nightly", "lab@example.org"]

[[boards]]
name = "cart"
kind = "ssh"
host = "cart.lab"
labgrid = "cart-1"

[[boards]]
name = "desk"
kind = "local"

[[entries]]
id = "seg"
bundle = "seg-3"
trust = "lab.pem.pub"
owner = "jane"
importance = 2.0
metrics = ["latency_p50_ns"]
boards = ["desk"]

[[entries]]
id = "flow"
study = "runs/flow"
rebuild = true
accuracy_margin = "0.5 px"

[measure]
queries = 64

[idle]
studies = [{ file = "cart.toml", out = "runs/cart", board = "cart" }]
"""


def lab(text: str = LAB) -> LabSpec:
    return parse_lab(text, Path("lab.toml"))[0]


def test_a_lab_says_its_entries_and_their_boards() -> None:
    spec = lab()
    assert spec.lab.budget == 6 * 3600 and spec.lab.out == "nights"
    assert spec.entry("seg").boards_of(spec.board_names) == ("desk",)
    assert spec.entry("flow").boards_of(spec.board_names) == ("cart", "desk")
    assert spec.board("cart").labgrid == "cart-1" and spec.measure.queries == 64
    assert spec.idle.studies[0].board == "cart"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            'owner = "jane"',
            'onwer = "jane"',
            "lab.toml:22: entries number 1, onwer: unknown key. Did you mean 'owner'?",
        ),
        (
            'boards = ["desk"]',
            'boards = ["dsek"]',
            "lab.toml:25: entries number 1, boards: the lab has no board 'dsek'",
        ),
        ('board = "cart" }', 'board = "carts" }', "the lab has no board 'carts'. Did you mean 'cart'?"),
        ('id = "flow"', 'id = "seg"', "lab.toml:28: entries number 2, id: 'seg' stands twice"),
        ('name = "desk"', 'name = "cart"', "lab.toml:15: boards number 2, name: 'cart' stands twice"),
        ('trust = "lab.pem.pub"\n', "", "`trust` goes with `bundle`"),
        ('bundle = "seg-3"\n', "", "exactly one of `bundle` and `study`"),
        ('study = "runs/flow"', 'bundle = "b"\ntrust = "t"', "`accuracy_margin` goes with `study`"),
        ('accuracy_margin = "0.5 px"', 'accuracy_margin = "-0.5 px"', "expected 0 or more"),
        ('["latency_p50_ns"]', '["latency_p5_ns"]', "no board measures 'latency_p5_ns'"),
        ('"0.5 px"', '"much"', "expected a number, or a quantity"),
        ('"6 h"', '"30 h"', "less than or equal to 86400"),
        ("importance = 2.0", "importance = 0", "greater than 0"),
        ("queries = 64", 'queries = 64\nscenarios = ["offline"]', "measure.scenarios: a night runs none"),
        (
            'kind = "local"',
            'kind = "local"\nmemory = "1 GB"',
            "boards number 2, memory: a night ends nothing for its memory",
        ),
        ('command = ["mail", "-s", "nightly", "lab@example.org"]', "command = []", "alarm.command"),
    ],
)
def test_a_slip_is_told_with_its_place(old: str, new: str, told: str) -> None:
    assert old in LAB
    with pytest.raises(SpecError) as caught:
        lab(LAB.replace(old, new, 1))
    assert told in str(caught.value)


def test_a_lab_without_entries_or_boards_is_refused() -> None:
    with pytest.raises(SpecError, match="entries: this key is required"):
        lab('[lab]\nname = "a"\n[[boards]]\nname = "desk"\nkind = "local"\n')
    with pytest.raises(SpecError, match="is required and missing"):
        lab('[lab]\nname = "a"\n')


def test_a_message_quotes_no_command_and_no_storage() -> None:
    for line in ('command = ["mail", 3, "SECRET"]', 'command = "SECRET"'):
        with pytest.raises(SpecError) as caught:
            lab(LAB.replace('command = ["mail", "-s", "nightly", "lab@example.org"]', line))
        assert "SECRET" not in str(caught.value)


def test_a_file_that_is_none_is_told_as_a_lab_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"lab file .*: there is no such file"):
        load_lab(tmp_path / "lab.toml")
    (tmp_path / "lab.toml").write_text("[lab")
    with pytest.raises(SpecError, match=r"lab file .*: not TOML"):
        load_lab(tmp_path / "lab.toml")
