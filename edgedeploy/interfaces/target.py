"""What a target is: a toolchain that turns a model into files for its runtime, and what else it may be able to do.

Each capability is small, and says why it is a protocol of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from edgedeploy.interfaces.ability import Demand
from edgedeploy.interfaces.task import Array
from edgedeploy.records.artifact import Artifact, TensorSpec
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.precision import NO_RULES, Int8Scheme, PrecisionPlan
from edgedeploy.runtime.sessions.sources import SessionSource

__all__ = [
    "BoardBound",
    "BuildRequest",
    "Calibrating",
    "Demanding",
    "FitsBoard",
    "HasQuantizers",
    "HasSevenBitWeights",
    "PerLayer",
    "Readiness",
    "SessionSource",
    "TakesAsGiven",
    "TakesBatches",
    "TakesQuantized",
    "Target",
    "TellsInt8",
]


@dataclass(frozen=True)
class Readiness:
    """Whether a toolchain works on this host. ``remedy`` is the command that mends what is missing."""

    ready: bool
    versions: Mapping[str, str]
    found: str
    remedy: str = ""


@dataclass(frozen=True)
class BuildRequest:
    """What a target builds from. ``reference`` is the ONNX file; ``calibration`` yields model-ready inputs one case at a
    time (bounded memory) and may be called again. ``plan`` gives single layers another precision, ``quantizer`` names the
    tool that makes int8 (:class:`HasQuantizers`) and ``calibrator`` the way ranges are chosen (empty: the target's own, the
    quantizer's own); a target without these abilities refuses them. ``program`` is the
    same model as ``torch.export`` saved it, where it came from torch and a target asks for it
    (``reference.program.FromProgram``). ``quantized`` says that the reference is int8 already and taken as it is
    (:class:`TakesQuantized`). ``weight_bits`` is how much of int8 the weights may use: 7 keeps them within -64 and 64, so
    that kernels that add two products in 16 bits cannot saturate (:class:`HasSevenBitWeights`). The artifact has to answer
    up to ``max_batch`` cases at once, stacked along the first axis, each as if it were alone (:class:`TakesBatches`)."""

    reference: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    precision: str
    calibration: Callable[[], Iterator[dict[str, Array]]]
    seed: int = 0
    plan: PrecisionPlan = NO_RULES
    calibrator: str = ""
    program: Path | None = None
    quantized: bool = False
    weight_bits: int = 8
    quantizer: str = ""
    max_batch: int = 1


@runtime_checkable
class Target(Protocol):
    """A backend toolchain: model in, artifact out. A protocol because vendors and users bring their own.

    ``session`` is what runs its artifacts on boards and what a board needs for it; ``extra`` the extra of edgedeploy that
    brings its toolchain, empty where another package does.
    """

    name: str
    session: SessionSource
    precisions: tuple[str, ...]
    extra: str

    def probe(self) -> Readiness:
        """Look without importing more than needed; never raises."""

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """Write the artifact's files into ``folder``, which is made where it is absent.

        ``edgedeploy.build_artifact`` keeps all of these duties but the last two, which ``edgedeploy.testing.TargetContract``
        checks: a folder that is not empty is a ``BuildError`` and left alone; a failed build leaves nothing in it; a
        toolchain that is missing is ``TargetUnavailable``, a precision that the target lacks ``Unsupported``; so is an
        operator that it lacks, named with its node, and a model whose outputs are NaN or infinite; a broken reference is a
        ``BuildError`` or ``DataError`` with the file's name; calibration cases are taken one at a time, and a bad one is a
        ``DataError``. Two builds of one request give equal bits and print nothing. A calibrated precision that would narrow
        no layer is ``Unsupported``.
        """


@runtime_checkable
class BoardBound(Protocol):
    """A target whose runtime no ``pip install`` brings to a board: it says itself what the board needs.

    A protocol of its own because for most targets the package of that name is the runtime.
    """

    board_remedy: str


@runtime_checkable
class FitsBoard(Protocol):
    """A target that builds for the release of its runtime that a board has, once the board is known.

    A protocol of its own because most runtimes take what any release of their toolchain makes.
    """

    def for_board(self, info: BoardInfo) -> Target:
        """The same target for ``info``, which has its runtime. Raises ``TargetUnavailable`` for a useless release."""


@runtime_checkable
class Demanding(Protocol):
    """A target whose precisions need certain CPU instructions, or are slow without them.

    A protocol of its own because a target without it runs everything anywhere.
    """

    demands: Mapping[str, Demand]


@runtime_checkable
class PerLayer(Protocol):
    """A target that can give single layers a precision of their own. A protocol of its own because not every one can.

    ``layer_precisions`` are the ones a plan may name, whatever the precision of the model.
    """

    layer_precisions: tuple[str, ...]


@runtime_checkable
class TellsInt8(Protocol):
    """A target that says how it makes single layers int8, for plans that are made from what that costs. A protocol of its
    own because plans of a target without it are made by :class:`edgedeploy.records.precision.Int8Scheme`'s defaults."""

    int8_scheme: Int8Scheme


@runtime_checkable
class Calibrating(Protocol):
    """A target with more than one way to choose ranges from calibration cases. A protocol of its own because not every one
    calibrates. ``calibrations``: the first is what it takes when nobody says."""

    calibrations: tuple[str, ...]


@runtime_checkable
class HasQuantizers(Protocol):
    """A target that can take int8 from more than one tool. A protocol of its own because most toolchains have one.

    ``quantizers``: each with its calibration methods, its default first. The first quantizer is what the target takes when
    nobody says; its methods are the target's own (:class:`Calibrating`)."""

    quantizers: Mapping[str, tuple[str, ...]]


@runtime_checkable
class TakesQuantized(Protocol):
    """A target that takes a reference with int8 QuantizeLinear/DequantizeLinear pairs, or torch's program of the same model
    with its quantizers, and keeps its scales. A protocol of its own because some toolchains only quantize by themselves.
    ``takes_quantized`` is true."""

    takes_quantized: bool


@runtime_checkable
class TakesAsGiven(Protocol):
    """A target that builds an ONNX file in the precisions that the file itself has. A protocol of its own because most
    toolchains start from float models."""

    def check_given(self, reference: Path) -> None:
        """Raises ``Unsupported``, which names an operator, for a file that it would not run as it is."""


@runtime_checkable
class TakesBatches(Protocol):
    """A target that can build an artifact for several cases at once. A protocol of its own because models are exported with
    one case, and not every toolchain can open that afterwards. ``takes_batches`` is true."""

    takes_batches: bool


@runtime_checkable
class HasSevenBitWeights(Protocol):
    """A target whose runtime has int8 kernels that saturate on some processors, and which can keep weights to 7 bits there.
    A protocol of its own because most runtimes add products in 32 bits everywhere. ``seven_bit_precisions``: the ones it can
    do that for."""

    seven_bit_precisions: tuple[str, ...]
