"""Where the weights of a study's baseline come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

Origin = Literal["training", "checkpoint", "task"]


@dataclass(frozen=True)
class BaselineWeights:
    """``training``: the study trains them. ``checkpoint``: the file ``file``, in it what lies under ``key`` (empty: all of
    it). ``task``: the task's ``build`` gives them. ``sha256`` is of the file, or of the tensors that ``build`` gave."""

    origin: Origin = "training"
    file: str = ""
    key: str = ""
    sha256: str = ""

    def as_json(self) -> dict[str, str]:
        return {name: value for name, value in vars(self).items() if value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> BaselineWeights:
        """Raises ``ValueError`` for an origin that there is not, ``TypeError`` for a key that there is not."""
        found = cls(**{str(name): str(value) for name, value in data.items()})  # type: ignore[arg-type]
        if found.origin not in get_args(Origin):
            raise ValueError(f"no weights come from {found.origin!r}")
        return found

    @property
    def text(self) -> str:
        """``unet.pt (state_dict), sha256 0123456789ab``: for people."""
        if self.origin == "training":
            return "trained by this study"
        named = f"{self.file} ({self.key})" if self.key else self.file
        return (
            f"{named if self.origin == 'checkpoint' else 'the weights that the task builds'}, sha256 {self.sha256[:12]}"
        )


TRAINED_HERE: Final = BaselineWeights()
