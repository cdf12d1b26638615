"""LiteRT (TensorFlow Lite) on CPUs: float32, float16 weights, int8 with ranges from calibration, dynamic int8; single layers
by a plan.

No recipe is the best everywhere, so each is a separate precision for the search to measure:

- ``int8``: one scale per output channel of a weight, and asymmetric activations whose ranges are chosen by trying
  (:mod:`.ranges`). The file's inputs and outputs stay float unless ``integer_io`` is set.
  A model that was trained to be int8 keeps its learned scales (:mod:`.trained`).
- ``int8-dynamic``: the same weights, no calibration; kernels quantize their input at each query.
- ``float16``: half the file size; a CPU without float16 arithmetic widens the weights at load and computes in float32.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from edgedeploy.errors import BuildError, Unsupported
from edgedeploy.files import read_json
from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS, Demand
from edgedeploy.interfaces.target import BuildRequest, Readiness
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import Int8Scheme, assign
from edgedeploy.records.variant import digest_of
from edgedeploy.reference import graph
from edgedeploy.reference.export import describe
from edgedeploy.reference.layers import layers_of, name_nodes
from edgedeploy.reference.program import CONVERTED
from edgedeploy.runtime.files import sha256_file
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.targets.common import calibration_feeds, first_feed, look_for, staged_artifact
from edgedeploy.targets.litert import from_onnx
from edgedeploy.targets.litert.ranges import CALIBRATIONS
from edgedeploy.targets.litert.tool import ToolJob, error_of, write_cases

ENTRY: Final = "model.tflite"

TOOL = (sys.executable, "-m", "edgedeploy.targets.litert.tool")
"""The command of the process that converts and quantizes, before its job."""

LAYOUT: Final = "contiguous"
"""Of the weights that are converted. Files that were kept from others may have a layer's weights in another one's place."""


class LiteRtTarget:
    """``integer_io`` makes the inputs and outputs of int8 artifacts int8 too, for products whose camera or accelerator
    speaks it."""

    name = "litert"
    session = BUILTIN["litert"]
    precisions: tuple[str, ...] = ("float32", "float16", "int8", "int8-dynamic")
    demands: Mapping[str, Demand] = {
        "int8": Demand(fast_with=INT8_DOT_PRODUCTS),
        "int8-dynamic": Demand(fast_with=INT8_DOT_PRODUCTS),
    }
    layer_precisions: tuple[str, ...] = ("float32", "float16", "int8")
    int8_scheme = Int8Scheme(one_range=("Concat",))
    calibrations: tuple[str, ...] = CALIBRATIONS
    quantizers: Mapping[str, tuple[str, ...]] = {"ai-edge-quantizer": CALIBRATIONS}
    extra = "litert"
    from_program = True
    takes_quantized = True

    def __init__(self, *, integer_io: bool = False) -> None:
        self._integer_io = integer_io

    def probe(self) -> Readiness:
        readiness = look_for(("ai-edge-litert", "ai-edge-quantizer", "litert-torch"), self.extra)
        return replace(readiness, found=f"{readiness.found}; for ONNX files: {from_onnx.found_converter()}")

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.interfaces.target.Target`. One file; a session setting where an output is channels last."""

        def write(scratch: Path, versions: dict[str, str]) -> Mapping[str, str]:
            _refuse_early(request)
            with TemporaryDirectory(dir=scratch) as desk:
                keep = None
                if request.quantized:
                    source = _trained_program(request)
                elif request.program is None:
                    source, versions["onnx2tf"] = from_onnx.convert(request, Path(desk))
                    del versions["litert-torch"]
                else:
                    keep = _converted(request.program, request, versions)
                    source = keep if _is_whole(keep) else request.program
                job = ToolJob(
                    source=source,
                    reference=request.reference,
                    output=scratch / ENTRY,
                    inputs=request.inputs,
                    outputs=request.outputs,
                    precision=request.precision,
                    plan=request.plan,
                    integer_io=self._integer_io,
                    calibrator=request.calibrator,
                    keep=None if keep == source else keep,
                    quantized=request.quantized,
                )
                return _run_tool(job, _cases(request, job.calibrated), Path(desk))

        return staged_artifact(self, request, folder, ENTRY, write)


def _converted(program: Path, request: BuildRequest, versions: Mapping[str, str]) -> Path:
    """Path of the float model converted from ``program``. It is kept for other precisions and plans, because conversion
    takes most of a build. The name contains all that it depends on."""
    edges = [[spec.as_json() for spec in specs] for specs in (request.inputs, request.outputs)]
    name = digest_of([sha256_file(program), edges, versions["litert-torch"], LAYOUT])[:16]
    return program.with_name(f"{CONVERTED}{name}.tflite")


def _trained_program(request: BuildRequest) -> Path:
    """The torch program of a model that was trained to be int8. Raises ``Unsupported`` without one: there is no way to
    LiteRT that keeps the scales of an ONNX file."""
    if request.program is None:
        asked = f"{request.reference.name}, which was trained to be int8, in LiteRT"
        found = "its scales are taken from torch's program, which is not there: it is a tile, or the ONNX file alone"
        raise Unsupported(asked, found, "Search training = ['ptq'] for it")
    return request.program


def _is_whole(kept: Path) -> bool:
    noted = kept.with_suffix(".json")
    return kept.is_file() and noted.is_file() and read_json(noted)["sha256"] == sha256_file(kept)


def _refuse_early(request: BuildRequest) -> None:
    """Refuse what can be seen before the conversion: operators of other domains, which no converter supports (here the
    error can name the node), and rules of the plan that match no layer."""
    import onnx

    describe(request.reference)
    model = onnx.load(str(request.reference))
    node = graph.foreign_node(model)
    if node is not None:
        raise Unsupported(
            f"{request.reference.name} in LiteRT",
            f"node {node.name!r} is a {node.domain}.{node.op_type}, which is no standard operator",
            "Replace the operator",
        )
    name_nodes(model)
    assign(request.plan, layers_of(model), request.precision)


def _cases(request: BuildRequest, calibrated: bool) -> Iterator[dict[str, Array]]:
    """All of them for the ranges; else the first, on which the model is traced and compared with its reference."""
    if not calibrated:
        return islice(calibration_feeds(request), 1)
    first_feed(request)
    return calibration_feeds(request)


def _run_tool(job: ToolJob, cases: Iterator[dict[str, Array]], desk: Path) -> Mapping[str, str]:
    """Run the child, send it the cases, and raise what it reports. ``desk`` holds the job and the report. Returns the
    artifact's session settings."""
    result = desk / "result.json"
    (desk / "job.json").write_text(json.dumps(job.as_json()), encoding="utf-8")
    argv = [*TOOL, str(desk / "job.json"), str(result)]
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with (desk / "log.txt").open("w+b") as log:
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment) as child:
            assert child.stdin is not None
            try:
                with suppress(BrokenPipeError):  # it ended early, and its report says why
                    write_cases(child.stdin, cases, job.inputs)
                with suppress(BrokenPipeError):  # closing tries to write once more
                    child.stdin.close()
            except BaseException:
                child.kill()
                raise
        log.seek(0)
        text = log.read().decode(errors="replace")
    if not result.is_file():
        raise _crash(child.returncode, text)
    report = json.loads(result.read_text(encoding="utf-8"))
    if "error" in report:
        raise error_of(report)
    settings: dict[str, str] = report["settings"]
    return settings


def _crash(status: int, log: str) -> Exception:
    """The error for a child that ended without a report: the converter crashed, or the system was out of memory."""
    if status == -signal.SIGKILL:
        return MemoryError("the LiteRT converter was killed: this host is short of memory")
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    said = lines[-1][:400] if lines else "it said nothing"
    return BuildError("conversion to LiteRT", f"the converter ended with status {status}: {said}", "Try another target")
