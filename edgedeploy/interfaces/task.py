"""What a task is: the user's model family, data and metrics, and what else it may be able to do.

Torch's modules and tensors appear as ``Any``, so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar

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


@runtime_checkable
class Stateful(Protocol):
    """A ready-made task whose network carries state from frame to frame. A case of it is a clip: ``inputs`` gives
    (frames, *input shape) of what each frame brings, and the state before the first frame; ``evaluate`` gets
    (frames, *output shape) of each output that is no state.

    A protocol of its own because most networks answer each case alone.
    """

    states: Mapping[str, str]
    """From an input to the output that is its value in the next frame."""


@runtime_checkable
class TakenAsGiven(Protocol):
    """A ready-made task whose file may say itself what computes in what. A protocol of its own because models from torch
    are float32."""

    as_given: str
    """Why the model is built as it is given and in no other precision; empty for a float model."""


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
