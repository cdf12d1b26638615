"""What a student learns from its teacher: per output, the teacher's distribution over axis 1 (Hinton et al., "Distilling
the Knowledge in a Neural Network", 2015).

The loss is the mean over the floating-point outputs that student and teacher both have, by name and shape. Outputs of
integers (class indices) have no gradient. A model that answers otherwise in training than in evaluation mode, in which
the teacher runs, is compared by the outputs that are in both, or else by the first of each.
"""

from __future__ import annotations

from typing import Any, Final

from edgedeploy.errors import BuildError
from edgedeploy.reference.calling import named_tensors

TEMPERATURE: Final = 2.0


def distillation(student: Any, teacher: Any) -> Any:
    """The mean of :func:`distillation_loss` over the outputs that both have. Raises ``BuildError`` when there is none."""
    pairs = _pairs(_floating(student), _floating(teacher))
    return sum(distillation_loss(*pair) for pair in pairs) / len(pairs)


def distillation_loss(student: Any, teacher: Any) -> Any:
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))`` over axis 1, the mean over all other positions.

    With a single channel, or with no axis 1, there is no distribution (its softmax is 1 everywhere): the loss is then the
    mean squared error of the raw outputs.
    """
    import torch.nn.functional as F  # noqa: N812

    if student.ndim < 2 or student.shape[1] == 1:
        return F.mse_loss(student, teacher)
    log_student = F.log_softmax(student / TEMPERATURE, dim=1)
    log_teacher = F.log_softmax(teacher / TEMPERATURE, dim=1)
    pointwise = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return TEMPERATURE**2 * pointwise.sum(dim=1).mean()


def _floating(outputs: Any) -> dict[str, Any]:
    return {name: tensor for name, tensor in named_tensors(outputs).items() if tensor.is_floating_point()}


def _pairs(student: dict[str, Any], teacher: dict[str, Any]) -> list[tuple[Any, Any]]:
    shared = [name for name, tensor in student.items() if name in teacher and teacher[name].shape == tensor.shape]
    if shared:
        return [(student[name], teacher[name]) for name in shared]
    first = [tensor for outputs in (student, teacher) for tensor in list(outputs.values())[:1]]
    if len(first) == 2 and first[0].shape == first[1].shape:
        return [(first[0], first[1])]
    told = [", ".join(f"{name} {tuple(value.shape)}" for name, value in one.items()) for one in (student, teacher)]
    raise BuildError(
        "outputs that student and teacher both give",
        f"the student in training mode gives {told[0] or 'none'}, the teacher in evaluation mode {told[1] or 'none'}",
        "Return the same outputs in both modes, or set distill_weight = 0 in the recipe",
    )
