"""Makes what a trial needs, or finds it in the store: models, ONNX references, artifacts, stacked inputs.

Everything here depends on the study and the variant alone, so a stored result equals a fresh one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from edgedeploy.compress.oversight import TrainProgress
from edgedeploy.compress.weights_file import WeightsFile
from edgedeploy.errors import BuildError
from edgedeploy.files import new_folder, read_json, write_json
from edgedeploy.interfaces.scores import FixedOnBaseline
from edgedeploy.interfaces.target import BuildRequest, HasSevenBitWeights, Target
from edgedeploy.interfaces.task import (
    Array,
    ReadyMade,
    Split,
    Task,
)
from edgedeploy.interfaces.their_code import their_code
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.job import Payload
from edgedeploy.records.precision import NO_RULES
from edgedeploy.records.variant import Scalar, Variant, digest_of
from edgedeploy.records.weightbits import TRAINED_FOR_BOARD, WeightBits
from edgedeploy.reference.apart import Apart, run_apart
from edgedeploy.reference.export import Reference, frames_of, kept_outputs
from edgedeploy.reference.program import PROGRAM_FILE, forget_conversions
from edgedeploy.search.rungs import NO_RUNGS, Rungs
from edgedeploy.study.account import Account
from edgedeploy.study.artifacts import adopt_manifest, forget_artifact, kept_artifact
from edgedeploy.study.cases import inputs_of
from edgedeploy.study.coded import CodedImages, coded_images
from edgedeploy.study.disk import require_whole
from edgedeploy.study.evidence_files import move_aside
from edgedeploy.study.fits import Fits
from edgedeploy.study.inputs import InputSet, Rivals, held_out
from edgedeploy.study.modeller import Modeller
from edgedeploy.study.models import decoding_of, packed_bytes
from edgedeploy.study.steps import steps_of
from edgedeploy.study.store import Store
from edgedeploy.study.tiled import cut_request, of_volumes
from edgedeploy.study.whole import flaw_of, kept_rows
from edgedeploy.targets.steady import build_steadily


def build_here(target: Target, request: BuildRequest, folder: Path) -> Artifact:
    return target.build(request, folder)


class Workbench:
    """Makes the models and artifacts of one study.

    - ``progress`` gets the progress of trainings.
    - ``build`` runs a target's build, in this process or on another host.
    - ``tell`` gets a ``phase`` for each repeated build, and a ``note`` for each message for people.
    - ``exact_sums``: the study's boards add int8 products without saturating
      (:func:`edgedeploy.interfaces.ability.sums_int8_exactly`).
    - ``rungs``: the ladder on which changed architectures are recovered.
    - ``weights_file``: the user's file of the baseline's trained weights.
    - ``codecs``: the study searches codecs of images, so that every variant is timed with an image's whole way.
    - ``memory_limit_bytes``: what a variant may have in memory on the study's boards; ``fits`` holds its weights to it.
    - ``out_of_time`` ends a training between two steps with ``OutOfTime``. Each epoch saves a checkpoint in the store,
      which is removed when the model is stored.
    """

    def __init__(
        self,
        task: Task,
        targets: Mapping[str, Target],
        store: Store,
        account: Account,
        progress: Callable[[str, TrainProgress], None] = lambda what, state: None,
        build: Callable[[Target, BuildRequest, Path], Artifact] = build_here,
        tell: Callable[[Literal["phase", "note"], str], None] = lambda kind, text: None,
        *,
        out_of_time: Callable[[], bool] = lambda: False,
        exact_sums: bool = True,
        weights_file: WeightsFile | None = None,
        rungs: Rungs = NO_RUNGS,
        memory_limit_bytes: int | None = None,
        codecs: bool = False,
    ) -> None:
        self.task = task
        self.fits = Fits(task, memory_limit_bytes)
        self.models = Modeller(
            task,
            targets,
            store,
            account,
            progress,
            tell,
            out_of_time=out_of_time,
            exact_sums=exact_sums,
            weights_file=weights_file,
            rungs=rungs,
        )
        self._exact_sums = exact_sums
        self._codecs = codecs
        self._build = build
        self._targets = targets
        self._store = store
        self._account = account
        self._tell = tell
        self._apart = Apart()
        self._fixed = False

    @property
    def baseline_model(self) -> Any:
        """See :attr:`edgedeploy.study.modeller.Modeller.baseline_model`."""
        return self.models.baseline_model

    def reference(self, variant: Variant) -> Reference:
        """See :meth:`edgedeploy.study.modeller.Modeller.reference`."""
        return self.models.reference(variant)

    def start_notes(self, variant: Variant) -> tuple[str, ...]:
        """See :meth:`edgedeploy.study.modeller.Modeller.start_notes`."""
        return self.models.start_notes(variant)

    def _note(self, text: str) -> None:
        self._tell("note", text)

    def artifact(self, variant: Variant, weight_bits: int | None = None) -> tuple[Artifact, Path]:
        """The built artifact and its folder. Without ``weight_bits``, its weights have the bits that a board chose.

        Raises ``TargetUnavailable``; ``BuildError`` or ``Unsupported`` when two builds failed in the same way;
        ``Unrepeatable`` when all builds failed, each in another way; ``ValueError`` before a board has chosen the bits.
        """
        bits = weight_bits or self._chosen_bits(variant)
        folder = self._artifact_folder(variant, bits)
        adopt_manifest(folder)
        reference = self.reference(variant)
        artifact, flaw = kept_artifact(folder, variant.target, variant.precision, reference.sha256)
        if flaw:
            self._tell("note", f"artifact {folder.name} is not used and built anew: {flaw}")
        if artifact is None:
            with self._account.phase("build"), new_folder(folder) as part:
                whole = self._request(variant, reference, bits)
                request, plan = cut_request(whole, variant)
                artifact, failures = self._build_steadily(variant, request, part)
                artifact = of_volumes(artifact, plan, whole, part)
                model = reference.path.parent
                artifact = replace(artifact, shipped_bytes=packed_bytes(model), decode_ns=decoding_of(model))
                require_whole(part)
                told = {"failed_builds": [str(failure) for failure in failures]} if failures else {}
                write_json(part / MANIFEST, {**artifact.as_json(), **told})
        return artifact, folder

    def _build_steadily(
        self, variant: Variant, request: BuildRequest, part: Path
    ) -> tuple[Artifact, Sequence[BuildError]]:
        target = self._targets[variant.target]

        def repeating(failure: BuildError) -> None:
            self._tell("phase", f"{variant.label}: building it again, it failed: {failure}")

        artifact, failures = build_steadily(lambda empty: self._build(target, request, empty), part, repeating)
        if failures:
            self._tell("note", f"{variant.label}: build {len(failures) + 1} holds, before it: {failures[-1]}")
        return artifact, failures

    def builds_the_same(self, variant: Variant) -> bool:
        """Build a variant's artifact again from scratch, replacing the old one. Returns whether both are the same.

        Raises what :meth:`artifact` raises."""
        before, _ = self.artifact(variant)
        self.forget(variant)
        return self.artifact(variant)[0].digest == before.digest

    def forget(self, variant: Variant) -> None:
        """Remove a variant's artifact and its target's intermediate files, so that it is built again when it is
        needed."""
        forget_conversions(self.reference(variant).path.with_name(PROGRAM_FILE))
        forget_artifact(self._artifact_folder(variant, self._chosen_bits(variant)))

    def _artifact_folder(self, variant: Variant, bits: int) -> Path:
        return self._store.artifact_folder(variant.artifact_folder(bits))

    def _chosen_bits(self, variant: Variant) -> int:
        if variant.training:
            return 8  # training has limited its weights to their bits already
        if variant.weight_bits:
            return variant.weight_bits
        if not self._has_rivals(variant):
            return 8
        chosen = self.weight_bits(variant)
        if chosen is None:
            raise ValueError(f"no board has chosen between 7 and 8 bits for {variant.label}")
        return chosen.bits

    def _has_rivals(self, variant: Variant) -> bool:
        """Whether a board chooses between 7-bit and 8-bit weights: its int8 sums saturate and the target supports both.
        A model that was trained to be int8 has no such choice: its weights were quantized in training."""
        target = self._targets[variant.target]
        settled = self._exact_sums or variant.training or variant.weight_bits
        if settled or not isinstance(target, HasSevenBitWeights):
            return False
        return any(name in target.seven_bit_precisions for name in variant.precisions)

    def weight_bits(self, variant: Variant) -> WeightBits | None:
        """How many bits the weights of a variant's artifact have, and why. None when there is no reason for other than
        8, and before a board has chosen (:meth:`rivals`)."""
        if variant.training and not variant.weight_bits and not self._exact_sums:
            return TRAINED_FOR_BOARD
        path = self._store.weight_bits_path(variant.artifact_name)
        if not self._has_rivals(variant) or not path.is_file():
            return None
        try:
            return WeightBits.from_json(read_json(path))
        except (ValueError, KeyError, TypeError, AttributeError):
            self._tell("note", f"{path.name} is damaged and set aside: the board chooses again")
            move_aside(path, self._store.root)
            return None

    def keep_weight_bits(self, variant: Variant, chosen: WeightBits) -> None:
        write_json(self._store.weight_bits_path(variant.artifact_name), chosen.as_json())

    def rivals(self, variant: Variant) -> Rivals | None:
        """The builds between which a board has yet to choose; None when there is no open choice. Raises what
        :meth:`artifact` raises."""
        if not self._has_rivals(variant) or self.weight_bits(variant) is not None:
            return None
        built = {bits: self.artifact(variant, bits) for bits in (8, 7)}
        split, cases = held_out(self.task, variant)
        feeds = tuple(inputs_of(self.task, case, variant.arch_kwargs) for case in cases)
        name = f"held-out-{digest_of([split, variant.calibration_cases, dict(variant.arch)])[:16]}"
        path = self._store.inputs_path(name)
        with self._account.phase("bookkeeping"):
            kept_rows(path, feeds, self._note)
        states = self.reference(variant).states
        payloads = {bits: Payload(*found, path, variant.threads, states) for bits, found in built.items()}
        return Rivals(payloads, feeds, split, name)

    def _request(self, variant: Variant, reference: Reference, weight_bits: int) -> BuildRequest:
        def calibration() -> Iterator[dict[str, Array]]:
            cases = self.task.cases("calibration")
            taken = cases[: variant.calibration_cases or len(cases)]
            feeds = (inputs_of(self.task, case, variant.arch_kwargs) for case in taken)
            sound = self._apart.first(reference, feeds) if isinstance(self.task, ReadyMade) else feeds
            yield from frames_of(reference, sound) if reference.states else sound

        program = reference.path.with_name(PROGRAM_FILE)
        return BuildRequest(
            reference=reference.path,
            inputs=reference.inputs,
            outputs=reference.outputs,
            precision=variant.precision,
            calibration=calibration,
            plan=NO_RULES if reference.quantized else variant.plan,  # a quantized reference has it already
            calibrator=variant.calibration,
            quantizer=variant.quantizer,
            max_batch=variant.max_batch,
            program=program if program.is_file() else None,
            quantized=reference.quantized,
            weight_bits=weight_bits,
        )

    def calibration(self, variant: Variant) -> Iterator[dict[str, Array]]:
        """The calibration cases that a target would get, one at a time."""
        return self._request(variant, self.reference(variant), 8).calibration()

    def payload(self, variant: Variant, split: Split) -> Payload:
        """The artifact with the inputs of a split, ready for a board."""
        artifact, folder = self.artifact(variant)
        inputs, states, images = (
            self.inputs_of(variant, split),
            self.reference(variant).states,
            self.images(variant, split),
        )
        return Payload(
            artifact, folder, inputs.path, variant.threads, states, images.frames if images is not None else None
        )

    def inputs_of(self, variant: Variant, split: Split) -> InputSet:
        """The inputs that a variant is measured on: as :meth:`inputs`, of decoded images where it has a codec. Raises what
        :func:`~edgedeploy.study.coded.coded_images` raises."""
        if not variant.image_codec:
            return self.inputs(split, variant.arch_kwargs)
        found = self.images(variant, split)
        assert found is not None and found.inputs is not None
        golden = tuple(case.id for case in self.models.golden)
        return InputSet(found.inputs, golden, tuple(self.task.cases(split)))

    def images(self, variant: Variant, split: Split) -> CodedImages | None:
        """The coded images of a split; None in a study that searches no codec."""
        cases = tuple(self.task.cases(split))
        if not (self._codecs or variant.image_codec) or not cases:
            return None
        arch, codec = variant.arch_kwargs, variant.image_codec
        steps = steps_of(self.task, arch, self.reference(variant))
        name = f"{split}-{digest_of(arch)[:16]}{f'-{codec}' if codec else ''}"
        with self._account.phase("bookkeeping"):
            path = self._store.inputs_path(name)
            return coded_images(self.task, steps, arch, codec, self.models.golden, cases, path, self._note)

    def inputs(self, split: Split, arch: Mapping[str, Scalar]) -> InputSet:
        """Golden cases, then all cases of ``split``, stacked per model input: (cases, *input shape)."""
        golden = self.models.golden
        cases = tuple(self.task.cases(split))
        path = self._store.inputs_path(f"{split}-{digest_of(dict(arch))[:16]}")
        if flaw_of(path) != "":
            with self._account.phase("bookkeeping"):
                kept_rows(path, (inputs_of(self.task, case, arch) for case in (*golden, *cases)), self._note)
        return InputSet(path, tuple(case.id for case in golden), cases)

    def golden_outputs(self, variant: Variant) -> list[dict[str, Array]]:
        """The reference's outputs on the golden cases."""
        feeds = [inputs_of(self.task, case, variant.arch_kwargs) for case in self.models.golden]
        return self._reference_outputs(variant, feeds, "golden")

    def fix_on(self, baseline: Variant) -> None:
        """Let the task set what it sets once, on the float reference of the ``baseline``. On every run anew, from the same
        outputs."""
        if self._fixed or not isinstance(self.task, FixedOnBaseline):
            return
        cases = tuple(self.task.cases("selection"))
        feeds = [inputs_of(self.task, case, baseline.arch_kwargs) for case in cases]
        outputs = self._reference_outputs(baseline, feeds, "selection")
        with their_code(self.task, f"fix() of {len(cases)} cases"):
            told = dict(self.task.fix(cases, outputs))
        self._fixed = True
        if told:
            values = ", ".join(f"{name} {value:.4g}" for name, value in told.items())
            self._tell("note", f"fixed on the float baseline, {len(cases)} selection cases: {values}")

    def rivals_reference(self, variant: Variant, rivals: Rivals) -> list[dict[str, Array]]:
        """The reference's outputs on the cases on which ``rivals`` are compared."""
        return self._reference_outputs(variant, rivals.feeds, rivals.name)

    def _reference_outputs(
        self, variant: Variant, feeds: Sequence[dict[str, Array]], name: str
    ) -> list[dict[str, Array]]:
        """The reference's outputs, computed once for all of its artifacts and kept beside it in the file ``name``."""
        reference = self.reference(variant)
        with self._account.phase("build"):
            place = reference.path.with_name(f"{name}.npz")
            apart = {"apart": run_apart} if isinstance(self.task, ReadyMade) else {}
            return kept_outputs(reference, feeds, place, partial(self._tell, "note"), **apart)
