"""OpenVINO on CPUs: float32, bfloat16, int8 and weights in 8 or 4 bits (NNCF) as IR; single layers by a plan.

The precision hint is always written down: without one, OpenVINO silently runs bfloat16 on CPUs that have it. Measured
(trained 16-channel UNet, 128 x 128, 2 threads of a Zen 4 with VNNI and AVX512-BF16, interleaved medians; relative L2 to
float32):

    float32 6.5 ms | bfloat16 3.6 ms, 0.003 | int8 2.4 ms, 0.008

For int8 the presets PERFORMANCE and MIXED, fast and full bias correction, and bfloat16 for the layers that stay float,
all gave 2.34 to 2.44 ms and 0.008. MIXED (asymmetric activations) is used, because it is as fast and fits activations
that are not symmetric. Other layers use float32, so that int8 is the only approximation in the artifact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from edgedeploy.errors import Unsupported
from edgedeploy.interfaces.ability import INT8_DOT_PRODUCTS, Demand
from edgedeploy.interfaces.target import BuildRequest, Readiness
from edgedeploy.records.artifact import Artifact
from edgedeploy.records.precision import AS_GIVEN, NARROW, WEIGHTS_ONLY, Int8Scheme, assign
from edgedeploy.reference.batches import open_model_batch
from edgedeploy.reference.external import save, weights_file
from edgedeploy.reference.layers import check_alive, check_followed, layers_of, name_nodes
from edgedeploy.reference.safety_child import outline
from edgedeploy.reference.skips import input_skips
from edgedeploy.reference.translate import nodes_named, translated
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
from edgedeploy.targets.openvino.compact import save_compact
from edgedeploy.targets.openvino.constants import narrow_weights
from edgedeploy.targets.openvino.layers import label_operations, name_ranges
from edgedeploy.targets.openvino.quantize import CALIBRATIONS, check_narrow, compress, narrow_nodes, quantize
from edgedeploy.targets.openvino.quantizers import ONNXRUNTIME, QUANTIZERS, pairs_of_onnxruntime
from edgedeploy.targets.openvino.toolkit import convert
from edgedeploy.targets.share import check_share

ENTRY: Final = "model.xml"
BF16_INSTRUCTIONS: Final = ("avx512_bf16", "amx_bf16")
"""What bfloat16 runs on natively (OpenVINO's documentation of the CPU device). On AVX-512 without them it is simulated,
slower than float32; Arm CPUs have no bfloat16 there."""

FLOATS: Final = ("float32", "bfloat16")
PRECISION_HINTS: Final = {"bfloat16": "bf16", **dict.fromkeys(("float32", "int8", *WEIGHTS_ONLY, AS_GIVEN), "f32")}


_COUNTED: Final = re.compile(r"(.*)_\d+(?:\.\d+)?")
"""A name that ends with a counter, as ``Split_14160.0``."""


class OpenVinoTarget:
    """Writes IR; see the module for the recipe of each precision."""

    name = "openvino"
    session = BUILTIN["openvino"]
    precisions: tuple[str, ...] = ("float32", "bfloat16", "int8", "int8-weights", "int4-weights")
    demands: Mapping[str, Demand] = {
        "bfloat16": Demand(runs_with=BF16_INSTRUCTIONS, fast_with=BF16_INSTRUCTIONS),
        "int8": Demand(fast_with=INT8_DOT_PRODUCTS),
    }
    layer_precisions: tuple[str, ...] = ("float32", "bfloat16", "int8", "int8-weights", "int4-weights")
    int8_scheme = Int8Scheme(outputs=False, mean_extremes=True)
    calibrations: tuple[str, ...] = CALIBRATIONS
    quantizers: Mapping[str, tuple[str, ...]] = QUANTIZERS
    seven_bit_precisions: tuple[str, ...] = ("int8",)
    takes_quantized = True
    takes_batches = True
    extra = "study"

    def check_given(self, reference: Path) -> None:
        """Convert the file; see :class:`edgedeploy.interfaces.target.TakesAsGiven`."""
        import openvino as ov

        with (
            nodes_named(reference),
            translated("the model in OpenVINO as it is given", "Leave out the target openvino", Unsupported),
        ):
            model = ov.Core().read_model(str(reference))
        doubles = [op for op in model.get_ordered_ops() if _computes_doubles(op)]
        if doubles:
            found = (
                f"its CPU device computes {doubles[0].get_friendly_name()!r} ({doubles[0].get_type_name()}) in float32"
            )
            raise Unsupported("a float64 model in OpenVINO", found, "Leave out the target openvino, or export float32")

    def probe(self) -> Readiness:
        return look_for(("openvino", "nncf"), self.extra)

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """See :class:`edgedeploy.interfaces.target.Target`. Two files, and the precision hint as a session setting.

        bfloat16 differs from float32 in the hint alone; whether the board's CPU has it, the board says.
        """

        def write(scratch: Path, versions: dict[str, str]) -> Mapping[str, str]:
            settings = {"INFERENCE_PRECISION_HINT": _float_hint(request)}
            if calibrates(request):
                first_feed(request)
            path = scratch / ENTRY
            _write(request, path)
            _prove(path, request, settings)
            return settings

        return staged_artifact(self, request, folder, ENTRY, write)


def _computes_doubles(operation: Any) -> bool:
    moves = ("Parameter", "Result", "Constant", "Convert")
    return operation.get_type_name() not in moves and any(
        port.get_element_type().get_type_name() == "f64" for port in operation.outputs()
    )


def _float_hint(request: BuildRequest) -> str:
    """The precision hint: what runs wherever nothing is quantized. Raises ``Unsupported`` for two float precisions."""
    asked = {name for name in request.plan.precisions if name in FLOATS}
    if request.precision in FLOATS:
        asked.add(request.precision)
    if len(asked) > 1:
        found = "the CPU device has one float precision for all layers of a model"
        raise Unsupported(f"layers in {' and '.join(sorted(asked))}", found, "Plan one float precision beside int8")
    return PRECISION_HINTS[next(iter(asked), request.precision)]


def _write(request: BuildRequest, path: Path) -> None:
    import onnx
    import openvino as ov

    with translated(f"{request.reference.name} as an ONNX model", "Export it again"):
        source = onnx.load(str(request.reference))
    name_nodes(source)
    narrow = request.precision in NARROW or bool(request.plan.rules)
    named = path.with_name("named.onnx")
    paired = _paired(request, source, path.parent) if narrow and not request.quantized else source
    if request.max_batch > 1:
        open_model_batch(paired)
    save(paired, named)
    was_paired, source, paired = paired is not source, outline(source), None  # the weights are in the file from here on
    with (
        nodes_named(request.reference),
        translated(
            f"{request.reference.name} in OpenVINO {ov.__version__}", "Replace the operator it names", Unsupported
        ),
    ):
        # What is quantized or rounded has to be folded first: a batch norm of its own would be so apart from its
        # convolution.
        folded = narrow or _float_hint(request) != "f32"
        model = convert(named) if folded else ov.Core().read_model(str(named))
    for part in (named, weights_file(named)):
        part.unlink(missing_ok=True)
    sources = label_operations(model, source)
    if was_paired:
        name_ranges(model, source)
    _name_layers(model, "converted")
    if narrow and not request.quantized:
        model = _narrowed(request, model, source, sources)
        _name_layers(model, "quantized")
    narrow_weights(model, _float_hint(request))
    _name_layers(model, "stored")
    _name_tensors(model, request)
    if request.max_batch > 1:
        _open_batch(model, request)
    save_compact(model, path)


def _open_batch(model: Any, request: BuildRequest) -> None:
    """Let the first axis of all inputs be 1 to ``max_batch``."""
    import openvino as ov

    shapes = {}
    for spec in request.inputs:
        first = ov.Dimension(1, request.max_batch) if spec.shape[:1] == (1,) else ov.Dimension(*spec.shape[:1])
        shapes[spec.name] = ov.PartialShape([first, *spec.shape[1:]])
    asked = f"batches of {request.max_batch} of {request.reference.name} in OpenVINO"
    with translated(asked, "Leave max_batch out", Unsupported):
        model.reshape(shapes)


def _paired(request: BuildRequest, source: Any, scratch: Path) -> Any:
    """``source``, with pairs of quantizers where the request takes them from ONNX Runtime."""
    assignment = assign(request.plan, layers_of(source), request.precision)
    if request.quantizer != ONNXRUNTIME or "int8" not in assignment.precisions.values():
        return source
    return pairs_of_onnxruntime(request, source, assignment, scratch)


def _narrowed(request: BuildRequest, model: Any, source: Any, sources: dict[str, tuple[str, ...]]) -> Any:
    """``model`` as precision and plan want it, and shown to be so."""
    assignment = assign(request.plan, layers_of(source), request.precision)
    wanted = set(assignment.precisions.values())
    check_alive(request.plan, assignment, sources.values())
    if "int8" in wanted and request.quantizer != ONNXRUNTIME:
        skips = input_skips(source)
        own = [name for name, names in sources.items() if names and skips.keys() >= set(names)]
        model = quantize(model, request, assignment, sources, own)
    narrow = narrow_nodes(model)
    for precision in (name for name in WEIGHTS_ONLY if name in wanted):
        model = compress(model, request, assignment, sources, precision)
        narrow = {name: narrow.get(name, precision) for name in narrow_nodes(model)}
    check_narrow(request, wanted, narrow)
    check_followed(request.plan, assignment, sources, narrow)
    check_share(request.precision, source, assignment, {name for node in narrow for name in sources.get(node, ())})
    return model


def _name_tensors(model: Any, request: BuildRequest) -> None:
    """Give each input and output the reference's name, and the tensors between them none.

    When the last layer is folded away, the runtime's output also gets the name of the tensor before it, and results may
    be under either name.
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
    """Renumber layers whose names ``step`` took from a process-wide counter, so that two builds are equal byte for
    byte. A constant may carry the name of what was folded into it, and of which of its outputs."""
    for index, operation in enumerate(model.get_ordered_ops()):
        counted = _COUNTED.fullmatch(operation.get_friendly_name())
        if counted and (counted[1] == operation.get_type_name() or operation.get_type_name() == "Constant"):
            operation.set_friendly_name(f"{operation.get_type_name()}#{step}{index}")


def _prove(path: Path, request: BuildRequest, settings: dict[str, str]) -> None:
    """Compile the files and run them once. Raises ``Unsupported`` when that fails or gives no numbers."""
    import openvino as ov

    what = f"the {request.precision} model"
    with translated(f"{what} on OpenVINO's CPU device", "Try another precision", Unsupported):
        compiled = ov.Core().compile_model(str(path), "CPU", settings)
        results = compiled(probe_feed(request))
        if request.max_batch > 1:
            check_batch(lambda case: _named(compiled(case)), probe_feed(request), request)
    check_outputs(what, _named(results), request.outputs)


def _named(results: Any) -> dict[str, Any]:
    return {port.get_any_name(): value.copy() for port, value in results.items()}
