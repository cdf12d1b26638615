"""Spaces whose every variant has known values, so that a search in one can be held against the true front.

- NAS-Bench-201's 15,625 networks: their accuracy on CIFAR-100 after 200 epochs and their latency on real devices (HELP). The
  file, ``nb201_help.npz``, does not belong to this project: ``operations`` (15625, 6) int8 says for each edge of the cell
  which of :data:`OPERATIONS` it is, ``cifar100_accuracy`` (15625,) is percent, ``lat_DEVICE`` (15625,) is ms.
- A MADE-UP space of co-design, computed by :func:`co_design`: no board ever said any of its numbers. It has what real
  spaces have: parameters without effect on some targets, accuracy that all targets share, latency whose factors multiply,
  variants that cannot be built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgedeploy.files import read_arrays
from edgedeploy.records.canonical import Choices
from edgedeploy.records.metrics import Direction
from edgedeploy.records.precision import PrecisionPlan
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.search.improvement import hypervolume
from edgedeploy.search.outcomes import Failed, Outcome, Scored
from edgedeploy.search.space import Space

Floats = np.ndarray[Any, np.dtype[np.float64]]

NAS_FILE: Final = "nb201_help.npz"
OPERATIONS: Final = ("none", "skip_connect", "avg_pool_3x3", "nor_conv_1x1", "nor_conv_3x3")
EDGES: Final = ("edge01", "edge02", "edge12", "edge03", "edge13", "edge23")
STAGES: Final = tuple((channels, size * size) for channels, size in ((16, 32), (32, 16), (64, 8)))
"""Channels and positions of the three stages of NAS-Bench-201's network."""
CELLS: Final = 5
"""Cells in each stage."""
FIXED_MACS: Final = 7_788_800
FIXED_PARAMETERS: Final = 79_156
FIXED_LAYERS: Final = 6
"""Of the stem, the two reductions and the classifier of 100 classes: those of the network without any operation. On its
longest way from the image to the answer are one, two for each reduction, and one."""


@dataclass(frozen=True, eq=False)
class Table:
    """A space with the values of each of its variants.

    ``values`` maps a variant's digest to its objectives in their own units; a variant without an entry cannot be built.
    ``statics`` are known of any variant without building it. The front is that of the accuracy and the logarithm of each
    cost: latencies of devices lie decades apart.
    """

    name: str
    space: Space
    directions: tuple[Direction, ...]
    values: Mapping[str, tuple[float, ...]]
    statics: Mapping[str, Mapping[str, float]]

    def outcome(self, variant: Variant) -> Outcome:
        found = self.values.get(variant.digest)
        return Failed("Unsupported", "it cannot be built", "build") if found is None else Scored(found, {})

    def costs(self, values: Sequence[tuple[float, ...]]) -> Floats:
        """(count, objectives): all to be small; the first is minus the accuracy, the others are logarithms."""
        rows = np.asarray(values, dtype=np.float64).reshape(len(values), len(self.directions))
        return np.column_stack([-rows[:, 0], np.log(rows[:, 1:])])

    @cached_property
    def worst(self) -> Floats:
        """The reference of every hypervolume: the worst of each objective in the whole space."""
        return np.asarray(self.costs(list(self.values.values())).max(axis=0))

    @cached_property
    def whole(self) -> float:
        """The hypervolume of the true front."""
        return hypervolume(self.costs(list(self.values.values())), self.worst)

    def share(self, values: Sequence[tuple[float, ...]]) -> float:
        """The hypervolume of ``values`` over that of the true front."""
        return hypervolume(self.costs(values), self.worst) / self.whole if values else 0.0


def nas_bench_201(folder: Path, devices: Sequence[str], *, level: bool = False) -> Table:
    """The accuracy and the latency on each of ``devices``. ``level``: networks that compute the same take the same time, the
    median of what was measured of them, so that none is fast by luck. Raises ``OSError``, ``ValueError`` or ``KeyError`` for
    a file that is not there, is damaged, or does not know a device."""
    arrays = read_arrays(folder / NAS_FILE)
    space = Space(
        targets=("table",),
        parameters=dict.fromkeys(EDGES, OPERATIONS),
        arch_defaults=dict.fromkeys(EDGES, OPERATIONS[-1]),
        target_precisions={"table": ("float32",)},
        default_threads=1,
    )
    networks = [[OPERATIONS[code] for code in codes] for codes in arrays["operations"].tolist()]
    times = [arrays[f"lat_{device}"] for device in devices]
    if level:
        times = [_levelled(of_one, [computed(names) for names in networks]) for of_one in times]
    values, statics = {}, {}
    for names, *row in zip(networks, arrays["cifar100_accuracy"], *times, strict=True):
        digest = space.variant({"target": "table", **dict(zip(EDGES, names, strict=True))}).digest
        values[digest] = tuple(map(float, row))
        statics[digest] = static_figures(names)
    directions: tuple[Direction, ...] = ("maximize", *("minimize" for _ in devices))
    told = ", equals equally fast" if level else ""
    return Table(f"nas-bench-201 on {' and '.join(devices)}{told}", space, directions, values, statics)


def devices_of(folder: Path) -> list[str]:
    with np.load(folder / NAS_FILE, allow_pickle=False) as arrays:
        return sorted(name.removeprefix("lat_") for name in arrays.files if name.startswith("lat_"))


def static_figures(operations: Sequence[str]) -> dict[str, float]:
    """What a study knows of an architecture before it builds it (``compress/sizes.py``), counted from the definition."""
    kernels = 9 * operations.count("nor_conv_3x3") + operations.count("nor_conv_1x1")
    convolutions = operations.count("nor_conv_3x3") + operations.count("nor_conv_1x1")
    macs = CELLS * sum(kernels * channels**2 * positions for channels, positions in STAGES)
    parameters = CELLS * sum(kernels * channels**2 + 2 * convolutions * channels for channels, _ in STAGES)
    behind = _layers_of(operations)
    return {
        "macs": float(FIXED_MACS + macs),
        "parameters": FIXED_PARAMETERS + float(parameters),
        "depth": 1.0 if behind is None else float(FIXED_LAYERS + CELLS * len(STAGES) * behind),
    }


def _layers_of(operations: Sequence[str]) -> int | None:
    """Convolutions on the longest way through the cell; None where no way leads through it."""
    behind: dict[str, int] = {"0": 0}
    for edge, operation in zip(EDGES, operations, strict=True):  # by the node that an edge leads to
        source, node = edge[-2:]
        if operation != "none" and source in behind:
            behind[node] = max(behind.get(node, 0), behind[source] + operation.startswith("nor_conv"))
    return behind.get("3")


def computed(operations: Sequence[str]) -> str:
    """What a cell computes of its input x; two cells with the same text compute the same. Connections hand on what they
    get, and nothing hands on nothing; a layer without an input still takes its time and stays. What leads nowhere is left
    out, as the runtimes of some devices do."""
    terms: dict[str, list[str]] = {"0": ["x"]}
    for edge, operation in zip(EDGES, operations, strict=True):  # by the node that an edge leads to
        source, node = terms.get(edge[-2], []), terms.setdefault(edge[-1], [])
        if operation == "skip_connect":
            node += source
        elif operation != "none":
            node.append(f"{operation}({'+'.join(sorted(source))})")
    return "+".join(sorted(terms["3"]))


def _levelled(times: Floats, computed_by: Sequence[str]) -> Floats:
    """Of each network the median over all that compute the same."""
    _, group = np.unique(computed_by, return_inverse=True)
    medians = np.array([np.median(times[group == number]) for number in range(group.max() + 1)])
    return np.asarray(medians[group], dtype=np.float64)


WIDTHS: Final = (1.0, 0.75, 0.5, 0.25)
RESOLUTIONS: Final = (192, 144, 96)
UPSAMPLINGS: Final = ("transposed", "resize")
PRECISIONS: Final = ("float32", "bfloat16", "int8", "int8-dynamic")
PLANS: Final = {"none": (), "head": ("head",), "stem": ("stem",), "ends": ("stem", "head")}
"""The layers that each plan keeps in float32."""

TIME_OF: Final = {
    ("onnxruntime", "float32"): 1.0,
    ("onnxruntime", "int8"): 0.48,
    ("onnxruntime", "int8-dynamic"): 0.75,
    ("openvino", "float32"): 0.90,
    ("openvino", "bfloat16"): 0.50,
    ("openvino", "int8"): 0.28,
    ("litert", "float32"): 1.15,
    ("litert", "int8"): 0.24,
}
SCALING: Final = {"onnxruntime": 0.82, "openvino": 0.92, "litert": 0.72}
"""Time falls with this power of the number of threads."""
LOSS_OF: Final = {"float32": 0.0, "bfloat16": 0.001, "int8": 0.05, "int8-dynamic": 0.02}
MENDED: Final = {"stem": 0.15, "head": 0.65}
"""The share of that loss which is gone when these layers stay in float32, and what that costs in time."""
PLAN_TIME: Final = {"stem": 0.10, "head": 0.06}
BASE_MS: Final = 40.0
BASE_MACS: Final = 4.2e9
BASE_PARAMETERS: Final = 950_000.0


def co_design(seed: int = 0) -> Table:
    """4,608 combinations, 2,208 variants, of which 4 % cannot be built. ``seed`` decides how fast and how exact each
    toolchain is, and what no rule explains: each seed is another board with another model, of the same kind."""
    space = Space(
        targets=("onnxruntime", "openvino", "litert"),
        parameters={
            "width": WIDTHS,
            "resolution": RESOLUTIONS,
            "upsampling": UPSAMPLINGS,
            "precision": PRECISIONS,
            "threads": (1, 2, 3, 4),
            "plan": tuple(PLANS),
        },
        arch_defaults={"resolution": RESOLUTIONS[0], "upsampling": UPSAMPLINGS[0]},
        target_precisions={
            target: tuple(precision for other, precision in TIME_OF if other == target) for target in SCALING
        },
        default_threads=4,
        choices=Choices(
            plans={name: PrecisionPlan.of(dict.fromkeys(layers, "float32")) for name, layers in PLANS.items()},
            layers=dict.fromkeys(SCALING, ("float32", "int8")),
        ),
    )
    values, statics = {}, {}
    for variant in {item.digest: item for item in map(space.variant, space.combinations())}.values():
        statics[variant.digest] = _static(variant)
        if not _unbuildable(variant):
            values[variant.digest] = (_accuracy(variant, seed), _latency_ms(variant, seed))
    return Table("co-design (made up)", space, ("maximize", "minimize"), values, statics)


def _unbuildable(variant: Variant) -> bool:
    """As converters do: one operator in one precision, below a number of channels."""
    return (
        variant.target == "litert"
        and variant.precision == "int8"
        and variant.arch_kwargs["upsampling"] == "transposed"
        and variant.width <= 0.5
    )


def _static(variant: Variant) -> dict[str, float]:
    share = int(variant.arch_kwargs["resolution"]) / RESOLUTIONS[0]
    heavier = 1.15 if variant.arch_kwargs["upsampling"] == "transposed" else 1.0
    return {
        "macs": BASE_MACS * variant.width**2 * share**2 * heavier,
        "parameters": BASE_PARAMETERS * variant.width**2 * heavier,
    }


def _accuracy(variant: Variant, seed: int) -> float:
    """The same for every target and number of threads."""
    share = int(variant.arch_kwargs["resolution"]) / RESOLUTIONS[0]
    transposed = variant.arch_kwargs["upsampling"] == "transposed"
    kept = [rule.pattern for rule in variant.plan.rules]
    lost = LOSS_OF[variant.precision] * np.exp(0.3 * _luck(seed, "loss", variant.precision))
    lost *= (1 - sum(MENDED[layer] for layer in kept)) * (1 + 1.2 * (1 - variant.width))
    model = (variant.width, share, transposed)
    found = 0.88 - 0.06 * (1 - variant.width) ** 0.8 - 0.10 * (1 - share) ** 0.8 + 0.004 * transposed * variant.width
    own = 0.004 * _luck(seed, "model", *model) + 0.0015 * _luck(seed, *model, variant.precision, *kept)
    return float(found - lost + own)


def _latency_ms(variant: Variant, seed: int) -> float:
    facts = _static(variant)
    kept = [rule.pattern for rule in variant.plan.rules]
    slower = 1 + sum(PLAN_TIME[layer] for layer in kept) * (2.0 if variant.precision.startswith("int8") else 0.5)
    toolchain = (variant.target, variant.precision)
    work = BASE_MS * (facts["macs"] / BASE_MACS) ** 0.85 * TIME_OF[toolchain]
    work *= np.exp(0.15 * _luck(seed, "toolchain", *toolchain))
    threads = variant.threads ** -(SCALING[variant.target] + 0.05 * _luck(seed, "threads", variant.target))
    return float(work * slower * threads * np.exp(0.04 * _luck(seed, "time", variant.digest)))


@cache
def _luck(*of: object) -> float:
    """A standard normal number that is the same whenever it is asked for."""
    text = repr(of).encode()
    return float(np.random.default_rng(list(text)).standard_normal())


def params_by_digest(table: Table) -> dict[str, dict[str, Scalar]]:
    """The first combination of each variant, in the order of the space."""
    found: dict[str, dict[str, Scalar]] = {}
    for params in table.space.combinations():
        found.setdefault(table.space.variant(params).digest, params)
    return found
