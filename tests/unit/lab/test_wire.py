"""A field of a plan, a side or a run comes home on every way that it goes: to the agent and back, over Dask, into the store.

The tests go over the fields that the classes have, so a field that somebody adds is tested by being there.
"""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from board_kit import make_payload

import edgedeploy
from edgedeploy.boards.agent.session import BoardOptions, job_blobs, job_spec
from edgedeploy.errors import CommandFailed
from edgedeploy.files import write_json as keep
from edgedeploy.lab.wire import pack, pack_result, unpack, unpack_result
from edgedeploy.records.job import Job, MeasurePlan, RawRun, RawSide
from edgedeploy.records.measurement import Measurement
from edgedeploy.runtime.faults import RuntimeFault
from edgedeploy.runtime.files import read_json, write_json
from edgedeploy.runtime.wire.job import JobSpec
from edgedeploy.runtime.wire.result import AgentResult, OutputsFile, RawSeries
from edgedeploy.runtime.wire.serde import from_json, to_json
from edgedeploy.study.store import Store

STUDIES = Path(__file__).parents[2] / "data" / "studies"
KEPT = ("measurements", "invalid", "confirmation")

# -- values that no default has


def unusual(kind: Any, seed: int) -> Any:
    """A value of a field's type that differs from every default, and from that of another ``seed``."""
    if is_dataclass(kind):
        return filled(kind, seed + 1)
    if kind in (int, float, str, bool):
        return {int: seed, float: seed + 0.25, str: f"text {seed}", bool: bool(seed % 2)}[kind]
    if kind is Any:
        return {"deep": [seed, {"more": None}]}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        kinds = arguments[:1] * 2 if arguments[-1] is Ellipsis else arguments
        return tuple(unusual(item, seed + index) for index, item in enumerate(kinds))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {f"key {seed}": unusual(arguments[1], seed)}
    (inner,) = (item for item in arguments if item is not type(None))
    return unusual(inner, seed)


def filled(cls: Any, seed: int = 1001) -> Any:
    """Every field unlike its default: a truth value, for one, is the other one."""
    hints = typing.get_type_hints(cls)
    values = {item.name: unusual(hints[item.name], seed + 7 * index) for index, item in enumerate(fields(cls))}
    values |= {item.name: not item.default for item in fields(cls) if isinstance(item.default, bool)}
    return cls(**values)


def assert_unlike_defaults(value: Any) -> None:
    for item in fields(value):
        found = getattr(value, item.name)
        assert found != item.default and found not in ({}, (), None), f"{item.name} is as it is by default"


@pytest.fixture
def job(tmp_path: Path) -> Job:
    payloads = (make_payload(tmp_path / name, threads=3, settings={"a": name}) for name in ("candidate", "baseline"))
    return Job(*payloads, filled(MeasurePlan))


@pytest.fixture
def series() -> RawSeries:
    return typing.cast(RawSeries, filled(RawSeries))


# -- the ways


def by_job_file(job: Job, folder: Path) -> MeasurePlan:
    """Host to agent: the JSON that is sent, and the file that the agent's processes read."""
    sent = json.dumps(to_json(job_spec(job, "f" * 32, 7, job_blobs(job), BoardOptions())))
    write_json(folder / "job.json", json.loads(sent))
    return JobSpec.from_json(read_json(folder / "job.json")).plan


def by_dask(job: Job, folder: Path) -> MeasurePlan:
    (folder / "worker").mkdir()
    return unpack(pickle.loads(pickle.dumps(pack(job))), folder / "worker").plan


@pytest.mark.parametrize("way", [by_job_file, by_dask])
def test_every_field_of_a_plan_reaches_the_board(
    way: Callable[[Job, Path], MeasurePlan], job: Job, tmp_path: Path
) -> None:
    assert_unlike_defaults(job.plan)
    assert_unlike_defaults(job.plan.scenarios[0])
    assert way(job, tmp_path) == job.plan


def by_result_file(series: RawSeries, folder: Path) -> RawSeries:
    """Agent to host."""
    result = AgentResult(**series.series(), outputs=OutputsFile("0" * 64, 3))
    write_json(folder / "result.json", to_json(result))
    read = from_json(AgentResult, json.loads((folder / "result.json").read_bytes()))
    assert read == result
    return read


def by_dask_again(series: RawSeries, folder: Path) -> RawSeries:
    """Worker to coordinator."""
    (folder / "there.npz").write_bytes(b"outputs")
    (folder / "home").mkdir()
    raw = RawRun(**series.series(), outputs=folder / "there.npz")
    read = unpack_result(pickle.loads(pickle.dumps(pack_result(raw))), folder / "home")
    assert read.outputs == folder / "home" / "outputs.npz" and read.outputs.read_bytes() == b"outputs"
    return read


def by_measurement_file(series: RawSeries, folder: Path) -> RawSeries:
    """Into the study's folder and out of it."""
    measured = replace(made_up.measurement(), **series.series())
    store = Store(folder)
    store.keep(measured)
    (read,) = store.measurements()
    assert read == measured
    return read


@pytest.mark.parametrize("way", [by_result_file, by_dask_again, by_measurement_file])
def test_every_field_of_a_run_comes_home(
    way: Callable[[RawSeries, Path], RawSeries], series: RawSeries, tmp_path: Path
) -> None:
    assert_unlike_defaults(series)
    assert_unlike_defaults(series.candidate)
    assert series.baseline is not None and series.baseline != series.candidate
    assert way(series, tmp_path).series() == series.series()


def test_a_payload_is_whole_on_a_worker(job: Job, tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    there = unpack(pack(job), tmp_path / "worker")
    assert list(there.sides) == list(job.sides) == ["candidate", "baseline"]
    for side, payload in there.sides.items():
        ours = job.sides[side]
        moved = {"folder": payload.folder, "inputs": payload.inputs}
        assert replace(ours, **moved) == payload
        assert payload.inputs.read_bytes() == ours.inputs.read_bytes()
        for file in ours.artifact.files:
            assert (payload.folder / file.name).read_bytes() == (ours.folder / file.name).read_bytes()


# -- other releases


def test_a_job_or_a_result_of_another_release_is_refused(job: Job, series: RawSeries, tmp_path: Path) -> None:
    packed = pack(job)
    packed["plan"]["of_tomorrow"] = 1
    (tmp_path / "worker").mkdir()
    with pytest.raises(CommandFailed, match=r"'of_tomorrow' is unknown.*one release of edgedeploy"):
        unpack(packed, tmp_path / "worker")
    answer = pack_result(RawRun(**series.series(), outputs=None))
    del answer["series"]["layers"]
    with pytest.raises(CommandFailed, match="'layers' is missing"):
        unpack_result(answer, tmp_path)
    spec = to_json(job_spec(job, "f" * 32, 7, job_blobs(job), BoardOptions()))
    del spec["plan"]["queries"]
    with pytest.raises(RuntimeFault, match="plan: 'queries' is missing") as caught:
        JobSpec.from_json(spec)
    assert caught.value.cause == "bad_job"


def test_a_measurement_of_before_a_field_takes_its_default() -> None:
    measured = made_up.measurement()
    kept = measured.as_json()
    del kept["layers"], kept["protocols"], kept["candidate"]["memory_note"]
    read = Measurement.from_json(kept)
    assert (read.layers, read.scenarios, read.candidate) == ({}, {}, measured.candidate)


def test_a_stored_measurement_is_written_as_it_was_read(tmp_path: Path) -> None:
    """Byte for byte."""
    stored = [path for name in KEPT for path in sorted(STUDIES.glob(f"*/study/{name}/*.json"))]
    assert len(stored) > len(KEPT)
    for path in stored:
        keep(tmp_path / path.name, Measurement.from_json(json.loads(path.read_text())).as_json())
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


# -- one place

CLASSES = (MeasurePlan, RawSide, RawSeries)
ADDED = "    added: Mapping[str, int] = field(default_factory=dict)"
OPTIONS = ("-c", os.devnull, "--import-mode=importlib", "-p", "no:labgrid", "-p", "no:cacheprovider")


def add_field(path: Path, name: str) -> None:
    """One line after the last field of a class."""
    text = path.read_text()
    (found,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef) and node.name == name)
    last = max(node.end_lineno or 0 for node in found.body if isinstance(node, ast.AnnAssign))
    lines = text.splitlines()
    path.write_text("\n".join([*lines[:last], ADDED, *lines[last:], ""]))


def test_a_new_field_needs_one_place(tmp_path: Path) -> None:
    """In a copy of the package, each class gets one line more; the tests above then hold of the new field too."""
    source = Path(edgedeploy.__file__).parent
    package = shutil.copytree(source, tmp_path / "edgedeploy", ignore=shutil.ignore_patterns("__pycache__"))
    for cls in CLASSES:
        path = package / Path(inspect.getfile(cls)).relative_to(source)
        add_field(path, cls.__name__)
        path.write_text(path.read_text().replace("import dataclass\n", "import dataclass, field\n"))
    folders = [tmp_path, Path(__file__).parent, Path(__file__).parents[2]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, *arguments]
        return subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    there = python("-c", "import test_wire as t; print(['added' in t.filled(c).__dict__ for c in t.CLASSES])")
    assert there.stdout == "[True, True, True]\n", there.stderr
    done = python("-m", "pytest", "-q", "-k", "every_field", *OPTIONS, __file__)
    assert done.returncode == 0 and "5 passed" in done.stdout, done.stdout + done.stderr
