"""Reports how far a model can be proved for Jetson on a machine without one, without raising an exception."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgedeploy.errors import BuildError
from edgedeploy.interfaces.target import BuildRequest
from edgedeploy.targets.tensorrt.lint import LintResult
from edgedeploy.targets.tensorrt.proof import Level
from edgedeploy.targets.tensorrt.rtx import ProxyDied, ProxyRefused
from edgedeploy.targets.tensorrt.target import TensorRtTarget
from edgedeploy.targets.tensorrt.version import JETPACK_RELEASES, TrtVersion


@dataclass(frozen=True)
class Verdict:
    """``level`` is the last check that the model passed: never ``MEASURED``, and None when no file could be made or
    every release's rules refuse it. ``reasons`` say why it is not higher and what remains unproved; ``releases`` are
    the TensorRT releases whose rules the file meets."""

    level: Level | None
    by: str
    reasons: tuple[str, ...]
    releases: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        level = None if self.level is None else self.level.value
        return {"level": level, "by": self.by, "reasons": list(self.reasons), "releases": list(self.releases)}


def verdict(
    request: BuildRequest, folder: Path, releases: Sequence[TrtVersion] = tuple(JETPACK_RELEASES.values())
) -> Verdict:
    """Build the artifact into the empty ``folder`` and report what was proved. The folder stays empty for a refused
    model.

    Raises only ``TargetUnavailable`` and ``DataError``, which say nothing about the model.
    """
    target = TensorRtTarget(releases)
    try:
        made = target.make(request, folder)
    except ProxyRefused as exc:
        return Verdict(Level.LINT, exc.by, (str(exc),), ())
    except ProxyDied as exc:
        return Verdict(Level.LINT, "edgedeploy's rules", (str(exc),), ())
    except BuildError as exc:
        return Verdict(None, "edgedeploy's rules and recipes", (str(exc),), ())
    refused = tuple(_refusal(result) for result in made.results if result.errors)
    accepted = tuple(str(result.platform.version) for result in made.results if not result.errors)
    return Verdict(made.evidence.level, made.evidence.by, (made.evidence.note, *refused), accepted)


def _refusal(result: LintResult) -> str:
    return f"not for TensorRT {result.platform.version}: {result.errors[0]}"
