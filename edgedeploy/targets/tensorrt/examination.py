"""How far this host can prove an ONNX file for TensorRT: the rules of each release, then the proxy's parser and builder.

:func:`verdict` goes the whole way from a float model: quantize or narrow it, write it, examine it. Nothing here needs a
GPU, and nothing here says ``measured``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from edgedeploy.errors import BuildError, DataError, Unsupported
from edgedeploy.precision import NO_RULES, PrecisionPlan
from edgedeploy.protocols import Array, BuildRequest
from edgedeploy.targets.reference import describe
from edgedeploy.targets.tensorrt import rtx
from edgedeploy.targets.tensorrt.evidence import Evidence, Level
from edgedeploy.targets.tensorrt.graphview import GraphView
from edgedeploy.targets.tensorrt.lint import Finding, LintResult, Platform, lint
from edgedeploy.targets.tensorrt.recipes import write_model
from edgedeploy.targets.tensorrt.version import JETPACK_RELEASES, TrtVersion

RELEASES: Final = tuple(JETPACK_RELEASES.values())


@dataclass(frozen=True)
class Examination:
    """What was found. ``evidence`` is None when every release's rules refuse the file; ``refused`` is why it is no artifact:
    that, or the parser's refusal of a file that keeps the rules."""

    precision: str
    lint: tuple[LintResult, ...]
    evidence: Evidence | None
    refused: Unsupported | None

    @property
    def releases(self) -> tuple[str, ...]:
        """TensorRT releases whose rules the file keeps."""
        return tuple(str(result.platform.version) for result in self.lint if not result.errors)

    def require(self) -> Evidence:
        """Raises ``Unsupported`` for a file that was refused."""
        if self.refused is not None:
            raise self.refused
        assert self.evidence is not None, "neither refused nor proved"
        return self.evidence


def examine(path: Path, precision: str, releases: Sequence[TrtVersion] = RELEASES) -> Examination:
    """Raises ``BuildError`` for a file that is no model, and when the proxy's process dies."""
    view = GraphView.open(path)
    results = tuple(lint(view, Platform(version, precision)) for version in releases)
    if all(result.errors for result in results):
        newest = results[-1]
        found = "; ".join(str(finding) for finding in newest.errors)
        refused = Unsupported(f"{precision} for TensorRT {newest.platform.version}", found, newest.errors[0].remedy)
        return Examination(precision, results, None, refused)
    kept = Evidence(Level.LINT, "edgedeploy's rules", f"no parser saw it: {rtx.PACKAGE} is not installed")
    if rtx.installed_version() is None:
        return Examination(precision, results, kept, None)
    try:
        return Examination(precision, results, rtx.check(path).evidence, None)
    except Unsupported as exc:
        return Examination(precision, results, Evidence(Level.LINT, kept.by, "the parser refused it"), exc)


@dataclass(frozen=True)
class Verdict:
    """``label`` is the level reached (``lint``, ``parsed`` or ``built``), or ``refused``; ``by`` the tool that gave it.
    ``reasons`` say why it is not more. ``violations`` are the rules broken, by TensorRT release; ``releases`` are those
    whose rules the file keeps."""

    label: str
    by: str
    reasons: tuple[str, ...]
    violations: Mapping[str, tuple[Finding, ...]]
    releases: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        return self.label != REFUSED

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "by": self.by,
            "reasons": list(self.reasons),
            "violations": {
                version: [finding.as_json() for finding in found] for version, found in self.violations.items()
            },
            "releases": list(self.releases),
        }


REFUSED: Final = "refused"


def verdict(
    model: Path,
    calibration: Iterable[Mapping[str, Array]],
    precision: str,
    *,
    plan: PrecisionPlan = NO_RULES,
    calibrator: str = "",
    releases: Sequence[TrtVersion] = RELEASES,
) -> Verdict:
    """Bring the float ONNX file ``model`` into ``precision`` for TensorRT and say how far that is proved on this host.

    ``calibration`` are model-ready inputs (only int8 looks at them). A model, precision or plan that cannot be built is a
    verdict (``refused``), not an error. Raises ``DataError`` for calibration that does not fit, and ``OSError``.
    """
    cases = [dict(case) for case in calibration]
    with TemporaryDirectory(prefix="edgedeploy-trt-") as folder:
        path = Path(folder) / "model.onnx"
        try:
            reference = describe(model)
            request = BuildRequest(
                model, reference.inputs, reference.outputs, precision, lambda: iter(cases), 0, plan, calibrator
            )
            write_model(request, path)
            found = examine(path, precision, releases)
        except DataError:
            raise
        except BuildError as exc:
            return Verdict(REFUSED, "edgedeploy", (str(exc),), {}, ())
    violations = {str(result.platform.version): result.errors for result in found.lint if result.errors}
    if found.refused is not None:
        by = "edgedeploy's rules" if found.evidence is None else rtx.PACKAGE
        return Verdict(REFUSED, by, (str(found.refused),), violations, found.releases)
    evidence = found.require()
    return Verdict(evidence.level.value, evidence.by, (evidence.note,), violations, found.releases)
