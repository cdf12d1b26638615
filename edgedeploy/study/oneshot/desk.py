"""The workbench and the board of a one-shot command: those of a study, in a folder that is gone afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import SpecError, Unsupported, closest, nearest
from edgedeploy.interfaces.ability import abilities, sums_int8_exactly
from edgedeploy.interfaces.target import FitsBoard, TakesAsGiven, Target
from edgedeploy.interfaces.task import Task, baseline_arch
from edgedeploy.lab.kinds import health_check
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.precision import AS_GIVEN
from edgedeploy.records.variant import PRECISIONS, Variant
from edgedeploy.reference.parity import Judged
from edgedeploy.reference.parity import judge as by_cases
from edgedeploy.spec.boards import BoardTable
from edgedeploy.spec.measuring import MeasureTable
from edgedeploy.spec.study import StudySpec
from edgedeploy.study.account import Account
from edgedeploy.study.preflight import open_and_probe, ready_targets, require_runtimes
from edgedeploy.study.runner import runner_on
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.registry import demands_of, find_targets, sessions_of

Tell = Callable[[str], None]

SHAPE: Final = re.compile(r"(?P<name>[^=]+)=(?P<sizes>[1-9][0-9]*(?:[,x][1-9][0-9]*)*)")


def parse_shapes(given: list[str]) -> dict[str, tuple[int, ...]]:
    """``["image=1,3,320,320"]`` as shapes by input. Raises ``SpecError``."""
    shapes = {}
    for text in given:
        match = SHAPE.fullmatch(text.replace(" ", ""))
        if match is None:
            raise SpecError("--shape", f"got {text!r}", "For example --shape image=1,3,320,320")
        if match["name"] in shapes:
            raise SpecError("--shape", f"input {match['name']} is named twice", "Give each input's shape once")
        shapes[match["name"]] = tuple(int(size) for size in re.split("[,x]", match["sizes"]))
    return shapes


def target_named(name: str, precision: str) -> Target:
    """The target, whose toolchain works here and which builds the precision. Raises ``SpecError`` and
    ``TargetUnavailable``."""
    plugins = {plugin.name: plugin for plugin in find_targets()}
    if name not in plugins:
        raise SpecError(f"--target {name}", "there is no such target", nearest(name, plugins))
    target = ready_targets([plugins[name]])[name]
    if precision not in target.precisions and not (precision == AS_GIVEN and isinstance(target, TakesAsGiven)):
        meant = None if precision in PRECISIONS else closest(precision, target.precisions)  # else it is no slip
        builds = f"It builds: {', '.join(target.precisions)}"
        remedy = f"Did you mean {meant!r}? {builds}" if meant else builds
        raise SpecError(f"--precision {precision}", f"target {name} does not build it", remedy)
    return target


@dataclass(frozen=True)
class Desk:
    """``trials`` and ``info`` are None where no board was asked for. ``variant`` is what is built, ``baseline`` the float
    model in the same target."""

    store: Store
    bench: Workbench
    variant: Variant
    baseline: Variant
    trials: Trials | None = None
    info: BoardInfo | None = None


@contextmanager
def desk(
    task: Task,
    target: Target,
    wanted: Mapping[str, Any],
    board: BoardTable | None,
    *,
    measure: MeasureTable | None = None,
    folder: Path | None = None,
    exact_sums: bool | None = None,
    judge: Callable[..., Judged] = by_cases,
    weights_file: WeightsFile | None = None,
    tell: Tell,
) -> Iterator[Desk]:
    """Everything that one variant of ``task`` needs, the board probed. ``wanted`` are fields of the variant,
    ``precision`` among them; ``folder`` is that of the study file whose paths ``measure`` has.

    ``exact_sums`` is the board's when left out; ``weights_file`` has the task's trained weights.

    Raises ``BoardError``, ``TargetUnavailable`` and ``Unsupported``.
    """
    device, info = None, None
    if board is not None:
        device, info = open_and_probe(board, sessions_of([target.name]))
        require_runtimes(info, {target.name: target})
        target = target.for_board(info) if isinstance(target, FitsBoard) else target
        require_runs(target, str(wanted["precision"]), info)
    threads = max(1, min(info.cores, 4)) if info else 1
    arch = tuple(sorted(baseline_arch(task).items()))
    variant = Variant(**{"target": target.name, "width": 1.0, "arch": arch, "threads": threads, **wanted})
    own = variant.precision == AS_GIVEN  # there is no float model
    baseline = variant if own else Variant(target.name, "float32", 1.0, arch, variant.threads)
    if exact_sums is None:
        exact_sums = info is None or sums_int8_exactly(info.arch, info.isa)
    with TemporaryDirectory(prefix="edgedeploy-") as place:
        store = Store(Path(place))
        account = Account(store)
        note = {"note": tell}
        bench = Workbench(
            task,
            {target.name: target},
            store,
            account,
            tell=lambda kind, text: note.get(kind, _nothing)(text),
            exact_sums=exact_sums,
            weights_file=weights_file,
        )
        if device is None or info is None or board is None:
            yield Desk(store, bench, variant, baseline)
            return
        table = measure or MeasureTable()
        trials = Trials(
            spec=_spec(target.name, board, table, variant.precision),
            run=runner_on(device, tell, health_check(info)),
            provenance=info.provenance,
            bench=bench,
            store=store,
            account=account,
            reference_baseline=baseline if own or "float32" in target.precisions else variant,
            metrics=task.metrics,
            tell=tell,
            scenarios=table.plans(folder or Path()) if info.clock == "wall" else (),
            judge=judge,
        )
        yield Desk(store, bench, variant, trials.reference_baseline, trials, info)


def require_runs(target: Target, precision: str, info: BoardInfo) -> None:
    """Raises ``Unsupported`` for a precision that the board's processor cannot run."""
    (found,) = abilities(info, [precision], demands_of(target))
    if not found.runs:
        raise Unsupported(f"{target.name} {precision} on board {info.name!r}", found.reason, "Choose another precision")


def require_absent(out: Path) -> None:
    """Raises ``SpecError`` for a path that something lies at already, or whose folder cannot be written to."""
    if out.exists() or out.is_symlink():
        raise SpecError(f"--out {out}", "it exists already", "Choose another path, or remove it")
    Store(out).check_place()


def _spec(target: str, board: BoardTable, measure: MeasureTable, precision: str) -> StudySpec:
    """The study of one variant, whose table ``measure`` says how it is measured."""
    return StudySpec.model_validate(
        {
            "study": {"name": "one-shot", "targets": [target]},
            "task": {"kind": "onnx", "model": "model.onnx"},
            "boards": [board],
            "space": {"precision": [precision]},
            "objectives": [{"metric": "latency_ratio"}],
            "budget": {"trials": 1},
            "measure": measure,
        }
    )


def _nothing(text: str) -> None:
    pass
