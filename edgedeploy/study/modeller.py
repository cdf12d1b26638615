"""Makes the models of a study and their ONNX references, or finds them in the store."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, Literal

from edgedeploy.compress.checkpoint import drop_checkpoint
from edgedeploy.compress.codec.method import decode_times_ns, shipped
from edgedeploy.compress.kept import load_weights, save_weights
from edgedeploy.compress.model import Further, derive, derive_quantized, restore, train_baseline
from edgedeploy.compress.oversight import Oversight, TrainProgress, TrainReport
from edgedeploy.compress.prune import channel_widths
from edgedeploy.compress.shaped import built, layer_widths
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import DataError, SpecError, Unsupported
from edgedeploy.files import new_folder, read_json, write_atomic
from edgedeploy.interfaces.target import Target
from edgedeploy.interfaces.task import (
    Array,
    Case,
    ReadyMade,
    Recoverable,
    Stateful,
    TakenAsGiven,
    Task,
    baseline_arch,
    is_trained,
)
from edgedeploy.records.artifact import TensorSpec
from edgedeploy.records.layer_times import LayerTimes
from edgedeploy.records.precision import NO_RULES
from edgedeploy.records.storage import storage_of
from edgedeploy.records.variant import Scalar, Variant
from edgedeploy.records.weightbits import TRAINED_FOR_BOARD
from edgedeploy.reference.export import Reference, describe, export_reference
from edgedeploy.reference.external import check_weights, weights_file
from edgedeploy.reference.layers import kept_float
from edgedeploy.reference.program import PROGRAM_FILE, FromProgram, export_program
from edgedeploy.reference.quantized import export_quantized
from edgedeploy.search.rungs import NO_RUNGS, Rungs
from edgedeploy.study.account import Account
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.elastic import Elastics
from edgedeploy.study.layer_times import kept_times
from edgedeploy.study.models import (
    PACKED,
    WEIGHTS,
    is_whole_beside,
    kept_network,
    kept_reference,
    write_decoding,
    write_network,
    write_reference,
    write_reports,
)
from edgedeploy.study.store import Store
from edgedeploy.study.times_taker import TimesTaker
from edgedeploy.study.whole import flaw_of, keep_note, note_of
from edgedeploy.study.wider import Wider

LOG: Final = logging.getLogger(__name__)

BASELINE: Final = "baseline"
GOLDEN_CASES: Final = 4
"""Number of calibration cases on which every artifact is compared with its reference."""


STARTED_FROM: Final = "its training started from the wider model "
"""How the note begins of a measurement whose model did not start from the pruned baseline."""


class Modeller:
    """Makes the models of one study. Its keywords are those of :class:`edgedeploy.study.workbench.Workbench`."""

    def __init__(
        self,
        task: Task,
        targets: Mapping[str, Target],
        store: Store,
        account: Account,
        progress: Callable[[str, TrainProgress], None],
        tell: Callable[[Literal["phase", "note"], str], None],
        *,
        out_of_time: Callable[[], bool] = lambda: False,
        exact_sums: bool = True,
        weights_file: WeightsFile | None = None,
        rungs: Rungs = NO_RUNGS,
    ) -> None:
        self.task = task
        self._exact_sums = exact_sums
        self._rungs = rungs
        self._weights_file = weights_file
        self._own_weights = weights_file is None and is_trained(task)
        self._targets = targets
        self._store = store
        self._account = account
        self._progress = progress
        self._tell = tell
        self._out_of_time = out_of_time
        self._elastics = Elastics(task, store, account, self._note, self._own_weights)
        self._wider = Wider(task, store, self._note, self._own_weights)
        self._gates: dict[tuple[tuple[str, Scalar], ...], dict[str, Any]] = {}
        self.times = TimesTaker(task, store, lambda: self.baseline_model, self.reference)
        self.refused: set[str] = set()
        """Digests of models that cannot be made, whatever target they are for."""

    @cached_property
    def baseline_model(self) -> Any:
        """The trained float model at the baseline's architecture. It is loaded or trained once per study, then read
        back."""
        path, checkpoint = self._store.baseline_weights, self._store.checkpoint(BASELINE)
        arch = baseline_arch(self.task)
        made_again = self._weights_file is not None or self._own_weights
        flaw = flaw_of(path)
        if flaw and made_again:
            self._note(f"baseline/{path.name} is not used and made anew: {flaw}")
        elif flaw:
            remedy = "Put a copy of it back, or begin again in another --out: another training is another baseline"
            raise DataError(f"the baseline's weights {path}", flaw, remedy)
        elif path.is_file():
            drop_checkpoint(checkpoint)
            return load_weights(built(self.task, arch), path)
        if made_again:
            with self._account.phase("build"):
                model = built(self.task, arch).eval()
                if self._weights_file is not None:
                    self._weights_file.load_into(model)
                self._keep_baseline(model, path)
            return model

        def done(report: TrainReport) -> None:
            self._store.keep_baseline_training(report.as_json())

        with self._account.phase("train"):
            model = train_baseline(self.task, arch, oversight=self._oversight(BASELINE, checkpoint, done))
            self._keep_baseline(model, path)
        drop_checkpoint(checkpoint)
        return model

    def _keep_baseline(self, model: Any, path: Path) -> None:
        note_of(path).unlink(missing_ok=True)
        save_weights(model, path)
        keep_note(path)

    @property
    def golden(self) -> tuple[Case, ...]:
        return tuple(self.task.cases("calibration")[:GOLDEN_CASES])

    def _note(self, text: str) -> None:
        self._tell("note", text)

    def _oversight(self, what: str, checkpoint: Path, done: Callable[[TrainReport], None]) -> Oversight:
        return Oversight(
            what,
            lambda state: self._progress(what, state),
            checkpoint,
            self._out_of_time,
            partial(self._tell, "note"),
            done,
        )

    def reference(self, variant: Variant) -> Reference:
        """The ONNX file of the variant's model: its artifacts are built from it and held against it.

        Variants with ``training = "qat"``: the quantized export; all others: the float export.
        """
        folder = self._store.model_folder(variant.model_digest)
        if isinstance(self.task, ReadyMade):
            return self._ready_made(self.task, folder)
        kept = self._kept_reference(folder)
        if kept is None:
            try:
                self._maker(variant)(variant, folder)
            except Unsupported:
                self.refused.add(variant.model_digest)
                raise
            kept = Reference.from_json(read_json(folder / "reference.json"), folder)
        drop_checkpoint(self._store.checkpoint(variant.model_digest))
        return kept

    def _maker(self, variant: Variant) -> Callable[[Variant, Path], None]:
        if variant.storage:
            return self._make_shipped
        return self._make_quantized if variant.training else self._make_float

    def _kept_reference(self, folder: Path, *also: str) -> Reference | None:
        return kept_reference(folder, also, self._note)

    def _make_float(self, variant: Variant, folder: Path) -> None:
        times = self.times.of(variant)  # raises before anything is trained
        baseline, further, before = self.baseline_model, self._further(variant, times), kept_network(folder)
        with self._account.phase("train"):
            reports = list[TrainReport]()
            model = self._trained_before(variant, folder)
            if model is None:
                model = derive(
                    self.task,
                    variant,
                    baseline,
                    own_weights=self._own_weights,
                    oversight=self._overseen(variant, reports),
                    further=further,
                    times=times,
                )
        with self._account.phase("build"), new_folder(folder) as part:
            if reports or before is not None:
                write_network(variant, self._wider.chosen(variant), part)
            write_reports(reports, part)
            self._export_float(model, variant, part)

    def _make_shipped(self, variant: Variant, folder: Path) -> None:
        """The float model of the same network, packed and decoded: what is measured is what arrives. The file that is
        shipped lies beside it."""
        twin = replace(variant, storage="")
        weights = self.reference(twin).path.with_name(WEIGHTS)
        model = restore(self.task, twin, self.baseline_model, weights, own_weights=self._own_weights)
        with self._account.phase("build"), new_folder(folder) as part:
            data, arrived = shipped(model, self.task, variant.arch_kwargs, storage_of(variant.storage))
            write_atomic(part / PACKED, data)
            write_decoding(decode_times_ns(data), part)
            self._export_float(arrived, variant, part)

    def _export_float(self, model: Any, variant: Variant, part: Path) -> None:
        specs = self.task.input_specs(**variant.arch_kwargs)
        samples = [inputs_of(self.task, case, variant.arch_kwargs) for case in self.golden]
        reference = export_reference(model, specs, part / "reference.onnx", samples=samples)
        save_weights(model, part / WEIGHTS)
        self._export_program(model, specs, part, samples)
        write_reference(reference, part)

    def _export_program(
        self, model: Any, specs: tuple[TensorSpec, ...], part: Path, samples: Sequence[Mapping[str, Array]]
    ) -> None:
        if any(isinstance(target, FromProgram) for target in self._targets.values()):
            export_program(model, specs, part / PROGRAM_FILE, samples[0])

    def _further(self, variant: Variant, times: LayerTimes | None = None) -> Further | None:
        """How a variant on a rung is trained from the model of the rung below, or on the lowest one from what is cut out of
        its elastic network; either is made first if needed."""
        epochs, below = self._rungs.further_epochs(variant), self._rungs.below(variant)
        if variant.elastic and below is None and isinstance(self.task, Recoverable):
            cut = self._elastics.weights(variant, self.baseline_model, self._oversight)
            return Further(self.task.recovery_recipe.epochs if epochs is None else epochs, cut)
        start = self.reference(below).path.with_name(WEIGHTS) if below else None
        if variant.from_wider and not (below and below.recovery_epochs) and isinstance(self.task, Recoverable):
            wider = self._wider.start_of(variant, self.baseline_model, start, self.reference, times)
            return Further(self.task.recovery_recipe.epochs if epochs is None else epochs, start, wider)
        return None if epochs is None else Further(epochs, start)

    def channels(self, variant: Variant) -> tuple[tuple[str, int], ...]:
        """Output channels of each layer of the variant's architecture, by the layers' names: as its float model has them
        where that lies in the folder, else as pruning would leave them. Empty where nothing tells them; a trial says why."""
        weights = self._store.model_folder(_float_twin(variant).model_digest) / WEIGHTS
        like = weights if weights.is_file() else None
        if like is None and not self._store.baseline_weights.is_file():
            return ()
        import torch

        if variant.arch not in self._gates:  # those of one architecture are kept: they are large
            self._gates = {variant.arch: {}}
        try:
            with torch.random.fork_rng(devices=[]):
                found = layer_widths(
                    self.task,
                    variant,
                    self.baseline_model,
                    like,
                    own_weights=self._own_weights,
                    times=None if like else self.times.of(variant),
                    gates=self._gates[variant.arch],
                )
                whole = channel_widths(built(self.task, variant.arch_kwargs))
        except Exception as exc:  # the user's own code, or no network of that width
            LOG.debug("no channels of %s: %s", variant.model_label, exc)
            return ()
        return tuple(sorted({**whole, **found}.items()))

    def start_notes(self, variant: Variant) -> tuple[str, ...]:
        """Which layer times its widths are by, and which wider model the first training of its model started from, as
        notes; none for any other."""
        times = kept_times(self._store.root) if variant.layer_times else None
        return (*((times.text,) if times else ()), *self._wider_notes(variant))

    def _wider_notes(self, variant: Variant) -> tuple[str, ...]:
        first = _float_twin(variant)
        while (below := self._rungs.below(first)) is not None and below.recovery_epochs:
            first = below
        kept = self._wider.chosen(first)
        if kept is None:
            return ()
        start = Variant.from_json(kept["variant"])
        return (f"{STARTED_FROM}{start.model_label}, model {start.model_digest}",)

    def _trained_before(self, variant: Variant, folder: Path) -> Any | None:
        """The model of a folder whose weights are whole though another file of it is not: it need not be trained again."""
        try:
            if not is_whole_beside(folder, WEIGHTS):
                return None
            weights = folder / WEIGHTS
            return restore(self.task, variant, self.baseline_model, weights, own_weights=self._own_weights)
        except DataError:
            return None

    def _make_quantized(self, variant: Variant, folder: Path) -> None:
        """Train the int8 model from the float model of the same architecture and width, which is made first if
        needed."""
        twin = _float_twin(variant)
        plain = self.reference(twin).path
        kept = kept_float(variant.plan, variant.precision, plain)  # raises before the expensive training
        baseline = self.baseline_model
        with self._account.phase("train"):
            model = restore(self.task, twin, baseline, plain.with_name(WEIGHTS), own_weights=self._own_weights)
            bits = variant.weight_bits or (8 if self._exact_sums else TRAINED_FOR_BOARD.bits)
            reports = list[TrainReport]()
            oversight = self._overseen(variant, reports)
            model = derive_quantized(
                self.task, variant, model, baseline, kept_float=kept, weight_bits=bits, oversight=oversight
            )
        with self._account.phase("build"), new_folder(folder) as part:
            specs = self.task.input_specs(**variant.arch_kwargs)
            samples = [inputs_of(self.task, case, variant.arch_kwargs) for case in self.golden]
            reference = export_quantized(model, specs, part / "reference.onnx", samples=samples)
            self._export_program(model, specs, part, samples)
            write_reports(reports, part)
            write_reference(reference, part)

    def _overseen(self, variant: Variant, reports: list[TrainReport]) -> Oversight:
        """The oversight of the training of a variant's model; its report is appended to ``reports``."""
        trained = (variant.training, variant.plan.label) if variant.training else ()
        further = ("(baseline, recovered)",) if variant.recovered else ()
        parts = (
            f"width {variant.width:g}",
            variant.allocation,
            variant.shrink.label,
            variant.arch_label,
            *trained,
            *further,
        )
        label = " ".join(filter(None, parts))
        return self._oversight(label, self._store.checkpoint(variant.model_digest), reports.append)

    def _ready_made(self, task: ReadyMade, folder: Path) -> Reference:
        """The task's own ONNX file as the reference. Raises ``SpecError`` when it has changed since the study began."""
        manifest = folder / "reference.json"
        if self._kept_reference(folder, "source_sha256") is None:
            with self._account.phase("build"), new_folder(folder) as part:
                write_atomic(part / "reference.onnx", task.reference_model())
                beside: Path | None = getattr(task, "weights_beside", None)  # of a reference that was exported before
                if beside is not None:
                    shutil.copyfile(beside, weights_file(part / "reference.onnx"))
                    check_weights(part / "reference.onnx")
                states = dict(task.states) if isinstance(task, Stateful) else {}
                given = isinstance(task, TakenAsGiven) and bool(task.as_given)
                reference = replace(describe(part / "reference.onnx"), states=states, as_given=given)
                write_reference(reference, part, source_sha256=task.source_sha256)
        kept = read_json(manifest)
        if kept["source_sha256"] != task.source_sha256:
            raise SpecError(
                f"the model of study {self._store.root}",
                "the file has changed since the study began",
                "Put the old file back, or choose another --out",
            )
        return Reference.from_json(kept, folder)


def _float_twin(variant: Variant) -> Variant:
    """The float model that one trained to be int8 starts from."""
    return replace(variant, precision="float32", training="", plan=NO_RULES)
