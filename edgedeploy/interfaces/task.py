"""What a task is: the user's model family, data and metrics, and what else it may be able to do.

Torch's modules and tensors appear as ``Any``, so that importing this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.metrics import MetricInfo
from edgedeploy.records.variant import Scalar
from edgedeploy.runtime.pipeline.steps import Steps

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.generic]
else:
    Array = Any

FitPurpose = Literal["baseline", "recovery"]
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
    With ``trained = True`` every model that :meth:`build` makes has its trained weights, and no baseline is trained.

    ``architecture`` names the keywords of :meth:`build` with their legal values, the baseline's value first.
    ``metrics`` names what :meth:`evaluate` returns per case; the study's value of a metric is its mean over the cases for
    which it is defined.
    """

    name: str
    architecture: Mapping[str, Sequence[Scalar]]
    metrics: Mapping[str, MetricInfo]

    def build(self, **arch: Scalar) -> Any:
        """A fresh ``torch.nn.Module``, seeded, whose forward takes the tensors of :meth:`input_specs` in order, or by
        their names where it has parameters of these names in another order. It may return a tensor, or tuples, lists,
        dicts and dataclasses of them."""

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
class Recoverable(Protocol):
    """A task whose models edgedeploy's own loop can train further: recovery of pruned models, quantization-aware training.

    A protocol of its own because a baseline whose weights are there needs no recipe.
    """

    recovery_recipe: TrainRecipe

    def batches(self, seed: int, batch_size: int, **arch: Scalar) -> Iterator[tuple[Any, Any]]:
        """One epoch of augmented ``(inputs, target)`` batches of the train split, decided by ``seed``.

        Inputs are a tensor, a tuple of tensors in the order of :meth:`Task.input_specs`, or a dict of them by its names.
        """

    def loss(self, outputs: Any, target: Any) -> Any:
        """Scalar tensor: the task's own loss. ``outputs`` is what the model's forward returns in training mode, of the
        same structure, with floating-point tensors in float32."""


@runtime_checkable
class Trainable(Recoverable, Protocol):
    """A task that edgedeploy's own loop can train: its baseline too.

    A protocol of its own because training is optional: a task whose weights are there needs none, and a bare ONNX model
    has none.
    """

    baseline_recipe: TrainRecipe


@runtime_checkable
class Taught(Trainable, Protocol):
    """A task whose baseline learns from a teacher of another architecture, by ``distill_weight`` of its recipe. The teacher
    is trained first, from labels alone, and answers as the baseline does.

    A protocol of its own because most baselines learn from labels alone.
    """

    teacher_arch: Mapping[str, Scalar]
    """Keywords of :meth:`Task.build` that make the teacher, which the search need not know; empty: there is none."""
    teacher_recipe: TrainRecipe


@runtime_checkable
class Trainer(Protocol):
    """A task that trains by code of its own: the baseline and recovery of pruned models, in the place of edgedeploy's loop.

    A protocol of its own because a trainer of the user's own (Lightning, a script's loop) needs none of
    :class:`Trainable`'s members.
    """

    def fit(
        self,
        model: Any,
        *,
        arch: Mapping[str, Scalar],
        purpose: FitPurpose,
        teacher: Any | None,
        out_of_time: Callable[[], bool],
        progress: Callable[[int, int, float], None],
    ) -> None:
        """Train ``model``, a ``torch.nn.Module`` of architecture ``arch``, in place.

        - ``purpose``: ``"baseline"`` trains it from its first weights, ``"recovery"`` after it was pruned or has
          inherited the baseline's weights.
        - ``teacher``: the baseline in evaluation mode, for distillation in a recovery; None for the baseline.
        - ``out_of_time()`` says whether the study's time is over. Once it has said so the training counts as cut off, and
          ``fit`` should return: a resumed study calls it again from the beginning.
        - ``progress(epoch, epochs, loss)`` tells how far it is. Both are optional to call.

        Names and shapes of the model's tensors stay as they are. Where the model and its mode are afterwards (a GPU,
        training mode) does not matter.
        """


@runtime_checkable
class Teaching(Protocol):
    """A task with networks that may stand in the place of its own. A protocol of its own because most tasks have none.

    A student is a function that makes a ``torch.nn.Module`` of the architecture's keywords, or keywords of
    :meth:`Task.build` with the values that make a smaller network of the same class (``{"features": 96}``), which need not
    be among those of the architecture. It takes the task's inputs and answers in the same names and shapes.
    """

    students: Mapping[str, Callable[..., Any] | Mapping[str, Scalar]]


@runtime_checkable
class Sized(Protocol):
    """A task that knows how large an architecture is without building it. A protocol of its own because a search finds that
    out of most models itself.

    Of a space with more than 64 architectures it builds 64 and estimates the others, or does without figures that cannot be
    estimated, such as how many layers lie behind one another. Nothing but the search reads these figures.
    """

    def figures(self, **arch: Scalar) -> Mapping[str, float]:
        """Positive figures by name, the same names for each architecture. ``macs`` (multiply-accumulates of one inference)
        and ``parameters`` also foretell how long it trains; ``depth`` is the layers between input and answer, 1 where
        nothing is between them; others may have any name. It is asked thousands of times."""


def is_trained(task: Task) -> bool:
    """Whether every model that the task's ``build`` makes has its trained weights: the optional member ``trained``."""
    return getattr(task, "trained", False) is True


def can_train(task: Task) -> bool:
    """Whether something can train the baseline."""
    return isinstance(task, (Trainable, Trainer))


def can_recover(task: Task) -> bool:
    """Whether something can train models that have weights further."""
    return isinstance(task, (Recoverable, Trainer))


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
    """How long and how fast to train.

    - ``epochs``: passes over the training split.
    - ``batch_size``: cases of a step, at least 2.
    - ``learning_rate``: the largest one.
    - ``weight_decay``: of AdamW.
    - ``warmup_epochs``: over them the learning rate rises from 0.
    - ``bfloat16``: asks for it where the training host multiplies it itself; anywhere else training runs in float32, which
      is several times faster than emulating it.
    - ``distill_weight``: the share of the loss that follows the teacher, the baseline.
    - ``early_epochs``: the first of ``epochs``, which see the batches of ``early_arch``: most of the learning for a fraction
      of the work.
    - ``early_arch``: for example ``{ resolution = 96 }``. Only keywords that leave the weights alone may be named.
    - ``seed``: decides batches and augmentation.
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
class Piped(Protocol):
    """A task that says as data how a frame becomes its inputs, and its outputs an answer: a product runs the same steps.

    A protocol of its own because the inputs of many tasks are no frames: their products give and take tensors.
    """

    def pipeline(self, outputs: Sequence[TensorSpec], **arch: Scalar) -> Steps:
        """The steps for a network of ``arch`` that has these outputs. :meth:`Task.inputs` is what the steps for the input
        make of :meth:`frame`; both parts may be empty. Raises ``SpecError`` for outputs that no answer is made of."""

    def frame(self, case: Case) -> Array:
        """The case as a product's source would give it: (H, W) or (H, W, 3), uint8 or float32, black 0 to white 255."""


@runtime_checkable
class Pictured(Protocol):
    """A task that can show a case. A protocol of its own because not every task has pictures."""

    def picture(self, case: Case, outputs: Mapping[str, Array] | None) -> npt.NDArray[np.uint8]:
        """RGB uint8 (H, W, 3): the case with its truth (None) or with the outputs' answer drawn on it."""


def baseline_arch(task: Task) -> dict[str, Scalar]:
    """The baseline's keywords of :meth:`Task.build`: the first value of each."""
    return {name: values[0] for name, values in task.architecture.items()}
