"""What TensorRT refuses or silently changes, release by release, as data. Each rule names its source.

Sources are issues, documents and source files of NVIDIA's and ONNX's own projects unless the name says otherwise; three
rules were also seen in ``tensorrt-rtx`` 1.7.1.116 (int32 bias, zero points that are not 0, UINT8 with a warning only).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from edgedeploy.targets.tensorrt.version import OLDEST, TrtVersion

Severity = Literal["error", "warning"]
Device = Literal["any", "dla"]

_OPERATORS = "https://github.com/onnx/onnx-tensorrt/blob/release/10.15-GA/docs/operators.md"
_OPERATORS_85 = "https://github.com/onnx/onnx-tensorrt/blob/release/8.5-GA/docs/operators.md"
_CHANGES = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/Changelog.md"
_DLA = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html"
_STRONG_TYPES = "https://docs.nvidia.com/deeplearning/tensorrt/11.0.0/api/migration/tensorrt-10x-to-11x-trtexec.html"


@dataclass(frozen=True)
class Rule:
    """One limit. ``finder`` names the function of :mod:`.lint` that looks for it, with ``arguments``.

    It holds from release ``since`` on and up to (not with) ``before``. ``error`` means the board refuses the model or
    computes something else; ``warning`` that a layer moves or a value is converted.
    """

    id: str
    finder: str
    severity: Severity
    text: str
    remedy: str
    source: str
    since: TrtVersion = OLDEST
    before: TrtVersion | None = None
    device: Device = "any"
    arguments: Mapping[str, Sequence[str] | int] = field(default_factory=dict)

    def holds_for(self, version: TrtVersion, dla: bool) -> bool:
        in_range = self.since <= version and (self.before is None or version < self.before)
        return in_range and (self.device == "any" or dla)


OPSET_LIMITS: Final[tuple[tuple[TrtVersion, int, str], ...]] = (
    (TrtVersion(8, 0), 13, _CHANGES),
    (TrtVersion(8, 5), 17, _OPERATORS_85),
    (TrtVersion(9, 2), 19, "https://github.com/onnx/onnx-tensorrt/blob/release/9.2-GA/docs/operators.md"),
    (TrtVersion(10, 0), 20, "https://github.com/onnx/onnx-tensorrt/blob/release/10.0-GA/docs/operators.md"),
    (TrtVersion(10, 15), 24, _OPERATORS),
    (TrtVersion(11, 0), 25, "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html"),
)
"""The newest operator set from each release on, with the source. Releases between two entries have that of the older
one.

All but the entry of 10.0 were read in their source; that one follows from the ONNX releases that the change log names
(1.14 in 9.0, 1.17 in 10.6) and may be too low for 10.6 to 10.14: it refuses too much there, never too little."""

NEVER: Final = (
    "AffineGrid", "Bernoulli", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "CenterCropPad", "Col2Im",
    "Compress", "ConcatFromSequence", "ConvInteger", "DFT", "Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger",
    "MaxRoiPool", "MaxUnpool", "MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional",
    "OptionalGetElement", "OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt",
    "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap",
    "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringNormalizer", "TfIdfVectorizer", "Unique",
)  # fmt: skip
"""Operators without support up to 10.15."""

SINCE: Final[tuple[tuple[TrtVersion, tuple[str, ...]], ...]] = (
    (TrtVersion(8, 2), ("Einsum", "GatherND", "IsNaN", "Round", "Scatter", "ScatterElements", "ScatterND", "Sign")),
    (TrtVersion(8, 4), ("Shrink", "Xor")),
    (
        TrtVersion(8, 5),
        ("GridSample", "MeanVarianceNormalization", "Mod", "NonZero", "RandomNormal", "RoiAlign", "Trilu"),
    ),
    (TrtVersion(8, 6), ("GroupNormalization", "IsInf", "LayerNormalization")),
    (TrtVersion(9, 2), ("Hardmax",)),
    (TrtVersion(10, 1), ("DeformConv",)),
    (TrtVersion(10, 4), ("BlackmanWindow", "HammingWindow", "HannWindow")),
    (TrtVersion(10, 5), ("STFT",)),
)
"""Operators by the release that added them."""

DLA_OPERATORS: Final = (
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "Div", "Gemm",
    "GlobalAveragePool", "GlobalMaxPool", "LRN", "LeakyRelu", "MatMul", "Max", "MaxPool", "Min", "Mul", "PRelu", "Pow",
    "Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Softmax", "Split", "Sub", "Sum", "Tanh", "Transpose",
)  # fmt: skip
"""Operators that can become a DLA layer at all; whether one does, its parameters and the build's log decide."""

_WEAKLY_TYPED: Final[tuple[tuple[str, TrtVersion, Device], ...]] = (
    ("", TrtVersion(10, 0), "any"),
    ("-dla", TrtVersion(11, 0), "dla"),
)

RULES: Final[tuple[Rule, ...]] = (
    Rule(
        "qdq-uint8", "zero_point_type", "error",
        "a UINT8 zero point is only warned about and then read as INT8",
        "Quantize activations as QInt8",
        "https://github.com/leimao/PyTorch-Eager-Mode-Quantization-TensorRT-Acceleration/issues/1",
        arguments={"types": ("UINT8",)},
    ),
    Rule(
        "qdq-asymmetric", "zero_point_value", "error",
        "zero points have to be 0: quantization is symmetric",
        "Quantize with ActivationSymmetric and WeightSymmetric",
        "https://github.com/NVIDIA/TensorRT/issues/2774",
    ),
    Rule(
        "qdq-int32-bias", "dequantized_type", "error",
        "an int32 bias cannot be dequantized: only activation types are",
        "Quantize with QuantizeBias False: biases stay float",
        "https://github.com/microsoft/onnxruntime/issues/14229",
        arguments={"types": ("INT32",)},
    ),
    Rule(
        "qdq-scale", "scale_value", "error",
        "scales have to be positive and finite",
        "Look for channels or activations that are always 0; calibrate on other cases",
        "https://github.com/NVIDIA/TensorRT/issues/2498",
    ),
    Rule(
        "qdq-folded-weights", "folded_weights", "error",
        "int8 weights as constants are not taken: 'invalid weights type of Int8' (seen in 8.2.5)",
        "Quantize with AddQDQPairToWeight: float weights followed by Q and DQ",
        "https://github.com/NVIDIA/TensorRT/tree/main/tools/experimental/trt-engine-explorer/examples/pytorch/resnet",
        before=TrtVersion(8, 6),
    ),
    Rule(
        "qdq-hardware", "int8_hardware", "error",
        "QDQ networks require hardware with INT8; this GPU has none",
        "Choose float16 for this board",
        "https://github.com/NVIDIA/TensorRT/issues/3157",
        arguments={"lacking": ("5.3", "6.0", "6.2")},
    ),
    Rule(
        "dynamic-shape", "open_dimension", "error",
        "an open dimension needs an optimization profile; engines here serve one shape",
        "Export with fixed shapes",
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html",
    ),
    Rule(
        "opset-new", "opset_above_limit", "error",
        "the operator set is newer than this release's parser",
        "Export or convert to the older operator set, or upgrade JetPack",
        _OPERATORS,
    ),
    Rule(
        "opset-old", "opset_below", "error",
        "the operator set is older than the parser supports",
        "Export again with a newer operator set",
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html",
        arguments={"oldest": 9},
    ),
    Rule(
        "operator-unsupported", "operators", "error",
        "the parser has no such operator",
        "Replace the operator",
        _OPERATORS,
        arguments={"names": NEVER},
    ),
    *(
        Rule(
            f"operator-since-{version.major}.{version.minor}", "operators", "error",
            f"the parser has this operator from {version.major}.{version.minor} on",
            "Upgrade JetPack, or replace the operator",
            _CHANGES,
            before=version,
            arguments={"names": names},
        )
        for version, names in SINCE
    ),
    Rule(
        "operator-foreign", "foreign_domain", "error",
        "an operator of another domain needs a plug-in that the board does not have",
        "Export with standard operators",
        _OPERATORS,
    ),
    Rule(
        "resize-mode", "resize_mode", "error",
        "Resize knows nearest and linear without antialiasing",
        "Choose another way of resizing",
        _OPERATORS,
        arguments={"modes": ("nearest", "linear")},
    ),
    Rule(
        "maxpool-indices", "second_output", "error",
        "MaxPool's indices are not computed",
        "Drop the indices output",
        _OPERATORS,
        arguments={"names": ("MaxPool",)},
    ),
    Rule(
        "pool-dilations", "dilated", "error",
        "pooling without dilation only",
        "Replace the dilated pooling",
        _OPERATORS,
        arguments={"names": ("AveragePool", "LpPool", "MaxPool")},
    ),
    Rule(
        "int64-narrowed", "constant_type", "warning",
        "INT64 is cast down to INT32 with a warning",
        "Nothing to do while the values fit",
        _CHANGES,
        before=TrtVersion(9, 0),
        arguments={"types": ("INT64",)},
    ),
    Rule(
        "double-narrowed", "constant_type", "warning",
        "DOUBLE is cast down to FLOAT",
        "Export in float32",
        _OPERATORS,
        arguments={"types": ("DOUBLE",)},
    ),
    Rule(
        "bfloat16-type", "constant_type", "error",
        "bfloat16 needs a network whose file decides the types: trtexec builds those from 10.0 on",
        "Choose float16, or upgrade JetPack",
        _STRONG_TYPES,
        before=TrtVersion(10, 0),
        arguments={"types": ("BFLOAT16",)},
    ),
    Rule(
        "bfloat16-hardware", "type_hardware", "error",
        "this GPU has no bfloat16: Ampere (8.0) brought it",
        "Choose float16 for this board",
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html",
        arguments={"types": ("BFLOAT16",), "lacking": ("5.3", "6.0", "6.2", "7.0", "7.2", "7.5")},
    ),
    *(
        Rule(
            f"mixed-floats{suffix}", "mixed_weights", "error",
            "float layers of several precisions: here one flag decides for all of them, the file's types do not",
            "Plan one float precision for the whole model, or upgrade JetPack and stay on the GPU",
            _STRONG_TYPES,
            before=before,
            device=device,
        )
        for suffix, before, device in _WEAKLY_TYPED
    ),
    Rule(
        "dla-release", "always", "error",
        "on JetPack, releases from 10.8 on have no DLA; 11.4.1 brought it back for AGX Orin",
        "Run it on the GPU, or change JetPack",
        "https://docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/dla-strongly-typed-networks.html",
        since=TrtVersion(10, 8),
        before=TrtVersion(11, 4, 1),
        device="dla",
    ),
    Rule(
        "dla-precision", "precision_outside", "error",
        "DLA runs FP16 and INT8 only",
        "Choose float16",
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-build-and-run.html",
        device="dla",
        arguments={"precisions": ("float16", "int8")},
    ),
    Rule(
        "dla-qdq", "any_quantizer", "error",
        "DLA takes no explicit quantization (QDQ)",
        "Choose float16 for DLA, or translate the scales to a calibration cache",
        "https://github.com/NVIDIA/TensorRT/issues/2222",
        device="dla",
    ),
    Rule(
        "dla-dimension", "dimension_above", "error",
        "a dimension exceeds what DLA addresses",
        "Use smaller tensors",
        _DLA,
        device="dla",
        arguments={"largest": 8192},
    ),
    Rule(
        "dla-batch", "batch_above", "error",
        "the batch (all but the last three dimensions) exceeds what DLA addresses",
        "Use a smaller batch",
        _DLA,
        device="dla",
        arguments={"largest": 4096},
    ),
    Rule(
        "dla-fallback", "operators_outside", "warning",
        "no DLA layer: it falls back to the GPU, silently when fallback is allowed",
        "Read the placement in the build's log",
        _DLA,
        device="dla",
        arguments={"names": DLA_OPERATORS},
    ),
    Rule(
        "dla-resize", "bilinear_not_half_pixel", "warning",
        "DLA resizes bilinearly with half_pixel coordinates only: this one falls back to the GPU",
        "Choose half_pixel or nearest",
        "https://forums.developer.nvidia.com/t/unable-to-run-resize-layer-on-dla-on-xavier/219158",
        device="dla",
    ),
)  # fmt: skip

DLA_LOADABLES_PER_CORE: Final = 16
"""A DLA core holds at most this many parts of a network (same document as the other DLA limits); their number is known
only after the build."""
