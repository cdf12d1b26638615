"""Weight inheritance: a variant starts from the baseline's weights wherever names and shapes match."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class InheritReport:
    """Names of tensors: the student's that were ``inherited`` or stayed ``fresh``, the teacher's that are ``unused``.

    ``elements`` counts the inherited numbers, ``total`` all numbers of the student.
    """

    inherited: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]
    elements: int
    total: int

    @property
    def complete(self) -> bool:
        """Every tensor of the student came from the teacher: it computes the same function of the same inputs."""
        return not self.fresh and not self.unused


def inherit(student: nn.Module, teacher: nn.Module) -> InheritReport:
    """Copy into ``student``, in place, every tensor of ``teacher`` that has the same name and shape.

    Parameters and buffers alike: a batch norm without its running statistics would be no inheritance. Layers that an
    architecture option replaces (another way of upsampling) keep their own fresh initialisation.
    """
    import torch

    own = student.state_dict()
    given = teacher.state_dict()
    inherited = [name for name, tensor in own.items() if name in given and given[name].shape == tensor.shape]
    with torch.no_grad():
        for name in inherited:
            own[name].copy_(given[name])
    return InheritReport(
        inherited=tuple(inherited),
        fresh=tuple(name for name in own if name not in set(inherited)),
        unused=tuple(name for name in given if name not in set(inherited)),
        elements=sum(own[name].numel() for name in inherited),
        total=sum(tensor.numel() for tensor in own.values()),
    )
