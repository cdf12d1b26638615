"""The capabilities that other people implement. Each is small, and each says why it is a protocol.

Heavy types (torch modules) appear as ``Any`` so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edgedeploy.ability import Demand
from edgedeploy.artifact import Artifact, TensorSpec
from edgedeploy.measurement import BoardInfo, Job, MetricInfo, Provenance, RawRun
from edgedeploy.precision import NO_RULES, PrecisionPlan
from edgedeploy.variant import Scalar

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic]
else:
    Array = Any

Split = Literal["train", "calibration", "selection", "confirmation"]
SPLITS: tuple[Split, ...] = ("train", "calibration", "selection", "confirmation")


@dataclass(frozen=True)
class Case:
    """A reference to one case of a task: nothing is loaded until the task is asked for its inputs."""

    id: str
    split: Split


@runtime_checkable
class Task(Protocol):
    """The user's model family, data and metrics.

    A protocol because it is the user's own code: any object with these members is a task, no base class to inherit.

    ``architecture`` names the keywords of :meth:`build` with their legal values, the baseline's value first.
    ``metrics`` names what :meth:`evaluate` returns per case; the study's value of a metric is its mean over the cases for
    which it is defined.
    """

    name: str
    architecture: Mapping[str, Sequence[Scalar]]
    metrics: Mapping[str, MetricInfo]

    def build(self, **arch: Scalar) -> Any:
        """A fresh ``torch.nn.Module``, seeded, whose forward takes the tensors of :meth:`input_specs` in order."""

    def input_specs(self, **arch: Scalar) -> tuple[TensorSpec, ...]:
        """Model inputs with batch size 1."""

    def cases(self, split: Split) -> Sequence[Case]:
        """The cases of a split in a fixed order. Splits never share a case."""

    def inputs(self, case: Case, **arch: Scalar) -> dict[str, Array]:
        """Model-ready arrays of one case, shapes as :meth:`input_specs` (batch 1). Raises ``DataError``."""

    def evaluate(self, outputs: Mapping[str, Array], case: Case) -> dict[str, float | None]:
        """Metrics of one case from the arrays the artifact produced on the board (batch 1, in output order).

        None where a metric is undefined for the case (the task states its rule); never NaN.
        """


@runtime_checkable
class Trainable(Protocol):
    """A task that can be trained: without it there is no pruning with recovery and no baseline training.

    A protocol of its own because a bare ONNX model has a task but no training.
    """

    baseline_recipe: TrainRecipe
    recovery_recipe: TrainRecipe

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """One epoch of augmented ``(input tensor, target tensor)`` batches of the train split, decided by ``seed``."""

    def loss(self, outputs: Any, target: Any) -> Any:
        """Scalar tensor: the task's own loss of model output against target."""


@runtime_checkable
class ReadyMade(Protocol):
    """A task whose float model is an ONNX file already: it is taken as it is, never trained, pruned or exported.

    A protocol of its own because the other tasks make their models in torch.
    """

    source_sha256: str
    """Of the user's own file with its weights: the model of a study does not change between two runs."""

    def reference_model(self) -> bytes:
        """The reference as ONNX with static shapes and every node named."""


@dataclass(frozen=True)
class TrainRecipe:
    """How long and how fast to train. ``distill_weight`` is the share of the loss that follows the teacher.

    ``bfloat16`` asks for it where the training host multiplies it itself; anywhere else training runs in float32, which is
    several times faster than emulating it. The first ``early_epochs`` of ``epochs`` see the batches of ``early_arch``, for
    example ``{resolution = 96}``: most of the learning for a fraction of the work. Only keywords that leave the weights
    alone may be named there.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 1e-4
    warmup_epochs: float = 1.0
    bfloat16: bool = False
    distill_weight: float = 0.0
    early_epochs: int = 0
    early_arch: Mapping[str, Scalar] = field(default_factory=dict)
    seed: int = 0


@runtime_checkable
class Pictured(Protocol):
    """A task that can show a case. A protocol of its own because not every task has pictures."""

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """RGB uint8 (H, W, 3): the case with its truth (None) or with the outputs' answer drawn on it."""


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
    time (bounded memory) and may be called again. ``plan`` gives single layers another precision and ``calibrator`` names
    the way ranges are chosen (empty: the target's own); a target without these abilities refuses them. ``program`` is the
    same model as ``torch.export`` saved it, where it came from torch and a target asks for it
    (``targets.program.FromProgram``). ``quantized`` says that the reference is int8 already and taken as it is
    (:class:`TakesQuantized`). ``weight_bits`` is how much of int8 the weights may use: 7 keeps them within -64 and 64, so
    that kernels that add two products in 16 bits cannot saturate (:class:`HasSevenBitWeights`)."""

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


@runtime_checkable
class Target(Protocol):
    """A backend toolchain: model in, artifact out. A protocol because vendors and users bring their own."""

    name: str
    precisions: tuple[str, ...]
    extra: str

    def probe(self) -> Readiness:
        """Look without importing more than needed; never raises."""

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        """Write the artifact's files into the empty ``folder``.

        Raises ``TargetUnavailable``, ``Unsupported`` or ``BuildError``; the caller discards the folder then.
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
class Calibrating(Protocol):
    """A target with more than one way to choose ranges from calibration cases. A protocol of its own because not every one
    calibrates. ``calibrations``: the first is what it takes when nobody says."""

    calibrations: tuple[str, ...]


@runtime_checkable
class TakesQuantized(Protocol):
    """A target that takes a reference with int8 QuantizeLinear/DequantizeLinear pairs and keeps its scales. A protocol of
    its own because some toolchains only quantize by themselves. ``takes_quantized`` is true."""

    takes_quantized: bool


@runtime_checkable
class HasSevenBitWeights(Protocol):
    """A target whose runtime has int8 kernels that saturate on some processors, and which can keep weights to 7 bits there.
    A protocol of its own because most runtimes add products in 32 bits everywhere. ``seven_bit_precisions``: the ones it can
    do that for."""

    seven_bit_precisions: tuple[str, ...]


@dataclass(frozen=True)
class Completed:
    """A finished remote command. ``exit_status`` None means unknown: only a status file can tell."""

    exit_status: int | None
    stdout: bytes
    stderr: bytes


class RemoteProcess(Protocol):
    """A long-lived remote command that is held open (a lease): lines out, bytes in, and an end."""

    def read_line(self, timeout_s: float) -> str: ...
    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...


class Transport(Protocol):
    """One machine's commands and files. A protocol because a board may be this host, SSH, or a lab's own bus.

    Every call has a deadline and raises ``Unreachable`` past it; ``CommandFailed`` is the machine's own refusal.
    """

    def run(self, argv: Sequence[str], *, timeout_s: float, stdin: bytes = b"") -> Completed: ...
    def start(self, argv: Sequence[str]) -> RemoteProcess: ...
    def put(self, source: Path, remote: str, *, timeout_s: float) -> None: ...
    def get(self, remote: str, destination: Path, *, timeout_s: float) -> None: ...
    def read_bytes(self, remote: str, *, timeout_s: float, limit_bytes: int = 1 << 20) -> bytes | None: ...
    def write_bytes(self, remote: str, data: bytes, *, timeout_s: float) -> None: ...
    def close(self) -> None: ...


class BoardSession(Protocol):
    """A board that is connected and exclusively held."""

    info: BoardInfo

    def measure(self, job: Job, collect_into: Path) -> RawRun:
        """Upload what is missing, run the agent, collect. Raises ``BoardError`` or ``MeasurementError``."""


class Board(Protocol):
    """One machine that runs artifacts. A protocol because this host, an SSH host and an emulator differ in set-up."""

    name: str
    provenance: Provenance

    def probe(self) -> BoardInfo:
        """Connect, look, disconnect. Raises ``BoardError``."""

    def session(self) -> AbstractContextManager[BoardSession]:
        """Connect and hold the board; raises ``Busy`` when somebody else holds it past the wait."""


@runtime_checkable
class Powered(Protocol):
    """A board that may be turned off and on from here. A protocol of its own because most boards cannot."""

    has_power_control: bool

    def power_cycle(self) -> None:
        """Turn it off and on and wait until it answers. Raises ``BoardError``."""
