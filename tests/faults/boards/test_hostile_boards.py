"""Boards that lie or name paths: what they say is typed, bounded, about the board, and written nowhere else."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from board_kit import SHORT_SCENARIOS, make_payload
from fault_kit import local_board

from edgedeploy.boards.agent.answers import plain
from edgedeploy.boards.agent.held import (
    Asked,
    Odd,
    check_outputs,
    check_result,
    outputs_limit_bytes,
    result_limit_bytes,
)
from edgedeploy.boards.care.quarantine import Quarantine
from edgedeploy.boards.local import LocalTransport
from edgedeploy.errors import CommandFailed, StorageError
from edgedeploy.files import parsed, read_arrays
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.job import Job, MeasurePlan
from edgedeploy.runtime.wire.result import AgentResult
from edgedeploy.runtime.wire.serde import from_json

pytestmark = pytest.mark.waiting

PLAN = MeasurePlan(
    8,
    warmup=1,
    block=4,
    cold_starts=2,
    scenarios=SHORT_SCENARIOS,
    profile_runs=2,
    time_limit_s=300.0,
    collect_outputs=True,
)


@contextlib.contextmanager
def recorded(folder: Path) -> Iterator[tuple[Job, dict[str, bytes]]]:
    """A real run with every scenario, and the files of it as the board gave them."""
    files: dict[str, bytes] = {}

    class Keeping(LocalTransport):
        def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
            data = super().read_bytes(remote, timeout_s=timeout_s, limit_bytes=limit_bytes)
            files[Path(remote).name] = data or b""
            return data

        def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
            super().get(remote, destination, timeout_s=timeout_s, limit_bytes=limit_bytes)
            files[Path(remote).name] = destination.read_bytes()

    job = Job(make_payload(folder / "candidate"), make_payload(folder / "baseline"), PLAN)
    with local_board(folder / "root", Keeping).session() as session:
        session.measure(job, folder)
    yield job, files


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Job, dict[str, bytes]]]:
    with recorded(tmp_path_factory.mktemp("recorded")) as found:
        yield found


def put(*place: Any, to: Any) -> Callable[[Any], None]:
    """Set the value at a place; a function is given the old one."""

    def change(value: Any) -> None:
        for key in place[:-1]:
            value = value[key]
        value[place[-1]] = to(value[place[-1]]) if callable(to) else to

    return change


LIES: dict[str, tuple[Callable[[Any], None], str]] = {
    "one query where four were asked": (
        put("candidate", "blocks_ns", 0, to=lambda b: b[:1]),
        r"blocks_ns\[0\]: 1 queries, 4",
    ),
    "fifty times too many": (put("candidate", "blocks_ns", 0, to=lambda b: b * 50), r"blocks_ns\[0\]: 200 queries"),
    "fifty times too many blocks": (put("candidate", "blocks_ns", to=lambda b: b * 50), "blocks_ns: 100 blocks, 2"),
    "no block": (put("baseline", "blocks_ns", to=[]), "baseline.blocks_ns: 0 blocks, 2"),
    "a latency of 1 ns": (put("candidate", "blocks_ns", 0, 0, to=1), "1 ns, nothing takes less"),
    "a latency below zero": (put("candidate", "blocks_ns", 0, 0, to=-5), "-5 ns"),
    "a latency of years": (put("candidate", "blocks_ns", 0, 0, to=10**17), "this host has waited"),
    "CPU time below zero": (put("candidate", "cpu_ns", 0, to=-1), r"candidate.cpu_ns\[0\]"),
    "CPU time of a thousand cores": (put("candidate", "cpu_ns", 0, to=10**14), r"candidate.cpu_ns\[0\]"),
    "a cold start too many": (put("candidate", "cold_starts_ns", to=lambda s: [*s, s[0]]), "cold_starts_ns: 3, 2"),
    "a cold start of 1 us": (put("candidate", "cold_starts_ns", 0, to=1000), "cold_starts_ns: 1000 ns"),
    "more memory than there is": (put("candidate", "peak_memory_bytes", to=1 << 62), "peak_memory_bytes"),
    "no memory": (put("candidate", "peak_memory_bytes", to=0), "peak_memory_bytes: 0"),
    "minus three layers": (put("candidate", "executed", to={"float32": -3}), "executed: -3 x float32"),
    "a terminal's commands": (put("candidate", "device", to="\x1b[2J"), "device: no text for people"),
    "no baseline": (put("baseline", to=None), "baseline: nothing came back"),
    "a share in words": (put("environment", "background_cpu_share", to="half"), "environment.background_cpu_share"),
    "a share below zero": (put("environment", "background_cpu_share", to=-1.0), "expected 0 or more"),
    "temperatures in words": (put("environment", "before", "temperatures_c", to={"cpu": "warm"}), "temperatures_c"),
    "energy without samples": (put("environment", "energy", to={"source": "rail", "kind": "power"}), "samples"),
    "a scenario that is missing": (put("scenarios", to=lambda s: {"offline": s["offline"]}), "scenarios: offline"),
    "one that nobody asked for": (put("scenarios", "other", to={}), "scenarios: "),
    "more streams than held": (put("scenarios", "multi_stream", "streams", to=5000), "scenarios.multi_stream.streams"),
    "a chunk too many": (
        put("scenarios", "offline", "elapsed_ns", to=lambda e: [*e, 5]),
        "offline.elapsed_ns: 8 chunks, 7",
    ),
    "samples in no time": (put("scenarios", "offline", "elapsed_ns", 0, to=1), "offline.elapsed_ns: 1 ns"),
    "a frame twice": (put("scenarios", "realtime", "pending", to=[0, 0]), "realtime.processed"),
    "other arrivals": (put("scenarios", "realtime", "arrivals_ns", 3, to=0), "realtime.arrivals_ns"),
    "frames done before they came": (
        put("scenarios", "realtime", "processed", -1, to=lambda p: [p[0], 0, 10**6]),
        "realtime.processed: frame",
    ),
    "no window": (put("scenarios", "sustained", "windows", to=[]), "sustained.windows: 0"),
    "windows of nothing": (put("scenarios", "sustained", "windows", 0, "p50_ns", to=1), "sustained.windows"),
    "a request that is lost": (
        put("scenarios", "server", "at", "latencies_ns", to=lambda n: n[1:]),
        "server.levels: 64",
    ),
    "more users than held": (put("scenarios", "server", "users", to=51), "server.users: 51"),
    "another deadline": (put("scenarios", "server", "deadline_ns", to=5), "server.deadline_ns"),
    "a service in no time": (put("scenarios", "server", "services", 0, "ns", 0, to=1), "server.services"),
    "a service of no batch": (put("scenarios", "server", "services", 0, "batch", to=2), "server.services"),
    "a rest of no batch": (
        put("scenarios", "server", "rested", to=[{"batch": 2, "busy": 1, "ns": [10**6]}]),
        "server.rested",
    ),
    "rests without a time": (
        put("scenarios", "server", "rested", to=[{"batch": 1, "busy": 1, "ns": []}]),
        "server.services",
    ),
    "a run too few": (put("scenarios", "resources", "runs", to=lambda r: r[:1]), "resources.runs: 1, 2"),
    "curves of a lost clock": (
        put("scenarios", "resources", "runs", 0, "at_ns", to=lambda a: a[::-1]),
        "resources.runs",
    ),
    "a case that failed by nothing known": (
        put("scenarios", "flare", "runs", 0, "failed", to="luck"),
        "flare.runs: failed by",
    ),
    "a case that is left out": (put("scenarios", "flare", "runs", to=lambda r: r[1:]), "flare.runs: 1, 2"),
    "another limit of a case": (put("scenarios", "flare", "limit_ns", to=1), "flare.limit_ns: 1"),
    "layers in words": (put("layers", "candidate", to={"layers": ["conv"], "runs": 2}), "layers.candidate"),
    "another number of runs": (put("layers", "candidate", "runs", to=7), "layers.candidate.runs: 7, 2"),
    "outputs of a terabyte": (put("outputs", "size_bytes", to=1 << 40), "outputs.size_bytes"),
    "no outputs": (put("outputs", to=None), "outputs: none"),
}


@pytest.mark.fault(17, 51)
@pytest.mark.parametrize("lie", LIES)
def test_result_that_cannot_be_is_refused_and_the_field_is_named(lie: str, run: tuple[Job, dict[str, bytes]]) -> None:
    job, files = run
    asked = Asked(job, os.cpu_count() or 1, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), 120 * 10**9)
    check_result(from_json(AgentResult, json.loads(files["result.json"])), asked)  # as it was
    value = json.loads(files["result.json"])
    change, found = LIES[lie]
    change(value)
    with pytest.raises(Odd, match=found):
        check_result(from_json(AgentResult, value), asked)
    assert len(files["result.json"]) < result_limit_bytes(job.plan)


def test_a_clock_of_another_world_is_not_held_against_the_hosts(run: tuple[Job, dict[str, bytes]]) -> None:
    job, files = run
    value = json.loads(files["result.json"])
    value["candidate"]["blocks_ns"][0][0] = 10**17
    with pytest.raises(Odd, match="this host has waited"):
        check_result(from_json(AgentResult, value), Asked(job, 64, 1 << 50, 10**12))
    check_result(from_json(AgentResult, value), Asked(job, 64, 1 << 50, None))


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (put("run_ns", to=10**18), "run_ns 1000000000000000000: expected 0 to"),
        (put("run_ns", to=-1), "run_ns -1"),
        (put("wait_ns", to="long"), "wait_ns: expected int"),
        (put("state", to=7), "state: expected str"),
        (lambda value: value.pop("state"), "'state' is missing"),
    ],
)
def test_status_that_cannot_be_is_the_boards_failure(change: Callable[[Any], None], found: str, tmp_path: Path) -> None:
    def edit(data: bytes) -> bytes:
        value = json.loads(data)
        if value["state"] == "done":
            change(value)
        return json.dumps(value).encode()

    board = local_board(tmp_path / "root", edited_file("status.json", edit))
    job = Job(
        make_payload(tmp_path / "job"), None, replace(PLAN, queries=0, cold_starts=0, scenarios=(), profile_runs=0)
    )
    with board.session() as session, pytest.raises(CommandFailed) as caught:
        session.measure(job, tmp_path)
    assert found in caught.value.found


def edited_file(name: str, edit: Callable[[bytes], bytes]) -> type[LocalTransport]:
    class Edited(LocalTransport):
        def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None:
            data = super().read_bytes(remote, timeout_s=timeout_s, limit_bytes=limit_bytes)
            return edit(data) if data and Path(remote).name == name else data

    return Edited


# -- outputs


def packed(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        ({"y": np.zeros((6, 1, 2, 16, 16), np.complex64)}, "complex64"),
        ({"y": np.zeros((6, 1, 2, 16, 16), np.int32)}, "int32"),
        ({"y": np.zeros((6, 1, 2, 16, 16), "S1")}, "no numbers"),
        ({"y": np.zeros((1, 1, 2, 16, 16), np.float32)}, "6 cases were asked for"),
        ({"y": np.float32(1)}, "6 cases were asked for"),
        ({"y": np.zeros((6, 100, 2, 16, 16), np.float32)}, "at most"),
    ],
)
def test_outputs_of_another_kind_are_refused(outputs: dict[str, Any], found: str, tmp_path: Path) -> None:
    job = Job(make_payload(tmp_path / "job"), None, PLAN)
    check_outputs(packed(tmp_path / "sound.npz", y=np.zeros((6, 1, 2, 16, 16), np.float32)), job)
    with pytest.raises(Odd, match=found):
        check_outputs(packed(tmp_path / "outputs.npz", **outputs), job)


def header(shape: str, dtype: str = "<f4") -> bytes:
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text


def lying(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("y.npy", header("(1073741824, 1073741824)") + bytes(64))


def bomb(path: Path) -> None:
    """96 MB of zeros in 100 KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("y.npy", "w") as stream:
        stream.write(header("(25165824,)"))
        for _ in range(96):
            stream.write(bytes(1 << 20))


def directory_that_lies(path: Path) -> None:
    """Terabytes, by the archive's own directory."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("y.npy", header("(2147483648,)") + bytes(64))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (0xFFFFFFF0).to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.fault(51)
@pytest.mark.parametrize("write", [lying, bomb, directory_that_lies])
def test_arrays_that_are_bombs_are_refused_before_anything_is_allocated(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    path = tmp_path / "outputs.npz"
    write(path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="bytes"):
            read_arrays(path, most_bytes=64 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.fault(51)
def test_a_board_that_sends_a_bomb_with_its_hash_is_told_so(tmp_path: Path) -> None:
    job = Job(
        make_payload(tmp_path / "job"), None, replace(PLAN, queries=0, cold_starts=0, scenarios=(), profile_runs=0)
    )
    lying(tmp_path / "bomb.npz")
    data = (tmp_path / "bomb.npz").read_bytes()

    def edit(text: bytes) -> bytes:
        outputs = {"sha256": sha256(data).hexdigest(), "size_bytes": len(data)}
        return json.dumps({**json.loads(text), "outputs": outputs}).encode()

    class Bombing(edited_file("result.json", edit)):  # type: ignore[misc]
        def get(self, remote: str, destination: Path, *, timeout_s: float, limit_bytes: int | None = None) -> None:
            assert limit_bytes == len(data) <= outputs_limit_bytes(job)
            destination.write_bytes(data)

    with local_board(tmp_path / "root", Bombing).session() as session, pytest.raises(CommandFailed, match="bytes"):
        session.measure(job, tmp_path)


# -- names


def info(**changes: Any) -> BoardInfo:
    values: dict[str, Any] = {
        "name": "b",
        "provenance": "measured",
        "identity": "a" * 64,
        "boot_id": "",
        "cpu": "",
        "arch": "",
    }
    values |= {"isa": (), "cores": 1, "memory_bytes": 1, "os": "", "python": "", "runtimes": {}, "governor": None}
    return BoardInfo(**{**values, **changes})


@pytest.mark.fault(51)
@pytest.mark.parametrize("identity", ["../../outside", "/etc/outside", "..", "", "a/b", "\0", "x" * 5000, "~"])
def test_a_boards_name_for_itself_is_no_path(identity: str, tmp_path: Path) -> None:
    folder = tmp_path / "a" / "state" / "quarantine"
    quarantine = Quarantine(folder)
    quarantine.put(info(identity=identity), "it hangs")
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) == 1 and written[0].parent == folder
    assert [record.identity for record in quarantine.records()] == [identity]
    quarantine.lift("b")
    assert not list(folder.iterdir())


@pytest.mark.fault(51)
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (put("identity", to="../../outside"), "identity"),
        (put("cores", to=0), "0 cores"),
        (put("memory_bytes", to=-1), "bytes of memory"),
        (put("runtimes", to=["onnxruntime"]), "runtimes: expected an object"),
        (put("power_modes", to={"fast": "__class__"}), "power_modes.fast"),
        (put("notes", to="none"), "notes"),
        (put("token", to="1"), "token"),
        (lambda value: value.pop("cpu"), "'cpu' is missing"),
    ],
)
def test_probe_that_cannot_be_is_refused(change: Callable[[Any], None], found: str, tmp_path: Path) -> None:
    class Lying(LocalTransport):
        def start(self, argv: Any) -> Any:
            process = super().start(argv)
            read_line = process.read_line

            def lie(timeout_s: float) -> str:
                line = read_line(timeout_s)
                if not line:
                    return line
                value = json.loads(line)
                with contextlib.suppress(KeyError):
                    change(value if "token" in found else value["probe"])
                return json.dumps(value)

            process.read_line = lie  # type: ignore[method-assign]
            return process

    with pytest.raises(CommandFailed) as caught, local_board(tmp_path / "root", Lying).session():
        pass
    assert found in caught.value.found


@pytest.mark.fault(51)
def test_a_damaged_record_of_a_quarantine_is_named(tmp_path: Path) -> None:
    (tmp_path / "stray.json").write_text("[1, 2]")
    with pytest.raises(StorageError, match=r"stray\.json"):
        Quarantine(tmp_path).check(info())


# -- JSON


@pytest.mark.fault(28, 51)
@pytest.mark.parametrize(
    "text",
    [
        b'{"a": ' * 100 + b"1" + b"}" * 100,
        b'{"a": ' + b"[" * 100_000,
        b'{"a": 1e999}',
        b'{"a": NaN}',
        b'{"a": ' + b"9" * 400 + b"}",
        b'{"a": ' + b"9" * 400 + b".5}",
        b'{"a": "\\ud800"}',
        b'{"a": "\xff"}',
        b"[]",
        b"",
    ],
)
def test_json_of_strangers_has_limits(text: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parsed(text)


def test_words_of_a_board_are_safe_for_a_terminal() -> None:
    assert plain("\x1b[2Jdisk full\x07\n") == "?[2Jdisk full?\n"
    assert plain("Gerät é 板") == "Gerät é 板"
    assert len(plain("x" * 10**6)) < 5000
