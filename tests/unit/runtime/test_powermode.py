"""Power modes on a made-up cpufreq tree and a simulated nvpmodel: set, checked, put back, also after kill -9."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import simulated_nvpmodel

from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.sensors.powermode import JOURNAL, PowerModes

REPO = Path(__file__).resolve().parents[3]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="nvpmodel is run through sudo without root")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Made up: two cores with cpufreq, and nvpmodel's list of modes."""
    for core in ("cpu0", "cpu1"):
        folder = tmp_path / "tree/sys/devices/system/cpu" / core / "cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_governor").write_text("schedutil\n")
        (folder / "scaling_available_governors").write_text("performance schedutil powersave\n")
    (tmp_path / "tree/etc").mkdir()
    (tmp_path / "tree/etc/nvpmodel.conf").write_text(
        "< POWER_MODEL ID=0 NAME=MODE_0 >\n< POWER_MODEL ID=2 NAME=MODE_2 >\n< POWER_MODEL ID=9 NAME=MODE_9 >\n"
    )
    return tmp_path / "tree"


@pytest.fixture
def simulated_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that the simulated nvpmodel keeps its mode in; it starts in mode 2."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return simulated_nvpmodel.install(programs, 2)


def governors(tree: Path) -> list[str]:
    files = sorted(tree.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"))
    return [path.read_text().strip() for path in files]


def test_a_governor_is_set_and_put_back(tree: Path, tmp_path: Path) -> None:
    with PowerModes(tmp_path, tree).held({"governor": "performance"}) as set_up:
        assert set_up == {"governor": "performance"}
        assert governors(tree) == ["performance", "performance"]
        assert json.loads((tmp_path / JOURNAL).read_text())["governor"] == {"cpu0": "schedutil", "cpu1": "schedutil"}
    assert governors(tree) == ["schedutil", "schedutil"]
    assert not (tmp_path / JOURNAL).exists()


def test_cores_get_back_what_each_had(tree: Path, tmp_path: Path) -> None:
    (tree / "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor").write_text("powersave\n")
    with pytest.raises(ZeroDivisionError), PowerModes(tmp_path, tree).held({"governor": "performance"}):
        raise ZeroDivisionError
    assert governors(tree) == ["schedutil", "powersave"]


@needs_root
@pytest.mark.parametrize("asked", ["0", "MODE_0"])
def test_a_simulated_mode_is_set_and_put_back(tree: Path, tmp_path: Path, simulated_mode: Path, asked: str) -> None:
    with PowerModes(tmp_path, tree).held({"nvpmodel": asked}) as set_up:
        assert set_up == {"power_mode": "MODE_0 (0)"}
        assert simulated_mode.read_text() == "0\n"
    assert simulated_mode.read_text() == "2\n"


@needs_root
@pytest.mark.fault(21, simulated="the cpufreq tree and nvpmodel")
def test_a_killed_run_is_put_right_by_the_next(tree: Path, tmp_path: Path, simulated_mode: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from edgedeploy.runtime.sensors.powermode import PowerModes\n"
        "with PowerModes(Path(sys.argv[1]), Path(sys.argv[2])).held({'nvpmodel': '0', 'governor': 'performance'}):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), str(tree)]
    run = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(REPO)})
    assert run.stdout is not None and run.stdout.readline() == "held\n"
    run.kill()
    assert run.wait(60) == -9
    run.stdout.close()
    assert (governors(tree), simulated_mode.read_text()) == (["performance"] * 2, "0\n")
    assert PowerModes(tmp_path, tree).restore()
    assert (governors(tree), simulated_mode.read_text()) == (["schedutil"] * 2, "2\n")
    assert not PowerModes(tmp_path, tree).restore()


@needs_root
def test_the_next_lease_of_the_board_restores(tmp_path: Path, simulated_mode: Path) -> None:
    """The agent itself, started as boards start it, with a journal that a killed run left."""
    simulated_mode.write_text("0\n")
    root = tmp_path / "root"
    root.mkdir()
    (root / JOURNAL).write_text('{"nvpmodel": 2, "governor": {}}')
    argv = [sys.executable, "-m", "edgedeploy.runtime", "--root", str(root), "lease", "--owner", "test"]
    argv += ["--heartbeat-limit", "30"]
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(argv, input=b"", capture_output=True, env=env, check=True, timeout=300)
    assert json.loads(done.stdout)["token"] == 1
    assert simulated_mode.read_text() == "2\n"
    assert not (root / JOURNAL).exists()


def test_a_journal_from_before_is_restored_first(tree: Path, tmp_path: Path) -> None:
    """Two runs in a row, the first one killed: the second must not take the first one's mode for the original."""
    (tmp_path / JOURNAL).write_text('{"nvpmodel": null, "governor": {"cpu0": "powersave", "cpu1": "powersave"}}')
    with PowerModes(tmp_path, tree).held({"governor": "performance"}):
        assert governors(tree) == ["performance", "performance"]
    assert governors(tree) == ["powersave", "powersave"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"governor": "perfomance"}, "this board has performance, schedutil, powersave"),
        ({"nvpmodel": "7"}, "nvpmodel has no mode 7"),
        ({"nvpmodel": "MAXN"}, "MODE_0, MODE_2, MODE_9"),
        ({"fan": "on"}, "fan cannot be set"),
    ],
)
def test_what_the_board_does_not_have_is_refused(
    tree: Path, tmp_path: Path, asked: dict[str, str], message: str
) -> None:
    with pytest.raises(RuntimeFault, match=message) as caught, PowerModes(tmp_path, tree).held(asked):
        pass
    assert caught.value.cause == "power_mode_refused"
    assert governors(tree) == ["schedutil", "schedutil"]
    assert not (tmp_path / JOURNAL).exists()


def test_what_may_be_asked_for_is_what_every_core_and_the_tool_have(
    tree: Path, tmp_path: Path, simulated_mode: Path
) -> None:
    cpu1 = tree / "sys/devices/system/cpu/cpu1/cpufreq/scaling_available_governors"
    cpu1.write_text("performance schedutil\n")
    modes = dict.fromkeys(["MODE_0", "MODE_2", "MODE_9"], "nvpmodel")
    assert PowerModes(tmp_path, tree).offered() == {"performance": "governor", "schedutil": "governor", **modes}
    cpu1.unlink()
    assert PowerModes(tmp_path, tree).offered() == modes


def test_a_board_without_cpufreq_and_nvpmodel_offers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedeploy.runtime.sensors.powermode.shutil.which", lambda *args, **kwargs: None)
    assert PowerModes(tmp_path, tmp_path).offered() == {}


def test_a_board_without_cpufreq_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeFault, match="no cpufreq"),
        PowerModes(tmp_path, tmp_path).held({"governor": "performance"}),
    ):
        pass


@needs_root
def test_a_simulated_mode_that_wants_a_reboot_is_refused(tree: Path, tmp_path: Path, simulated_mode: Path) -> None:
    with pytest.raises(RuntimeFault, match="Reboot required"), PowerModes(tmp_path, tree).held({"nvpmodel": "9"}):
        pass
    assert simulated_mode.read_text() == "2\n"


def test_what_cannot_be_put_back_says_so_and_keeps_the_journal(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / JOURNAL).write_text('{"nvpmodel": 2, "governor": {}}')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("edgedeploy.runtime.sensors.powermode.shutil.which", lambda *args, **kwargs: None)
    with pytest.raises(RuntimeFault, match="by hand"):
        PowerModes(tmp_path, tree).restore()
    assert (tmp_path / JOURNAL).exists()


def test_nothing_asked_changes_nothing(tree: Path, tmp_path: Path) -> None:
    with PowerModes(tmp_path, tree).held({}) as set_up:
        assert set_up == {}
        assert not (tmp_path / JOURNAL).exists()
    assert governors(tree) == ["schedutil", "schedutil"]
