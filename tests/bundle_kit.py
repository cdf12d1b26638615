"""A study's folder whose models and artifacts are real, and whose measurements are made up: no board ran it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
from foreign_networks import recurrent_cell
from small_task import bench

from edgedeploy.interfaces.scores import metrics_of
from edgedeploy.interfaces.task import Task
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.bundle.manifest import Manifest, parse
from edgedeploy.runtime.sensors.probe import ARM_FLAGS, X86_FLAGS, cpu_flags
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.kept_cases import names_of, record_of
from edgedeploy.study.preflight import versions
from edgedeploy.study.store import Store
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget
from edgedeploy.tasks.load import load_task, task_sources

SECRET = "Haus-am-See-42"

TASK = '''\
"""A task of the user's own: made-up ultrasound, whose network is as it was made."""
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound, UltrasoundOptions


class Phantom(SyntheticUltrasound):
    trained = True


def make_task(site, **more):
    return Phantom(
        UltrasoundOptions(
            image_size=48, resolutions=(32,), depth=2, base_channels=4,
            train_cases=8, calibration_cases=4, selection_cases=6, confirmation_cases=4,
        )
    )
'''

STUDY = f"""\
[study]
name = "a phantom"
targets = ["onnxruntime"]
[task]
kind = "python"
object = "phantom.py:make_task"
[task.options]
site = "{SECRET}"
colour = "grey"
answer = "out0"
finding = "vessel"
[[boards]]
name = "cart"
kind = "ssh"
host = "cart-17.clinic.example"
user = "operator9"
[space]
precision = ["float32", "int8"]
[[objectives]]
metric = "dice_mean"
[[objectives]]
metric = "latency_ratio"
[evidence]
margin = 0.01
[budget]
trials = 2
"""

FLOAT = Variant("onnxruntime", "float32", 1.0, (("resolution", 32), ("upsampling", "transposed")), 2)
INT8 = replace(FLOAT, precision="int8")


def here() -> dict[str, Any]:
    """What a board says of itself that is this machine."""
    flags = cpu_flags(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    return {
        "name": "cart",
        "arch": platform.machine(),
        "isa": tuple(flag for flag in (*X86_FLAGS, *ARM_FLAGS) if flag in flags),
        "runtimes": versions(),
    }


VARIANTS = ((FLOAT, 6.0), (INT8, 2.0))


def made_up_study(
    folder: Path, text: str = STUDY, code: str = TASK, variants: Sequence[tuple[Variant, float]] = VARIANTS
) -> Store:
    """``folder/study.toml`` and what a search of it would have left in ``folder/runs``: two variants, int8 the pick.
    ``variants`` have their latency in ms; the first one is the baseline."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.toml").write_text(text, encoding="utf-8")
    (folder / "phantom.py").write_text(code, encoding="utf-8")
    spec = parse_spec(text, folder / "study.toml")[0]
    table = spec.task.model_dump()
    task = load_task(table, folder)
    store = Store(folder / "runs")
    names = names_of(task)
    store.create(
        text,
        {
            "id": "0" * 32,
            "spec_digest": "1" * 64,
            "spec_folder": str(folder),
            "task_metrics": {name: vars(info) for name, info in metrics_of(task).items()},
            "baselines": [variants[0][0].as_json()],
            "versions": versions(),
            "boards": {"cart": "0" * 16},
            "task_sources": task_sources(table, folder),
            "cases": record_of(task, names),
        },
    )
    store.keep_case_names(names)
    for variant, latency_ms in variants:
        store.keep(_measured(store, task, variant, latency_ms))
    return store


def clip_study(folder: Path) -> tuple[Store, Variant]:
    """A study of a network with state, whose cases are clips of six frames, and its one variant, the float baseline."""
    folder.mkdir(parents=True, exist_ok=True)
    recurrent_cell(folder / "m.onnx")
    for seed, split in enumerate(("calibration", "selection", "confirmation")):
        x = np.random.default_rng(seed).standard_normal((3, 6, 8)).astype(np.float32)
        np.savez(folder / f"{split}.npz", x=x, gain=np.ones((3, 6), np.float32))
    text = STUDY.replace('kind = "python"\nobject = "phantom.py:make_task"', 'kind = "onnx"\nmodel = "m.onnx"')
    head, _, rest = text.partition("[task.options]\n")
    options = "".join(f'{split} = "{split}.npz"\n' for split in ("calibration", "selection", "confirmation"))
    options += 'states = { state = "stateN" }\ninitial = { state = 0.5 }\n'
    text = f"{head}[task.options]\n{options}[[boards]]{rest.partition('[[boards]]')[2]}"
    variant = Variant("onnxruntime", "float32", 1.0, (), 2)
    return made_up_study(folder, text.replace("dice_mean", "reference_rel_l2"), variants=[(variant, 6.0)]), variant


def _measured(store: Store, task: Task, variant: Variant, latency_ms: float) -> Measurement:
    artifact, _ = bench(store, task, OnnxRuntimeTarget()).artifact(variant)
    found = made_up.measurement(variant, latency_ms=latency_ms, baseline_ms=6.0)
    runtime = replace(found.candidate, runtime_version=versions()["onnxruntime"])
    return replace(
        found,
        artifact=artifact,
        board=made_up.board(**here()),
        candidate=runtime,
        parity={"rel_l2": 0.002, "worst_rel_l2": 0.003},
        notes=(f"a note that names {SECRET}", "parity: worst case selection-0003"),
    )


def manifest_of(place: Path) -> Manifest:
    """Of a bundle's folder."""
    return parse((place / "bundle.json").read_bytes())


def array(place: Path, name: str | None) -> Any:
    """A golden vector of a bundle's folder."""
    assert name is not None
    return np.load(place / name, allow_pickle=False)
