"""One entry of a lab, ready to be measured: what it ships tonight, and what was frozen of it.

What is shipped is looked at every night. What it is timed beside, what it runs on and what it has to answer were frozen when
it was first seen, and stay until somebody accepts what is shipped now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from edgedeploy.errors import SpecError
from edgedeploy.interfaces.task import Array
from edgedeploy.nightly.bundles import of_bundle
from edgedeploy.nightly.picks import of_study
from edgedeploy.nightly.shipped import Scorer, Shipped
from edgedeploy.nightly.vault import Frozen, FrozenSide, Vault
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.job import Payload
from edgedeploy.records.metric_table import BOARD_METRICS
from edgedeploy.records.night import Accepted, ArtifactState, Session
from edgedeploy.study.bundle.choice import PICK
from edgedeploy.study.store import utc_now

STUDY_FILE: Final = "study.json"
JUDGED: Final = ("latency_p50_ns", "cpu_time_ns", "peak_memory_bytes", "energy_j", "virtual_ns")
"""What is judged of a board where an entry names no metrics, as far as the board has it."""


class Entry(Protocol):
    """What is read here of a lab file's ``[[entries]]``. Paths are relative to the lab file's folder."""

    @property
    def id(self) -> str: ...
    @property
    def bundle(self) -> str | None: ...
    @property
    def trust(self) -> str | None: ...
    @property
    def study(self) -> str | None: ...
    @property
    def pick(self) -> str: ...
    @property
    def baseline(self) -> str | None: ...
    @property
    def metrics(self) -> Sequence[str]: ...
    @property
    def rebuild(self) -> bool: ...
    @property
    def accuracy_margin(self) -> float | str | None: ...


@dataclass(frozen=True)
class Subject:
    """``candidate`` is what is shipped now, ``baseline`` what was frozen beside it. ``state`` is what was found of the
    artifact tonight, ``frozen`` what was accepted. ``metrics`` are those that are judged, ``named`` says that the lab file
    names them. ``same_cases``: both sides answer the same cases, so that the ``scorer`` compares them."""

    entry: str
    candidate: Payload
    baseline: Payload
    state: ArtifactState
    frozen: Frozen
    vault: Vault
    metrics: tuple[str, ...]
    named: bool
    precisions: tuple[str, ...] = ()
    power_mode: tuple[tuple[str, str], ...] = ()
    scorer: Scorer | None = None
    same_cases: bool = False

    @property
    def accepted(self) -> ArtifactState:
        return self.frozen.artifact

    @property
    def margins(self) -> Mapping[str, float]:
        """What each of the task's metrics may lose."""
        return self.scorer.margins if self.scorer else {}

    def accepted_on(self, board: str, sessions: Sequence[Session]) -> Accepted | None:
        """What tonight's ``sessions`` on a board are held against. On the board's first night since the entry was accepted
        that is the board as the first session found it, which is kept; None where no session counts yet."""
        kept = self.vault.board(self.frozen, board)
        first = next((item for item in sessions if item.counts and item.info and item.state), None)
        if kept is not None or first is None:
            return kept
        assert first.info is not None and first.state is not None
        found = Accepted(first.night, self.accepted, first.state, first.info)
        self.vault.keep_board(self.frozen, board, found)
        return self.vault.board(self.frozen, board)

    def answers(self) -> dict[str, Array] | None:
        """The accepted answers by output, one row for each case; None before the first session of a study's pick. Raises
        ``DamagedFile``."""
        return self.vault.answers(self.frozen)

    def keep_answers(self, outputs: Mapping[str, Array], of: str) -> None:
        """Accept the answers of the first session, where there are none yet."""
        self.vault.keep_answers(self.frozen, outputs, of)


def prepare(entry: Entry, base_folder: Path, frozen_folder: Path) -> Subject:
    """The entry as it is tonight; what it has to be held against is frozen on first use. ``base_folder`` is that of the lab
    file, ``frozen_folder`` belongs to the lab alone.

    Raises ``BundleError`` for a bundle that is not whole or not its maker's; ``SpecError``, ``DataError`` and ``GoalNotMet``
    for a study without that pick, or whose files or task changed; ``SpecError`` for what takes other inputs than were
    accepted; ``DamagedFile`` for a frozen file that is not what it was, by its name.
    """
    shipped, vault = _look(entry, base_folder), Vault(frozen_folder)
    with vault.held(entry.id):
        frozen = vault.latest(entry.id) or _freeze(entry, base_folder, shipped, vault, 1)
    return _subject(entry, shipped, frozen, vault)


def accept(entry: Entry, base_folder: Path, frozen_folder: Path, logged: int = 0) -> Subject:
    """Freeze what is shipped now in the place of what was accepted before, which is kept. ``logged`` is the number of the
    latest that any log knows: a folder that was lost counts on from there. Raises as :func:`prepare`."""
    shipped, vault = _look(entry, base_folder), Vault(frozen_folder)
    with vault.held(entry.id):
        before = max(vault.generation(entry.id), logged)
        frozen = _freeze(entry, base_folder, shipped, vault, before + 1)
    return _subject(entry, shipped, frozen, vault)


def _freeze(entry: Entry, base: Path, shipped: Shipped, vault: Vault, generation: int) -> Frozen:
    beside = _look_at_baseline(entry, base, shipped)
    vault.keep_artifact(beside.artifact, beside.source)
    inputs = vault.keep_arrays(shipped.inputs())
    own = inputs if beside.artifact.inputs == shipped.artifact.inputs else vault.keep_arrays(beside.inputs())
    frozen = Frozen(
        entry=entry.id,
        accepted_utc=utc_now(),
        artifact=shipped.state,
        takes=shipped.artifact.inputs,
        baseline=FrozenSide(beside.artifact, beside.threads, beside.states, own),
        inputs=inputs,
        tolerance=shipped.tolerance,
        same_cases=own == inputs or (entry.baseline is None and entry.study is not None),
        generation=generation,
    )
    vault.accept(frozen, shipped.answers, shipped.answers_of)
    return frozen


def _subject(entry: Entry, shipped: Shipped, frozen: Frozen, vault: Vault) -> Subject:
    _require_inputs(entry, shipped.artifact.inputs, frozen.takes)
    baseline = vault.payload(frozen.baseline)
    folder = vault.keep_artifact(shipped.artifact, shipped.source)
    inputs = vault.arrays_path(frozen.inputs)
    return Subject(
        entry=entry.id,
        candidate=Payload(shipped.artifact, folder, inputs, shipped.threads, shipped.states),
        baseline=baseline,
        state=shipped.state,
        frozen=frozen,
        vault=vault,
        metrics=_metrics(entry, shipped.scorer),
        named=bool(entry.metrics),
        precisions=shipped.precisions,
        power_mode=shipped.power_mode,
        scorer=shipped.scorer,
        same_cases=frozen.same_cases,
    )


def _require_inputs(entry: Entry, now: Sequence[TensorSpec], accepted: Sequence[TensorSpec]) -> None:
    if sorted(now, key=str) == sorted(accepted, key=str):
        return
    texts = [", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in specs) for specs in (now, accepted)]
    raise SpecError(
        f"entry {entry.id!r}: what is shipped",
        f"it takes {texts[0]}, and what was accepted took {texts[1]}: its answers cannot be compared",
        f"If that is meant: edgedeploy nightly accept LAB.toml {entry.id} --why TEXT",
    )


def _metrics(entry: Entry, scorer: Scorer | None) -> tuple[str, ...]:
    """Those of the entry, else all. Raises ``SpecError`` for one that neither a board nor the task has."""
    of_task = tuple(scorer.metrics) if scorer else ()
    for name in entry.metrics:
        if name not in BOARD_METRICS and name not in of_task:
            found = "neither a board nor the task has it"
            remedy = f"Known: {', '.join((*JUDGED, *of_task))}"
            raise SpecError(f"entry {entry.id!r}: metric {name!r}", found, remedy)
    return tuple(entry.metrics) or (*JUDGED, *of_task)


def _look(entry: Entry, base: Path) -> Shipped:
    """What the entry ships. ``base`` is the folder of the lab file.

    Raises ``BundleError`` for a bundle that is not whole or not its maker's, ``SpecError``, ``DataError`` and ``GoalNotMet``
    for a study without that pick, or whose files or task changed.
    """
    if entry.bundle is not None:
        return of_bundle(base / entry.bundle, _trust(entry, base))
    if entry.study is None:
        found = "it names neither a bundle nor a study"
        raise SpecError(f"entry {entry.id!r}", found, "Write bundle = ... or study = ...")
    return of_study(base / entry.study, entry.pick, entry.accuracy_margin)


def _look_at_baseline(entry: Entry, base: Path, shipped: Shipped) -> Shipped:
    """What the entry is timed beside: what it names, else the float model that comes with what it ships."""
    if entry.baseline is None:
        return shipped.reference()
    place = base / entry.baseline
    if (place / STUDY_FILE).exists():
        return of_study(place, PICK)
    if entry.trust is None and entry.bundle is None:
        remedy = "Write trust = KEY: the public key that must have signed it"
        raise SpecError(f"entry {entry.id!r}: baseline", f"{place} is no study, and a bundle needs a key", remedy)
    return of_bundle(place, _trust(entry, base))


def _trust(entry: Entry, base: Path) -> Path | None:
    return None if entry.trust is None else base / entry.trust
