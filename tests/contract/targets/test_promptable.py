"""A promptable transformer, its weights random, as each target builds and runs it on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from promptable_kit import SMALL

from edgedeploy.interfaces.target import BuildRequest, Target
from edgedeploy.interfaces.task import Array, baseline_arch
from edgedeploy.reference.export import Reference, export_reference, run_reference
from edgedeploy.reference.parity import check_parity
from edgedeploy.reference.program import PROGRAM_FILE, export_program
from edgedeploy.runtime.sessions.open import Session, open_session
from edgedeploy.targets.litert.target import LiteRtTarget
from edgedeploy.targets.onnxruntime.target import OnnxRuntimeTarget
from edgedeploy.targets.openvino.target import OpenVinoTarget
from edgedeploy.tasks.promptable.task import Promptable

pytestmark = pytest.mark.usefixtures("warm_converter")

TASK = Promptable(SMALL)
ARCH = baseline_arch(TASK)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder, model, specs = tmp_path_factory.mktemp("vit"), TASK.build(**ARCH).eval(), TASK.input_specs(**ARCH)
    (*samples,) = cases()
    reference = export_reference(model, specs, folder / "reference.onnx", samples=samples)
    export_program(model, specs, folder / PROGRAM_FILE, samples[0])
    return reference


def cases() -> Iterator[dict[str, Array]]:
    return (TASK.inputs(case, **ARCH) for case in TASK.cases("calibration"))


def opened(target: Target, precision: str, reference: Reference, folder: Path) -> Session:
    program = reference.path.with_name(PROGRAM_FILE) if isinstance(target, LiteRtTarget) else None
    request = BuildRequest(reference.path, reference.inputs, reference.outputs, precision, cases, program=program)
    artifact = target.build(request, folder)
    return open_session(target.name, folder, artifact.entry, dict(artifact.settings), 1)


@pytest.mark.parametrize("precision", ["float32", "int8", "int8-dynamic"])
@pytest.mark.parametrize(
    "target", [OnnxRuntimeTarget(), OpenVinoTarget(), LiteRtTarget()], ids=lambda target: target.name
)
def test_it_answers_box_and_point_as_its_reference_does(
    target: Target, precision: str, exported: Reference, tmp_path: Path
) -> None:
    if precision not in target.precisions:
        pytest.skip(f"{target.name} has no {precision}")
    if not target.probe().ready:
        pytest.skip(target.probe().found)
    session = opened(target, precision, exported, tmp_path / "built")
    answers = []
    for case in TASK.cases("selection")[:2]:
        feed = TASK.inputs(case, **ARCH)
        wanted, found = run_reference(exported, feed), session.run(feed)
        check_parity(wanted, dict(zip(wanted, found.values(), strict=True)), precision)
        answers.append(next(iter(found.values())))
    assert not np.allclose(*answers)  # one image and one structure: the prompt alone differs
    assert {case.id.rpartition("-")[2] for case in TASK.cases("selection")[:2]} == {"box", "point"}
    if precision != "float32":
        assert session.executed().get(precision, 0) > 10
