"""Training with quantizers in rounds over three sites, of which one is killed and the server too; judged at each site."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import ROOT
from benchmarks.clinic_kit.rounds_process import EPOCHS, bits, quantized, task_of, trained_cases
from benchmarks.clinic_kit.secure_sites import SITES, Material, material
from benchmarks.shared.rows import Asked, Row
from edgedeploy.federated.grid import LocalGrid
from edgedeploy.federated.recovery import (
    RecoverySettings,
    Rounds,
    load_into,
    recover,
    recovery_app,
    weights_of,
)
from edgedeploy.federated.recovery_personal import judge_personal
from edgedeploy.federated.recovery_qat import int8_of, train_quantized_here
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.reference.export import export_reference
from edgedeploy.targets.onnxruntime import OnnxRuntimeTarget

ROUNDS: Final = 3
DICE_BAR: Final = 0.005
"""By which training with quantizers may fall short of calibration at any site: the same bar as storage has."""

Dice = Mapping[Any, float]


def qat_rounds(asked: Asked) -> Row:
    """Three site processes; the third is killed by SIGKILL in round 2, the server in round 3 and begun again."""
    held = material(asked.seed)
    _ = held.reference  # made before the processes need it
    with tempfile.TemporaryDirectory(prefix="edgedeploy-qat-") as place:
        folder = Path(place)
        done, killed = _trained(asked, held, folder)
        dice = {"float": held.dice(None, held.folder), "calibrated": _calibrated(held, held.model, folder / "ptq")}
        dice["trained"] = _of_int8(held, done.weights, folder / "qat")
        dice["control"] = _calibrated(held, _float_rounds(held, folder / "float"), folder / "control")
        personal = [_personal(held, done, site, dice["trained"], folder) for site in SITES]
    short = [_at(held, dice["trained"], site) - _at(held, dice["calibrated"], site) for site in SITES]
    each = "; ".join(
        f"{site} ({len(trained_cases(held, site))} trained, {len(held.judged[site])} judged) float "
        f"{_at(held, dice['float'], site):.4f}, calibrated {_at(held, dice['calibrated'], site):.4f}, trained with "
        f"quantizers {_at(held, dice['trained'], site):.4f}, float rounds and then calibrated "
        f"{_at(held, dice['control'], site):.4f}"
        for site in SITES
    )
    means = ", ".join(f"{name} {np.mean(list(values.values())):.4f}" for name, values in dice.items())
    left_out = [sorted(told["left_out"]) for told in done.told]
    found = (
        f"{done.done} rounds of {EPOCHS} epochs on {held.data} images, {bits()}-bit weights; left out {left_out}, {killed}; "
        f"Dice {each}; over all {means}; {'; '.join(personal)}"
    )
    whole = done.done == ROUNDS and left_out[0] == [] and left_out[1] == ["3"] and left_out[2] == []
    bar = f"all rounds end; at no site {DICE_BAR} below calibration"
    return Row(
        "training with quantizers in rounds, a site and the server killed",
        found,
        bar,
        whole and min(short) >= -DICE_BAR,
    )


def _trained(asked: Asked, held: Material, folder: Path) -> tuple[Rounds, str]:
    (folder / "3.kill-2").touch()
    path = os.pathsep.join([str(ROOT), str(ROOT / "scripts"), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    module = "benchmarks.clinic_kit.rounds_process"
    command = [sys.executable, "-m", module, "server", str(asked.seed), str(folder), str(ROUNDS)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)
    while not (folder / "1.in-3").exists() and server.poll() is None:
        time.sleep(0.02)
    server.kill()
    server.wait()
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    start = weights_of(quantized(held))
    done = recover(
        LocalGrid({}), start, folder / "server", RecoverySettings(ROUNDS)
    )  # as they are kept: none is trained
    first = (folder / "1.log").read_text().split()
    return done, f"server killed by SIGKILL in round 3, site 1 trained rounds {', '.join(first)}"


def _of_int8(held: Material, weights: Any, folder: Path) -> Dice:
    artifact = int8_of(quantized(held), weights, held.task.input_specs(**held.arch), folder, bits())
    return held.dice(artifact, folder / "artifact")


def _calibrated(held: Material, model: Any, folder: Path) -> Dice:
    """int8 of a float network by calibration over the cases of all sites, as if they were pooled."""
    folder.mkdir()
    told = export_reference(model, held.task.input_specs(**held.arch), folder / "reference.onnx")
    cases = [case for site in SITES for case in held.calibration[site]]
    request = BuildRequest(
        told.path, told.inputs, told.outputs, "int8", lambda: map(held.feed, cases), weight_bits=bits()
    )
    return held.dice(OnnxRuntimeTarget().build(request, folder / "artifact"), folder / "artifact")


def _float_rounds(held: Material, folder: Path) -> Any:
    """As many rounds of the float network on the same images, in this process: what more training alone does."""
    from copy import deepcopy

    apps = {
        node: recovery_app(
            task_of(held, site),
            lambda: deepcopy(held.model),
            arch=held.arch,
            cases=len(trained_cases(held, site)),
            epochs=EPOCHS,
            teacher=lambda: held.model,
        )
        for node, site in enumerate(SITES, start=2)  # node 1 is the server
    }
    done = recover(LocalGrid(apps), weights_of(held.model), folder, RecoverySettings(ROUNDS))
    return load_into(deepcopy(held.model), done.weights)


def _personal(held: Material, done: Rounds, site: str, shared: Dice, folder: Path) -> str:
    """Whether a site's own copy, trained on after the rounds, is kept there."""
    own = load_into(quantized(held), done.weights)
    specs = held.task.input_specs(**held.arch)
    train_quantized_here(
        own, task_of(held, site), arch=held.arch, epochs=EPOCHS, specs=specs, seed=ROUNDS + 1, teacher=held.model
    )
    dice = _of_int8(held, weights_of(own), folder / f"own-{site}")
    cases = [case for case in held.judged[site] if case in dice and case in shared]
    found = judge_personal([dice[case] for case in cases], [shared[case] for case in cases])
    lower = "no bound" if found.lower is None else f"bound {found.lower:+.4f}"
    return f"{site}'s own copy {found.gain:+.4f} ({lower}) {'kept' if found.kept else 'not kept'}"


def _at(held: Material, values: Dice, site: str) -> float:
    return float(np.mean([values[case] for case in held.judged[site] if case in values]))


ROWS = (qat_rounds,)
