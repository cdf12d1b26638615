"""ONNX Runtime on CPUs: float32 as exported, int8 as QDQ, dynamic int8 and weights in 8 or 4 bits of matrix products; single
layers by a plan.

The int8 recipe was chosen by measurement (trained 16-channel UNet, 128 x 128, 2 threads of a Zen 4 with VNNI, interleaved
medians; relative L2 to float32; Dice was 0.938 to 0.940 for all):

    float32 6.6 ms | unsigned activations, min-max 3.4 ms, 0.009 | signed activations 5.7 ms, 0.009
    percentile 99.99 3.5 ms, 0.011 (worst case 0.036) | entropy 3.5 ms, 0.009, builds 4 times slower
    head left in float32 3.5 ms, 0.007 | weights in 7 bits 3.5 ms, 0.012

float16 is not offered: ONNX Runtime's CPU kernels are float32, and such files run slower than float32 ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS, Demand
from edgedeploy.interfaces.target import BuildRequest, Readiness
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import AS_GIVEN, Int8Scheme
from edgedeploy.reference.batches import open_batch
from edgedeploy.reference.export import open_onnx
from edgedeploy.reference.external import copy
from edgedeploy.reference.quantized import integer_biases, unsigned_activations
from edgedeploy.reference.translate import translated
from edgedeploy.runtime.sessions.sources import BUILTIN
from edgedeploy.targets.common import (
    calibrates,
    check_batch,
    check_outputs,
    first_feed,
    look_for,
    probe_feed,
    staged_artifact,
)
from edgedeploy.targets.onnxruntime.quantize import CALIBRATIONS, Ranges, settings_of, write_narrow
from edgedeploy.targets.onnxruntime.smooth import PRODUCTS_ALONE, SMOOTH

ENTRY: Final = "model.onnx"
QUANTIZED_SETTINGS: Final = {"optimization.disable_specified_optimizers": "MatMulAddFusion"}
"""For a quantized reference: that fusion makes Gemms of integer matrix products, and runs them in float."""


class OnnxRuntimeTarget:
    """One ONNX file per artifact; see the module for the recipe of each precision."""

    name = "onnxruntime"
    session = BUILTIN["onnxruntime"]
    precisions: tuple[str, ...] = ("float32", "int8", "int8-dynamic", "int8-weights", "int4-weights")
    demands: Mapping[str, Demand] = {
        "int8": Demand(fast_with=INT8_DOT_PRODUCTS),
        "int8-dynamic": Demand(fast_with=INT8_DOT_PRODUCTS),
    }
    layer_precisions: tuple[str, ...] = ("float32", "int8", "int8-dynamic", "int8-weights", "int4-weights")
    int8_scheme = Int8Scheme(
        operators=(
            *("Concat", "Add", "Mul", "MatMul", "AveragePool", "GlobalAveragePool", "Softmax", "Sigmoid", "LeakyRelu"),
            *("InstanceNormalization", "LayerNormalization"),
        )
    )
    calibrations: tuple[str, ...] = CALIBRATIONS
    quantizers: Mapping[str, tuple[str, ...]] = dict.fromkeys(("onnxruntime", PRODUCTS_ALONE, SMOOTH), CALIBRATIONS)
    seven_bit_precisions: tuple[str, ...] = ("int8", "int8-dynamic")
    takes_quantized = True
    takes_batches = True
    extra = "study"

    def check_given(self, reference: Path) -> None:
        """It runs whatever the taking in of a file has run."""

    def probe(self) -> Readiness:
        return look_for(("onnxruntime", "onnx"), self.extra)

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.interfaces.target.Target`. One file, and that of its weights where the
        reference has one; session settings for a quantized reference, and for float layers between int8 ones."""
        return self._built(request, folder, None)

    def build_from_ranges(self, request: BuildRequest, ranges: Ranges, folder: Path) -> Artifact:
        """int8 by ``ranges`` of the reference's float tensors, whoever measured them: the request's calibration cases are
        not read. Raises as :meth:`build` does, and ``Unsupported`` for what is calibrated otherwise."""
        if request.precision != "int8" or request.quantized or request.quantizer or request.calibrator:
            asked = f"{request.precision} from given ranges"
            found = "ranges are given for int8 by ONNX Runtime's own quantizer"
            raise Unsupported(asked, found, "Leave the quantizer and the calibrator out")
        return self._built(replace(request, calibration=lambda: iter(())), folder, ranges)

    def _built(self, request: BuildRequest, folder: Path, ranges: Ranges | None) -> Artifact:
        def write(scratch: Path, versions: dict[str, str]) -> Mapping[str, str]:
            path = scratch / ENTRY
            settings: Mapping[str, str] = QUANTIZED_SETTINGS if request.quantized else {}
            feed = first_feed(request) if calibrates(request) and ranges is None else probe_feed(request)
            if request.quantized:
                settings = _both(settings, _write_unsigned(request.reference, path))
            elif request.precision in ("float32", AS_GIVEN) and not request.plan.rules:
                copy(request.reference, path)
            else:
                settings = write_narrow(request, path, ranges)
            if request.max_batch > 1:
                open_batch(path)
            _prove(path, request, feed)
            return settings

        return staged_artifact(self, request, folder, ENTRY, write)


def _write_unsigned(reference: Path, path: Path) -> Mapping[str, str]:
    """The session settings that layers which stay float between int8 ones need: with these the runtime rounds no bias."""
    import onnx

    model = onnx.load(str(reference))
    unsigned_activations(model)
    settings = settings_of(model)
    if settings:
        integer_biases(model)
    onnx.save(model, str(path))
    return settings


def _both(some: Mapping[str, str], others: Mapping[str, str]) -> Mapping[str, str]:
    """The settings of both; a key of both lists what either lists."""
    return {**some, **{key: f"{some[key]};{value}" if key in some else value for key, value in others.items()}}


def _prove(path: Path, request: BuildRequest, feed: dict[str, Array]) -> None:
    """Open the file and run it once. Raises ``Unsupported`` when it does not load or gives no numbers."""
    session = open_onnx(path, threads=1)
    names = [output.name for output in session.get_outputs()]
    with translated(f"one inference of the {request.precision} model", "Try a wider precision", Unsupported):
        values = session.run(names, feed)
    check_outputs(f"the {request.precision} model", dict(zip(names, values, strict=True)), request.outputs)
    if request.max_batch > 1:
        with translated(f"a batch of {request.max_batch}", "Leave max_batch out", Unsupported):
            check_batch(lambda case: dict(zip(names, session.run(names, case), strict=True)), feed, request)
