"""Where the weights of a study's baseline come from, and what further training they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from edgedeploy.compress.checkpoint import digest_of_weights
from edgedeploy.compress.model import NO_WEIGHTS, WAYS_TO_WEIGHTS
from edgedeploy.compress.shaped import built
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import BuildError, MeasurementError, SpecError, Unsupported
from edgedeploy.interfaces.task import ReadyMade, Task, baseline_arch, can_recover, can_train, is_trained
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.variant import Variant
from edgedeploy.records.weights import TRAINED_HERE, BaselineWeights
from edgedeploy.reference.export import first_answer
from edgedeploy.search.space import Space
from edgedeploy.spec.source import SpecSource
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.cases import inputs_of, scores_of
from edgedeploy.study.front import weights_of
from edgedeploy.study.shrinking import leaves_out
from edgedeploy.tasks.places import place_of

RECOVERY_MEMBERS: Final = ("batches", "loss", "recovery_recipe")


@dataclass(frozen=True)
class Baseline:
    """``weights`` is what to say of them (None: the task is a ready-made model), ``file`` the user's file of them, if there
    is one. ``notes`` are worth knowing before the study begins."""

    weights: BaselineWeights | None = TRAINED_HERE
    file: WeightsFile | None = None
    notes: tuple[str, ...] = ()


TRAINS_HERE: Final = Baseline()


def find_baseline(spec: StudySpec, source: SpecSource, task: Task) -> Baseline:
    """The baseline of a study, its weights loaded once into the task's model, so that a wrong file is told before anything
    starts. A model of the user's, or with the user's weights, answers one case: one that does not fit would fail as every
    variant.

    Raises ``SpecError`` when nothing gives the weights or the model does not fit, and what
    :meth:`WeightsFile.load_into` raises.
    """
    table = spec.task
    if isinstance(task, ReadyMade):
        if table.checkpoint is not None:
            found = "the task is a ready-made model, which has its weights"
            raise source.error("task.checkpoint", found, "Remove it")
        return Baseline(None)
    notes = (*_training_notes(task), *_pruning_notes(spec, task))
    if table.checkpoint is not None:
        path = place_of(source.path.resolve().parent, table.checkpoint)
        file = WeightsFile(path, table.checkpoint_key or "")
        model = built(task, baseline_arch(task))
        weights = file.load_into(model)
        _check_fit(spec, source, task, model)
        return Baseline(weights, file, (_brought(weights), *notes))
    if is_trained(task):
        model = built(task, baseline_arch(task))
        weights = BaselineWeights("task", sha256=_repeated(task, model))
        _check_fit(spec, source, task, model)
        return Baseline(weights, None, (_brought(weights), *notes))
    if not can_train(task):
        raise source.error("task", NO_WEIGHTS, WAYS_TO_WEIGHTS)
    if _own_network(spec):
        _check_fit(spec, source, task, built(task, baseline_arch(task)))
    return Baseline(notes=notes)


def require_same_weights(study: Mapping[str, Any], weights: BaselineWeights | None, folder: Path) -> None:
    """Raises ``SpecError`` when the baseline of the study in ``folder`` had other weights. ``study`` is the content of its
    ``study.json``."""
    if weights is None:
        return
    kept = weights_of(study) or TRAINED_HERE
    if kept != weights:
        raise SpecError(
            f"--resume {folder}",
            f"the weights of its baseline are others than when it began: {kept.text} then, {weights.text} now",
            "Put the old weights back, or choose another --out: numbers of two baselines say nothing about each other",
        )


def recovered_baseline(space: Space, task: Task) -> Variant | None:
    """The baseline trained further by what recovers variants, where the study has any such variant: what recovery adds to
    an uncompressed model is no merit of the compression."""
    if isinstance(task, ReadyMade) or not can_recover(task):
        return None
    narrow = any(float(width) < 1.0 for width in space.parameters.get("width", ()))
    other = any(
        value != space.arch_defaults[name]
        for name, values in space.parameters.items()
        if name in space.arch_defaults
        for value in values
    )
    baseline = space.baseline_variant(space.targets[0])
    return replace(baseline, recovered=True) if narrow or other or leaves_out(space.parameters, task) else None


def _own_network(spec: StudySpec) -> bool:
    """A kind that ships takes the user's network."""
    return spec.task.kind != "python" and bool(spec.task.options.get("network"))


def _check_fit(spec: StudySpec, source: SpecSource, task: Task, model: Any) -> None:
    """The model answers a case of the user's, and the kind can read a network's answer. Raises ``SpecError``."""
    case, arch = next(iter(task.cases("calibration")), None), baseline_arch(task)
    if case is None:  # told with the cases
        return
    specs, own = task.input_specs(**arch), _own_network(spec)
    try:
        outputs = first_answer(model, specs, inputs_of(task, case, arch))
        if own:
            scores_of(task, outputs, case)
    except BuildError as exc:
        if own and not isinstance(exc, Unsupported):
            raise _misfit(spec, source, specs, exc) from exc
        raise SpecError(exc.asked, exc.found, exc.remedy) from exc
    except MeasurementError as exc:
        raise source.error("task.options.network", f"{exc.asked}: {exc.found}", exc.remedy) from exc


def _misfit(spec: StudySpec, source: SpecSource, specs: Sequence[TensorSpec], exc: BuildError) -> SpecError:
    """In the words of a study file: who names a network wrote no ``input_specs``."""
    channels = specs[0].shape[1]
    shape = " x ".join(map(str, specs[0].shape))
    found = f"the network does not answer the kind's {specs[0].name} ({shape}, {_channels(channels)}): {exc.found}"
    remedy = f"Make it with in_channels = {channels}, which {spec.task.kind!r} offers to the function"
    if spec.task.kind != "volumes":
        other = "grey" if channels == 3 else "rgb"
        remedy += f', or write colour = "{other}" in [task.options] if it takes {_channels(4 - channels)}'
    return source.error("task.options.network", found, remedy)


def _channels(count: int) -> str:
    return {1: "1 channel: grey", 3: "3 channels: red, green, blue"}.get(count, f"{count} channels")


def _brought(weights: BaselineWeights) -> str:
    return f"the baseline is not trained: its weights are {weights.text}"


def _repeated(task: Task, model: Any) -> str:
    """Digest of the weights of ``model``, which ``build`` gave. Raises ``SpecError`` when it gives others now."""
    first, again = digest_of_weights(model), digest_of_weights(built(task, baseline_arch(task)))
    if first != again:
        found = "`trained` is True, but build() gives other weights each time it is called"
        raise SpecError(f"task {task.name!r}", found, "Load all weights in build(), and seed what is random in it")
    return first


def _training_notes(task: Task) -> tuple[str, ...]:
    """A task that lacks one of the members of training has none, which is easily overlooked."""
    lacking = [name for name in RECOVERY_MEMBERS if not hasattr(task, name)]
    if can_recover(task) or len(lacking) == len(RECOVERY_MEMBERS):
        return ()
    return (f"task {task.name!r} counts as one without training: it lacks {', '.join(lacking)}",)


def _pruning_notes(spec: StudySpec, task: Task) -> tuple[str, ...]:
    narrow = any(not isinstance(width, (str, bool)) and width < 1.0 for width in spec.space.get("width", ()))
    if can_recover(task) or not (narrow or leaves_out(spec.space, task)):
        return ()
    return ("pruned variants keep the weights that are left: the task has no training that recovers them",)
