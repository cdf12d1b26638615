"""OpenVINO on CPUs: float32, bfloat16 and int8 (NNCF) as IR.

The precision hint is always written down: without one, OpenVINO silently runs bfloat16 on CPUs that have it. Measured
(trained 16-channel UNet, 128 x 128, 2 threads of a Zen 4 with VNNI and AVX512-BF16, interleaved medians; relative L2 to
float32):

    float32 6.5 ms | bfloat16 3.6 ms, 0.003 | int8 2.4 ms, 0.008

For int8 the presets PERFORMANCE and MIXED, fast and full bias correction, and bfloat16 for the layers that stay float, all
gave 2.34 to 2.44 ms and 0.008. MIXED (asymmetric activations) is taken because it costs nothing here and fits activations
that are not symmetric; float32 for the rest, because then int8 is the only approximation in the artifact.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgedeploy.artifact import Artifact, sha256_file
from edgedeploy.errors import Unsupported
from edgedeploy.protocols import Array, BuildRequest, Readiness
from edgedeploy.targets.common import (
    CALIBRATION_LIMIT,
    calibration_feeds,
    check_outputs,
    first_feed,
    look_for,
    require,
    staged,
    translated,
)
from edgedeploy.targets.graph import with_node
from edgedeploy.targets.reference import random_inputs

ENTRY: Final = "model.xml"
PRECISION_HINTS: Final = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVinoTarget:
    """Writes IR; see the module for the recipe of each precision."""

    name = "openvino"
    precisions: tuple[str, ...] = ("float32", "bfloat16", "int8")
    extra = "study"

    def probe(self) -> Readiness:
        return look_for(("openvino", "nncf"), self.extra)

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.protocols.Target`. Two files, and the precision hint as a session setting.

        bfloat16 differs from float32 in the hint alone; whether the board's CPU has it, the board says.
        """
        versions = require(self, request.precision)
        settings = {"INFERENCE_PRECISION_HINT": PRECISION_HINTS[request.precision]}
        with staged(folder) as scratch:
            path = scratch / ENTRY
            _write(request, path)
            _prove(path, request, settings)
        return Artifact.of_folder(
            folder,
            target=self.name,
            precision=request.precision,
            entry=ENTRY,
            inputs=request.inputs,
            outputs=request.outputs,
            settings=settings,
            reference_sha256=sha256_file(request.reference),
            built_with=versions,
        )


def _write(request: BuildRequest, path: Path) -> None:
    import openvino as ov

    asked, remedy = f"{request.reference.name} in OpenVINO {ov.__version__}", "Replace the operator it names"
    try:
        with translated(asked, remedy, Unsupported):
            model = ov.Core().read_model(str(request.reference))
    except Unsupported as exc:
        raise Unsupported(asked, _with_node(exc.found, request.reference), remedy) from exc
    _name_layers(model, "converted")
    if request.precision == "int8":
        first_feed(request)
        model = _quantize(model, request)
        _name_layers(model, "quantized")
    _name_tensors(model, request)
    ov.save_model(model, str(path), compress_to_fp16=False)


def _with_node(message: str, reference: Path) -> str:
    """OpenVINO names the operators it lacks, not their nodes."""
    import onnx

    try:
        return with_node(message, onnx.load(str(reference), load_external_data=False))
    except Exception:  # a file that is no model has no nodes; protobuf's exception has no public name
        return message


def _name_tensors(model: Any, request: BuildRequest) -> None:
    """Give each input and output the reference's name, and the tensors between them none.

    Where a layer at the end is folded away, the runtime's output takes on the name of the tensor before it as well, and
    may answer with either.
    """
    named: dict[str, Any] = {}
    for ports, specs in ((model.inputs, request.inputs), (model.outputs, request.outputs)):
        known = {name: port for port in ports for name in port.get_names()}
        for spec in specs:
            if spec.name not in known:
                found = ", ".join(sorted(known))
                raise Unsupported(
                    f"tensor {spec.name!r} in OpenVINO", f"conversion kept {found}", "Rename it in the model"
                )
            named[spec.name] = known[spec.name]
    for operation in model.get_ops():
        for port in operation.outputs():
            port.get_tensor().set_names(set())
    for name, port in named.items():
        port.get_tensor().add_names({name})


def _name_layers(model: Any, step: str) -> None:
    """Number the layers that ``step`` named from a process-wide counter, so that two builds are equal byte for byte."""
    for index, operation in enumerate(model.get_ordered_ops()):
        kind, _, counter = operation.get_friendly_name().rpartition("_")
        if kind == operation.get_type_name() and counter.isdigit():
            operation.set_friendly_name(f"{kind}#{step}{index}")


def _quantize(model: Any, request: BuildRequest) -> Any:
    nncf = _quiet_nncf()
    with translated("int8 quantization by NNCF", "Search another precision for this architecture"):
        quantized = nncf.quantize(
            model,
            nncf.Dataset(_Cases(request)),
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=CALIBRATION_LIMIT,
        )
    if not any(operation.get_type_name() == "FakeQuantize" for operation in quantized.get_ops()):
        raise Unsupported(
            "int8 layers", "NNCF found nothing in the model that it can quantize", "Search float32 instead"
        )
    return quantized


@dataclass(frozen=True)
class _Cases:
    """Calibration that starts over each time it is iterated: NNCF reads it more than once and keeps none of it."""

    request: BuildRequest

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return calibration_feeds(self.request)


def _quiet_nncf() -> Any:
    """NNCF without telemetry, progress bars and log lines.

    A build must not call home, and a second live progress bar breaks the first one. NNCF offers a switch for neither: its
    own continuous-integration variable turns telemetry off, its progress class is replaced.
    """
    os.environ.setdefault("NNCF_CI", "1")
    import nncf
    from nncf.common.logging import track_progress
    from rich.progress import Progress

    def silent(*columns: Any, **options: Any) -> Progress:
        return Progress(*columns, **{**options, "disable": True})

    track_progress.Progress = silent
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf


def _prove(path: Path, request: BuildRequest, settings: dict[str, str]) -> None:
    """Compile the files and run them once. Raises ``Unsupported`` when that fails or gives no numbers."""
    import openvino as ov

    what = f"the {request.precision} model"
    with translated(f"{what} on OpenVINO's CPU device", "Try another precision", Unsupported):
        compiled = ov.Core().compile_model(str(path), "CPU", settings)
        results = compiled(random_inputs(request.inputs))
    check_outputs(what, {port.get_any_name(): value for port, value in results.items()}, request.outputs)
