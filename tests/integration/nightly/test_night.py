"""A night from the command line: real signed bundles on this host as a board, and what a user gets wrong."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from board_kit import squares_study
from fault_kit import wait_for
from lab_kit import entry, local, write_bundle, write_lab
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.errors import EdgeDeployError
from edgedeploy.nightly.idle import Idle
from edgedeploy.spec.lab import IdleStudy
from edgedeploy.study.store import Store

NIGHT = ["--night", "2026-11-29"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle and its key."""
    folder = tmp_path_factory.mktemp("bundles")
    write_bundle(folder, "thyroid-1")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEDEPLOY_STATE", str(tmp_path / "state"))
    write_lab(tmp_path, local(tmp_path), [entry("thyroid", "thyroid-1", owner="jane")])
    yield tmp_path


def called(*words: str) -> tuple[int, str]:
    """Exit code and standard output, in this process."""
    try:
        found = CliRunner().invoke(app, ["nightly", *words], catch_exceptions=False)
    except EdgeDeployError as exc:
        return exc.exit_code, str(exc)
    return found.exit_code, found.stdout


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_night_is_foretold_measured_and_not_measured_again(place: Path) -> None:
    before = everything(place)
    code, told = called("lab.toml", "--dry-run", *NIGHT, "--json")
    foretold = json.loads(told)
    assert code == 0 and everything(place) == before, "a dry run writes nothing"
    assert [(turn["entry"], turn["board"], turn["takes_s"]) for turn in foretold["turns"]] == [
        ("thyroid", "desk", 240.0)
    ]

    code, told = called("lab.toml", *NIGHT, "--json")
    night = json.loads(told)
    (verdict,) = night["verdicts"]
    assert code == 0 and verdict["outcome"] == "young" and verdict["owner"] == "jane", told
    assert not verdict["golden"]["changed"] and {item["metric"] for item in verdict["series"]} >= {"latency_p50_ns"}
    assert night["boards"][0]["answered"] and night["boards"][0]["busy_s"] > 0

    before = everything(place / "nights")
    code, told = called("lab.toml", "--dry-run", *NIGHT, "--json")
    assert json.loads(told)["turns"] == [] and json.loads(told)["done"] == 2
    assert everything(place / "nights") == before
    code, told = called("lab.toml", *NIGHT, "--json")
    assert code == 0 and json.loads(told)["verdicts"] == night["verdicts"]
    tomorrow = json.loads(called("lab.toml", "--dry-run", "--night", "2026-11-30", "--json")[1])
    assert 0 < tomorrow["turns"][0]["takes_s"] < 240.0, "it has learned how long that takes"

    write_bundle(place, "thyroid-1", release=2)
    code, told = called("accept", "lab.toml", "thyroid", "--why", "release 2, agreed with the clinic", "--json")
    accepted = json.loads(told)
    assert code == 0 and (accepted["number"], accepted["why"]) == (2, "release 2, agreed with the clinic")
    assert accepted["who"] and accepted["at_utc"].endswith("Z")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"thyroid-1": "thyroid-9"}, "there is no "),
        ({"key.pem.pub": "other.pub"}, "untrusted: it was signed by the key"),
        ({'owner = "jane"': 'boards = ["dsek"]'}, "the lab has no board 'dsek'. Did you mean 'desk'?"),
        ({"[lab]": "[lba]"}, "unknown key"),
    ],
)
def test_what_a_user_gets_wrong_is_one_line_before_anything_runs(
    place: Path, change: dict[str, str], told: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("other")
    write_bundle(other, "unused")
    shutil.copy(other / "key.pem.pub", place / "other.pub")
    path = place / "lab.toml"
    text = path.read_text()
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    code, found = called("lab.toml", "--dry-run")
    assert code == 2 and told in found and "\n" not in found.strip(), found
    assert not (place / "nights").exists()


def test_a_bundle_of_another_maker_is_an_artifact_that_changed(place: Path) -> None:
    """In the night itself a broken entry costs its own jobs only; no board is asked for it."""
    other = place / "theirs"
    other.mkdir()
    write_bundle(other, "unused")
    shutil.copy(other / "key.pem.pub", place / "key.pem.pub")
    code, told = called("lab.toml", *NIGHT, "--json")
    (verdict,) = json.loads(told)["verdicts"]
    assert code == 1 and verdict["outcome"] == "artifact" and verdict["error"] == "BundleError"


@pytest.mark.parametrize("lost", ["record", "folder"])
def test_what_is_damaged_or_gone_is_accepted_anew_and_counts_on(place: Path, lost: str) -> None:
    def accepted(why: str) -> dict[str, Any]:
        code, told = called("accept", "lab.toml", "thyroid", "--why", why, "--json")
        assert code == 0, told
        found: dict[str, Any] = json.loads(told)
        return found

    first = accepted("the first")
    frozen = next(place.rglob("accepted.json"))
    if lost == "record":
        frozen.write_bytes(b"{")
    else:
        shutil.rmtree(frozen.parent.parent)
    again = accepted("again")
    assert (again["number"], again["was"], again["why"]) == (2, first["now"], "again")
    assert (frozen.parent.parent / "2" / "accepted.json").is_file()


@pytest.mark.parametrize("left", ["notes.txt", "lab.json"])
def test_a_folder_of_somebody_else_is_left_alone(place: Path, left: str) -> None:
    out = place / "nights"
    out.mkdir()
    marker = {"format": "edgedeploy-lab", "version": 1, "name": "theatre"}
    (out / left).write_text(json.dumps(marker))
    code, told = called("lab.toml", *NIGHT)
    assert code == 2 and ("belongs to the lab 'theatre'" if left == "lab.json" else "it holds something else") in told
    assert [path.name for path in out.iterdir()] == [left]


def test_a_link_that_leads_nowhere_is_no_folder_of_a_lab(place: Path) -> None:
    (place / "nights").symlink_to(place / "unmounted")
    code, told = called("lab.toml", *NIGHT)
    assert code == 2 and "it holds something else" in told and not (place / "unmounted").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("accept", "lab.toml", "thyriod", "--why", "x"), "no entry of that id. Did you mean 'thyroid'?"),
        (("accept", "lab.toml", "thyroid", "--why", " "), "expected one line of 1 to 500 characters"),
        (("lab.toml", "--night", "29.11.2026"), "it is no date"),
        (("lab.toml", "--night", "2026-02-31"), "it is no date"),
        (("missing.toml",), "there is no such file"),
    ],
)
def test_words_that_make_no_sense_are_told(place: Path, words: tuple[str, ...], told: str) -> None:
    code, found = called(*words)
    assert code == 2 and told in found
    assert not (place / "nights").exists()


# -- studies of idle boards


def idle(folder: Path, said: list[str], script: str) -> Idle:
    """STAND-IN for a search: the given Python."""

    interruptible = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"

    class Scripted(Idle):
        def _popen(self, argv: Any, log: Any) -> Any:
            return super()._popen([argv[0], "-c", interruptible + script], log)

    return Scripted([IdleStudy(file="s.toml", out="s", board="cart")], folder, folder, said.append)


def test_a_study_gives_way_and_is_taken_up_again(tmp_path: Path) -> None:
    said: list[str] = []
    script = "import time\nopen('begun', 'a').write('x')\ntime.sleep(60)"
    with idle(tmp_path, said, script) as studies:
        studies.look(lambda board: False)
        assert not studies.boards
        for count in (1, 2):
            studies.look(lambda board: True)
            wait_for(
                "the study", lambda n=count: (tmp_path / "begun").exists() and (tmp_path / "begun").stat().st_size == n
            )
            studies.look(lambda board: False)
            assert not studies.boards
    assert [line.partition(": ")[2] or line for line in said][1::2] == ["s.toml gives way"] * 2


def test_a_study_that_is_over_is_not_begun_again(tmp_path: Path) -> None:
    said: list[str] = []
    with idle(tmp_path, said, "raise SystemExit(1)") as studies:
        studies.rest(lambda: 60.0)
    assert said[-1] == "board cart: s.toml is over"


def test_a_study_ends_with_the_process_that_began_it(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom edgedeploy.nightly import idle\n"
        "from edgedeploy.spec.lab import IdleStudy\nhere = Path(sys.argv[1])\n"
        "idle._CHILD = idle._CHILD.replace('from edgedeploy.__main__ import main', 'import time')"
        ".replace('main()', 'open(\"pid\", \"w\").write(str(os.getpid())); time.sleep(60)')\n"
        "s = idle.Idle([IdleStudy(file='s', out='s', board='b')], here, here, print)\n"
        "s.look(lambda board: True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    wait_for("the study", lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def gone() -> bool:
        try:
            return Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
        except OSError:
            return True

    wait_for("the study's end", gone)


def test_an_idle_board_goes_on_with_a_real_study(tmp_path: Path) -> None:
    """It is interrupted after its first variant, and taken up until it is over."""
    squares_study(
        tmp_path,
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("count = 32", "count = 8"),
        ("queries = 64", "queries = 8"),
        ("trials = 6", "trials = 2"),
    )
    said: list[str] = []
    study = IdleStudy(file="study.toml", out="runs", board="here")
    measured = tmp_path / "runs" / "measurements"
    with Idle([study], tmp_path, tmp_path, said.append) as studies:
        studies.look(lambda board: True)
        wait_for("a first variant", lambda: list(measured.glob("*.json")) or not _alive(studies), 240.0)
        studies.look(lambda board: False)
        kept = everything(measured)
        assert kept, (tmp_path / "idle.log").read_text()
        ends_s = time.monotonic() + 240.0
        studies.rest(lambda: ends_s - time.monotonic())
    assert said[-1] == "board here: study.toml is over", (tmp_path / "idle.log").read_text()
    assert len(list(Store(tmp_path / "runs").measurements())) >= 2
    assert all(Path(name).read_bytes() == data for name, data in kept.items())


def _alive(studies: Idle) -> bool:
    return all(running.process.poll() is None for running in studies._running.values())
