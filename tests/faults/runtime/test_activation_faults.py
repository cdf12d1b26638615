"""Activation: what is refused, what a kill leaves, and what readers see meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import product_kit as kit
import pytest
from fault_kit import small_disk

from edgedeploy.runtime.bundle import tree
from edgedeploy.runtime.bundle.activate import Activation, activate, roll_back
from edgedeploy.runtime.bundle.commands import main
from edgedeploy.runtime.bundle.load import load
from edgedeploy.runtime.faults import BundleError, RuntimeFault

pytestmark = pytest.mark.beside

KILLS = 50
ROLL_BACKS = 12


class Maker:
    """Signed releases of one small network."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.key, self.trust = kit.make_key(place)
        self.files = kit.make_files()

    def release(self, number: int, folder: Path | None = None, **fields: object) -> Path:
        files = kit.changed(self.files, release=number, **fields)
        return kit.write_signed(folder or self.place / f"r{number}-{len(fields)}", files, self.key)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "device" / "models"


def current(root: Path, maker: Maker) -> int:
    return load(root / "current", trust=maker.trust).release


def refusal(work: Callable[[], object]) -> BundleError:
    with pytest.raises(BundleError) as caught:
        work()
    return caught.value


def put(maker: Maker, root: Path, *numbers: int) -> Activation:
    return [activate(maker.release(number), trust=maker.trust, root=root) for number in numbers][-1]


def test_a_release_takes_the_place_of_the_one_before(maker: Maker, root: Path) -> None:
    first = put(maker, root, 1)
    assert (first.release, first.before) == (1, None)
    third = put(maker, root, 2, 3)
    assert current(root, maker) == 3
    kept = {path.name for path in (root / "releases").iterdir()}
    assert kept == {third.identity, third.before} and first.identity not in kept
    again = put(maker, root, 3)
    assert again.identity == again.before == third.identity
    assert roll_back(trust=maker.trust, root=root).release == current(root, maker) == 2


def test_a_release_that_was_rolled_back_may_come_again_and_none_below_it(maker: Maker, root: Path) -> None:
    put(maker, root, 1, 2)
    roll_back(trust=maker.trust, root=root)
    assert refusal(lambda: put(maker, root, 1)).reason == "downgrade"
    assert "no release before" in refusal(lambda: roll_back(trust=maker.trust, root=root)).message
    put(maker, root, 2)
    assert roll_back(trust=maker.trust, root=root).release == 1


@pytest.mark.fault(37)
def test_an_older_release_and_a_second_bundle_of_one_number_are_refused(maker: Maker, root: Path) -> None:
    put(maker, root, 1, 3)
    for bundle in (maker.release(2), maker.release(3, created="2026-01-31T12:00:00Z")):
        assert refusal(lambda: activate(bundle, trust=maker.trust, root=root)).reason == "downgrade"  # noqa: B023
    other = maker.release(4, name="liver")
    assert refusal(lambda: activate(other, trust=maker.trust, root=root)).reason == "incompatible"
    assert current(root, maker) == 3


@pytest.mark.fault(40)
def test_golden_vectors_that_fail_leave_the_release_before(maker: Maker, root: Path, tmp_path: Path) -> None:
    put(maker, root, 1)
    wrong = dict(maker.files)
    wrong["golden/c1.out.npy"] = wrong["golden/c0.out.npy"]
    bundle = kit.write_signed(tmp_path / "wrong", kit.changed(wrong, release=2), maker.key)
    assert refusal(lambda: activate(bundle, trust=maker.trust, root=root)).reason == "wrong_answer"
    assert current(root, maker) == 1
    assert len(list((root / "releases").iterdir())) == 1
    assert put(maker, root, 2).release == 2  # the number was not used up


@pytest.mark.fault(57)
@pytest.mark.parametrize("how", ["file", "folder", "empty", "older form"])
def test_a_device_that_forgot_what_it_has_seen_takes_no_bundle(maker: Maker, root: Path, how: str) -> None:
    put(maker, root, 1, 2)
    state = root / "state" / "state.json"
    if how == "folder":
        shutil.rmtree(state.parent)
    elif how == "file":
        state.unlink()
    else:
        state.write_text("" if how == "empty" else state.read_text().replace('"version": 1', '"version": 2'))
    for work in (
        lambda: put(maker, root, 1),
        lambda: put(maker, root, 3),
        lambda: roll_back(trust=maker.trust, root=root),
    ):
        assert refusal(work).reason == "missing_state"
    assert current(root, maker) == 2


def test_untrusted_bundles_change_nothing(maker: Maker, root: Path, tmp_path: Path) -> None:
    put(maker, root, 1)
    before = sorted(root.rglob("*"))
    unsigned = kit.write_files(tmp_path / "unsigned", kit.changed(maker.files, release=2))
    assert refusal(lambda: activate(unsigned, trust=maker.trust, root=root)).reason == "unsigned"
    assert sorted(root.rglob("*")) == before


def test_one_activation_at_a_time(maker: Maker, root: Path) -> None:
    put(maker, root, 1)
    with (root / "state" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RuntimeFault, match="another activation") as caught:
            put(maker, root, 2)
    assert caught.value.cause == "busy"
    put(maker, root, 2)


def test_a_release_that_was_damaged_on_the_device_is_written_anew(maker: Maker, root: Path) -> None:
    found = put(maker, root, 1, 2)
    damaged = root / "releases" / found.identity / "artifact" / "model.onnx"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert refusal(lambda: current(root, maker)).reason == "tampered"
    put(maker, root, 2)
    assert current(root, maker) == 2
    assert found.before is not None
    (root / "releases" / found.before / "extra").write_text("x")
    assert refusal(lambda: roll_back(trust=maker.trust, root=root)).reason == "tampered"
    assert current(root, maker) == 2


def test_what_leads_elsewhere_is_refused(maker: Maker, root: Path, tmp_path: Path) -> None:
    put(maker, root, 1)
    (root / "current").unlink()
    (root / "current").symlink_to(tmp_path)
    assert refusal(lambda: put(maker, root, 2)).reason == "unreadable"


def test_the_state_and_the_release_are_on_the_disk_before_readers_see_it(
    maker: Maker, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut a file is there as far as it was synced, and renames may come in any order that syncs do not
    forbid."""
    put(maker, root, 1)
    bundle = maker.release(2)
    log: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor: int) -> None:
        log.append(("sync", str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root))))
        fsync(descriptor)

    def moved(real: Callable[[object, object], None]) -> Callable[[object, object], None]:
        def call(source: object, target: object) -> None:
            log.append(("move", str(Path(str(target)).relative_to(root))))
            real(source, target)

        return call

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", moved(replace))
    monkeypatch.setattr(os, "rename", moved(rename))
    identity = activate(bundle, trust=maker.trust, root=root).identity
    part, release = f"releases/.part-{identity}", f"releases/{identity}"
    files = {f"{part}/{path.relative_to(root / release)}" for path in (root / release).rglob("*")} | {part}
    at = {entry: index for index, entry in enumerate(log)}
    assert files <= {name for kind, name in log[: at["move", release]] if kind == "sync"}
    order = [
        ("move", release),
        ("sync", "releases"),
        ("sync", "state/.part-state.json"),
        ("move", "state/state.json"),
        ("sync", "state"),
        ("move", "current"),
    ]
    assert [at[entry] for entry in order] == sorted(at[entry] for entry in order)
    assert ("sync", ".") in log[at["move", "current"] :]


@pytest.mark.fault(56)
@pytest.mark.parametrize("activations", [1, 2])
def test_a_reader_gets_one_release_whole_whatever_is_activated_meanwhile(
    maker: Maker, root: Path, monkeypatch: pytest.MonkeyPatch, activations: int
) -> None:
    """Between its first file and its second: another release, or two, so that the one it reads is removed."""
    put(maker, root, 1)
    coming = [maker.release(number) for number in (2, 3)[:activations]]
    exactly = tree._exactly

    def interrupted(descriptor: int, size_bytes: int) -> bytes | None:
        monkeypatch.setattr(tree, "_exactly", exactly)
        data = exactly(descriptor, size_bytes)
        for bundle in coming:
            activate(bundle, trust=maker.trust, root=root)
        return data

    monkeypatch.setattr(tree, "_exactly", interrupted)
    assert load(root / "current", trust=maker.trust).release == (1 if activations == 1 else 3)


@pytest.mark.fault(46)
def test_a_full_disk_leaves_the_release_before(maker: Maker, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1) as disk:
        put(maker, disk / "models", 1)
        (disk / "other").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096 - 8192))
        found = refusal(lambda: put(maker, disk / "models", 2))
        assert found.reason == "unreadable" and "No space left" in found.message
        assert current(disk / "models", maker) == 1
        assert not [*(disk / "models").rglob(".part*")], "the room that it took is free again"
        assert len([*(disk / "models" / "releases").iterdir()]) == 1
        (disk / "other").unlink()
        assert put(maker, disk / "models", 2).release == 2


@pytest.mark.fault(40, 56)
@pytest.mark.timeout(900)
def test_fifty_kills_always_leave_a_working_release_and_no_reader_sees_a_mix(maker: Maker, tmp_path: Path) -> None:
    shutil.copy(maker.trust, tmp_path / "trust.pub")
    for number in range(1, KILLS + 4):
        maker.release(number, tmp_path / f"release-{number}")
    program = Path(__file__).with_name("activation_kills.py")
    argv = [sys.executable, str(program), str(tmp_path), str(KILLS), str(ROLL_BACKS)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["kills"] == KILLS <= found["changes"] and found["old"] > found["new"] > 0
    assert found["readings"] > 100
    sys.stdout.write(done.stdout)


def test_the_command(maker: Maker, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--trust", str(maker.trust), "--root", str(root)]
    assert main(["activate", str(maker.release(1)), *options]) == 0
    assert main(["activate", str(maker.release(2)), *options]) == 0
    assert main(["activate", "--previous", *options]) == 0
    assert main(["activate", str(maker.release(1)), *options]) == 2
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer.get("release", answer.get("refused")) for answer in answers] == [1, 2, 1, "downgrade"]
    with (root / "state" / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert main(["activate", str(maker.release(2)), *options]) == 3
    with pytest.raises(SystemExit):
        main(["activate", *options])


@pytest.mark.parametrize("command", ["verify", "run", "activate"])
def test_an_output_that_goes_nowhere_is_a_failure_of_the_machine(command: str, maker: Maker, root: Path) -> None:
    words = [command, str(maker.release(1)), "--trust", str(maker.trust)]
    words += ["--root", str(root)] if command == "activate" else []
    argv = [sys.executable, "-m", "edgedeploy.runtime", *words]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "failed: standard output: No space left on device\n")


@pytest.mark.parametrize("threads", ["-3", "0", "nan", "1e3", "99999999999999999999"])
def test_threads_that_are_no_number_of_threads(threads: str, maker: Maker, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", str(maker.release(1)), "--trust", str(maker.trust), "--threads", threads])
    assert ended.value.code == 2 and "is no number of 1 to" in capsys.readouterr().err


@pytest.mark.parametrize("threads", [-3, 0, True, float("nan"), 1 << 40])
def test_threads_of_a_program_are_checked_too(threads: object, maker: Maker) -> None:
    with pytest.raises(ValueError, match="threads"):
        load(maker.release(1), trust=maker.trust, threads=threads)  # type: ignore[arg-type]


def test_results_that_have_no_place_are_refused(
    maker: Maker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (frame,) = kit.frames(1)
    (tmp_path / "frame.npy").write_bytes(kit.npy(frame))
    words = ["run", str(maker.release(1)), "--trust", str(maker.trust), "--frames", str(tmp_path / "frame.npy")]
    assert main([*words, "--out", "/proc/nowhere"]) == 2
    assert "unreadable: /proc/nowhere" in capsys.readouterr().err
    with small_disk(tmp_path / "disk", 1) as disk:
        (disk / "other").write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))
        assert main([*words, "--out", str(disk)]) == 2
        assert [path.name for path in disk.iterdir()] == ["other"], "no half of a result"


def test_the_same_files_signed_anew_change_nothing_until_they_are_proved(
    maker: Maker, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(maker, root, 1)
    key, trust = kit.make_key(tmp_path)
    anew = kit.write_signed(tmp_path / "anew", kit.changed(maker.files, release=1), key)

    def unproved(*_: object, **__: object) -> None:
        raise BundleError("wrong_answer", "a golden vector")

    with monkeypatch.context() as patch:
        patch.setattr("edgedeploy.runtime.bundle.activate.load", unproved)
        assert refusal(lambda: activate(anew, trust=trust, root=root)).reason == "wrong_answer"
    assert current(root, maker) == 1, "the release is still the first key's"
    activate(anew, trust=trust, root=root)
    assert load(root / "current", trust=trust).release == 1
    assert refusal(lambda: load(root / "current", trust=maker.trust)).reason == "untrusted"
