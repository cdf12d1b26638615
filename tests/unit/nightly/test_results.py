"""What a night leaves: its file, what CI reads, and what a terminal says last."""

from __future__ import annotations

import json
from pathlib import Path

import made_up_night as made_up
import pytest
from markdown_it import MarkdownIt

from edgedeploy.nightly.results import Earlier, write_results
from edgedeploy.nightly.results.kept import MOST_NIGHTS, night_path, read_night
from edgedeploy.nightly.results.words import closing_lines, exit_code, headline
from edgedeploy.records.night import Acceptance, AlarmTold, Night

HOSTILE = "<img src=x>|[x](http://127.0.0.1)\n# heading `a` @all \x00\x1b[31m \ud800"


def test_a_night_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_results(made_up.every_outcome(), (), tmp_path)
    assert read_night(written.night_json) == made_up.every_outcome()
    assert written.night_json.name == "night-2026-11-29.json"
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_of_an_older_release_lacks_the_newer_fields(tmp_path: Path) -> None:
    data = made_up.every_outcome().as_json()
    for name in ("accepted", "told"):
        del data[name]
    for one in data["verdicts"]:
        del one["state"]
    night_path(tmp_path, made_up.TONIGHT).write_text(json.dumps(data))
    assert {one.state for one in read_night(night_path(tmp_path, made_up.TONIGHT)).verdicts} == {None}


DAMAGE = {
    "empty": b"",
    "torn": b'{"format": "edgedeploy-night", "ver',
    "another form": b'{"format": "something-else", "version": 1}',
    "another version": b'{"format": "edgedeploy-night", "version": 99}',
    "deep": b"[" * 100_000,
    "not a number": json.dumps({**made_up.night("2026-11-02").as_json(), "budget_s": 1})
    .replace("0.004", "NaN")
    .encode(),
    "of another night": json.dumps(made_up.night("2026-11-03").as_json()).encode(),
    "half of a character": json.dumps({**made_up.night("2026-11-02").as_json(), "lab": "\ud800"}).encode(),
}


@pytest.mark.fault(47)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_of_another_night_is_named_and_ends_nothing(damage: str, tmp_path: Path) -> None:
    for date in ("2026-11-01", "2026-11-03"):
        write_results(made_up.night(date), (), tmp_path)
    (tmp_path / "night-2026-11-02.json").write_bytes(DAMAGE[damage])
    written = write_results(made_up.night(), Earlier(tmp_path, made_up.TONIGHT), tmp_path)
    (named,) = written.damaged
    assert named.startswith("night-2026-11-02.json: ")
    for path in (written.lab, written.trend, written.summary):
        assert "2026-11-02" in path.read_text("utf-8").replace("\\", ""), path.name
    assert '["2026-11-01", "2026-11-03", "2026-11-29"]' in written.trend.read_text("utf-8")
    assert any("night-2026-11-02.json" in line for line in written.lines())


def test_what_is_no_file_of_a_night_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "night-2026-11-05.json").mkdir()
    (tmp_path / "night-2026-13-5.json").write_text("{}")
    (tmp_path / "notes.txt").write_text("mine")
    earlier = Earlier(tmp_path, made_up.TONIGHT)
    assert list(earlier) == [] and len(earlier.damaged) == 1
    assert list(Earlier(tmp_path / "none-yet", made_up.TONIGHT)) == []


def test_earlier_nights_are_the_newest_before_this_one(tmp_path: Path) -> None:
    for date in made_up.dates(MOST_NIGHTS + 5):
        night_path(tmp_path, date).write_text(json.dumps(made_up.night(date, verdicts=()).as_json()))
    found = [night.night for night in Earlier(tmp_path, made_up.TONIGHT)]
    assert found == made_up.dates(MOST_NIGHTS + 1)[:-1]


@pytest.mark.parametrize("name", ["../night", "2026-11-29/../../x", "", "29.11.2026"])
def test_a_night_that_is_no_date_names_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named by its date"):
        write_results(made_up.night(name), (), tmp_path)


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ((), 0),
        (("ok", "young"), 0),
        (("not_run", "ok"), 4),
        (("infrastructure", "not_run"), 3),
        (("board", "ok"), 3),
        (("artifact", "board"), 1),
        (("regression", "not_run", "board"), 1),
    ],
)
def test_the_exit_code_is_that_of_the_worst(outcomes: tuple[str, ...], code: int) -> None:
    verdicts = tuple(made_up.verdict(f"entry-{place}", outcome=one) for place, one in enumerate(outcomes))
    assert exit_code(made_up.night(verdicts=verdicts)) == code


def test_a_terminal_reads_the_answer_first() -> None:
    good = made_up.night(verdicts=(made_up.verdict(), made_up.verdict("lung", outcome="not_run")))
    words = "edgedeploy nightly, imaging, 2026-11-29: no regression in the 1 that were judged (1 not run, 1 as before)"
    assert headline(good) == words
    assert closing_lines(good, [Path("/srv/lab.html")]) == [words, "/srv/lab.html"]
    lines = closing_lines(made_up.every_outcome(), [])
    assert lines[0].endswith(
        "2 regressions, 1 changed artifact, 2 boards that changed or failed, "
        "1 failure of this host or the lab, 1 not run, 1 as before, 1 too young to judge"
    )
    assert [line.partition(":")[0] for line in lines[1:7]] == ["regression"] * 2 + ["artifact"] + ["board"] * 2 + [
        "infrastructure"
    ]
    assert "imaging@example.org" in lines[1]
    assert lines[7] == "Where what is shipped changed on purpose: edgedeploy nightly accept LAB.toml nerve --why TEXT"
    assert lines[8] == "No message was sent: the lab file has no [alarm] command"


def test_a_terminal_is_moved_by_no_board() -> None:
    odd = made_up.verdict("lung", outcome="board", reason="\x1b[2Jgone\r\nregression: none\x07")
    assert all(line.isprintable() for line in closing_lines(made_up.night(verdicts=(odd,)), []))


def test_nothing_is_called_good_that_was_not_judged() -> None:
    left = made_up.night(verdicts=(made_up.verdict(outcome="not_run"), made_up.verdict("x", outcome="young")))
    assert "nothing was judged" in headline(left)
    assert "nothing was due" in headline(made_up.night(verdicts=()))


def hostile_night() -> Night:
    odd = made_up.verdict(
        HOSTILE, HOSTILE, outcome="regression", reason=HOSTILE, owner=HOSTILE, series=(made_up.slower(),)
    )
    worse = made_up.verdict("b", outcome="board", reason=HOSTILE, board_changes=(HOSTILE,), error=HOSTILE)
    return made_up.night(
        lab=HOSTILE,
        verdicts=(odd, worse),
        boards=(made_up.health(HOSTILE, quarantined=HOSTILE, provenance=HOSTILE),),
        told=AlarmTold("failed", HOSTILE),
        accepted=(Acceptance(HOSTILE, HOSTILE),),
        tools={HOSTILE: HOSTILE},
    )


@pytest.mark.fault(38)
def test_the_summary_shows_any_text_as_text(tmp_path: Path) -> None:
    written = write_results(
        made_up.night(verdicts=hostile_night().verdicts, boards=hostile_night().boards), (), tmp_path
    )
    text = written.summary.read_text("utf-8")
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<img" not in html and "<a " not in html and html.count("<h1>") == 1
    assert "@all" not in text


def test_a_summary_of_two_thousand_regressions_is_short(tmp_path: Path) -> None:
    verdicts = tuple(
        made_up.verdict(f"entry-{n}" + "x" * 40, outcome="regression", reason="r" * 120, series=(made_up.slower(),))
        for n in range(2_000)
    )
    written = write_results(made_up.night(verdicts=verdicts), (), tmp_path)
    assert written.summary.stat().st_size < 200_000
    assert written.junit.stat().st_size < 6e6
    assert "and 1800 more" in written.summary.read_text()


def test_a_history_that_has_tonight_counts_it_once(tmp_path: Path) -> None:
    nights = [made_up.night("2026-11-28"), made_up.night(), made_up.night("2026-11-30")]
    written = write_results(made_up.night(), nights, tmp_path)
    assert '["2026-11-28", "2026-11-29"]' in written.trend.read_text("utf-8")


def test_what_to_do_with_another_release_is_said_once() -> None:
    changed = made_up.verdict(outcome="artifact", artifact_changes=("it is release 2, accepted: release 1",))
    night = made_up.night(verdicts=(changed, made_up.verdict("lung")))
    said = "Where what is shipped changed on purpose: edgedeploy nightly accept LAB.toml vessels --why TEXT"
    assert closing_lines(night, []).count(said) == 1
    damaged = made_up.verdict(outcome="artifact", artifact_changes=("gone",), error="BundleError")
    assert not any("accept" in line for line in closing_lines(made_up.night(verdicts=(damaged,)), []))
