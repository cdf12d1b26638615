"""A build's failure is the variant's only when it comes twice; a toolchain that contradicts itself is found out."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import pytest
from made_up_study import ONE_TRIAL

from edgedeploy.errors import BuildError, DidNotRun, ParityError, Unrepeatable, Unsupported
from edgedeploy.files import read_json
from edgedeploy.interfaces.target import BuildRequest, Readiness, Target
from edgedeploy.interfaces.task import Split
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.reference.program import CONVERTED
from edgedeploy.search.loop import Failed, Scored
from edgedeploy.spec.study import parse_spec
from edgedeploy.study.account import Account
from edgedeploy.study.store import Store
from edgedeploy.study.trial import Trials
from edgedeploy.study.workbench import Workbench
from edgedeploy.targets.steady import alike, build_steadily
from edgedeploy.tasks.segmentation.ultrasound import SyntheticUltrasound

Answer = str | BuildError
"""What a scripted build does: bytes it writes, or the failure it ends with."""


def missed(by: float) -> BuildError:
    return BuildError("conversion of program.pt2", f"{by} (largest difference 1)", "The converter changed the model")


def scripted(answers: Sequence[Answer], seen: list[list[str]]) -> Callable[[Path], Artifact]:
    """A build that answers as it is told and leaves litter where it fails. What it finds in its folder is in ``seen``."""
    left = iter(answers)

    def build(folder: Path) -> Artifact:
        seen.append([path.name for path in folder.iterdir()])
        answer = next(left)
        (folder / "model.onnx").write_text(str(answer), encoding="utf-8")
        if isinstance(answer, BuildError):
            (folder / "litter").mkdir()
            raise answer
        return made_up.artifact(made_up.variant())

    return build


def built(tmp_path: Path, *answers: Answer) -> tuple[str, list[BuildError], list[str], int]:
    """What lies in the folder at the end, the failures before, what was told of them, and how many builds it took."""
    seen: list[list[str]] = []
    told: list[str] = []
    _, failures = build_steadily(scripted(answers, seen), tmp_path, lambda failure: told.append(failure.found))
    assert not any(seen), "every build begins in an empty folder"
    return (tmp_path / "model.onnx").read_text(encoding="utf-8"), failures, told, len(seen)


def test_a_build_that_holds_is_made_once(tmp_path: Path) -> None:
    assert built(tmp_path, "sound") == ("sound", [], [], 1)


def test_a_failure_is_no_answer_until_it_comes_twice(tmp_path: Path) -> None:
    first, second = missed(0.442), missed(0.583)
    assert built(tmp_path, first, "sound") == ("sound", [first], [first.found], 2)
    (tmp_path / "model.onnx").unlink()
    assert built(tmp_path, first, second, "sound") == ("sound", [first, second], [first.found, second.found], 3)


def test_two_failures_that_agree_are_the_variants(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"0\.442") as caught:
        built(tmp_path, missed(0.442), missed(0.442), "sound")
    assert type(caught.value) is BuildError


@pytest.mark.fault(59, simulated="the toolchain, by a target of the tests' own")
@pytest.mark.parametrize("last", [0.1, 0.442])
def test_failures_that_differ_are_the_toolchains(last: float, tmp_path: Path) -> None:
    """Also where the third agrees with the first: between them it said something else."""
    with pytest.raises(Unrepeatable, match=r"0\.442.*0\.583"):
        built(tmp_path, missed(0.442), missed(0.583), missed(last))


def test_paths_counters_and_addresses_make_no_difference() -> None:
    def failure(folder: str, counter: int) -> BuildError:
        return Unsupported(f"{folder}/model.onnx", f"Convolution_{counter} at 0x7f{counter:x}a: bad", "")

    assert alike(failure("/tmp/.part-a1", 12), failure("/tmp/.part-b2", 907))
    assert not alike(failure("/tmp", 12), BuildError("/tmp/model.onnx", "Convolution_12 at 0x7fca: bad", ""))
    assert not alike(missed(0.442), missed(0.443))


class ScriptedTarget:
    """Writes what it is told, one answer after the other, and keeps a conversion beside the program."""

    name = "onnxruntime"
    precisions: tuple[str, ...] = ("float32",)
    extra = "study"

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)

    def probe(self) -> Readiness:
        return Readiness(True, {"scripted": "1"}, "scripted")

    def build(self, request: BuildRequest, folder: Path) -> Artifact:
        kept = request.reference.with_name(f"{CONVERTED}1.tflite")
        answer = self.answers.pop(0)
        if isinstance(answer, BuildError):
            raise answer
        (folder / "model.onnx").write_text(kept.read_text() if kept.is_file() else answer, encoding="utf-8")
        kept.write_text(answer, encoding="utf-8")
        what: dict[str, Any] = {"target": self.name, "precision": "float32", "entry": "model.onnx"}
        what |= {"inputs": request.inputs, "outputs": request.outputs, "settings": {}, "reference_sha256": "0" * 64}
        return Artifact.of_folder(folder, **what, built_with={"scripted": "1"})


class Bench(Workbench):
    """Without a model: the reference's folder is all that the builds here need."""

    def reference(self, variant: Variant) -> Any:
        folder = self._store.model_folder(variant.model_digest)
        folder.mkdir(parents=True, exist_ok=True)
        spec = made_up.artifact(variant)
        return _Reference(folder / "reference.onnx", spec.inputs, spec.outputs)


class _Reference:
    quantized = False
    sha256 = "0" * 64

    def __init__(self, path: Path, inputs: Any, outputs: Any) -> None:
        self.path, self.inputs, self.outputs = path, inputs, outputs


class ScriptedTrials(Trials):
    """Trials whose board holds an artifact for right that says ``sound``."""

    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        artifact, folder = self.bench.artifact(variant)
        said = (folder / artifact.entry).read_text(encoding="utf-8")
        if said != "sound":
            raise ParityError("output 'out0' within 0.001", said, "")
        return made_up.measurement(variant, artifact=artifact)


Made = tuple[ScriptedTrials, Store, list[str]]


def trials(folder: Path, *answers: Answer) -> Made:
    store, heard = Store(folder), list[str]()
    target: Target = ScriptedTarget("sound", *answers)
    bench = Bench(
        SyntheticUltrasound(),
        {"onnxruntime": target},
        store,
        Account(store),
        tell=lambda kind, text: heard.append(f"{kind} {text}"),
    )
    nothing: Any = None
    baseline = made_up.variant(threads=1, width=0.5)
    bench.artifact(baseline)
    made = ScriptedTrials(
        spec=parse_spec(ONE_TRIAL, Path("study.toml"))[0],
        run=nothing,
        provenance="measured",
        bench=bench,
        store=store,
        account=Account(store),
        reference_baseline=baseline,
        metrics=made_up.TASK_METRICS,
        tell=heard.append,
    )
    return made, store, heard


def test_a_build_that_holds_at_last_is_measured_and_the_failures_are_told(tmp_path: Path) -> None:
    study, store, heard = trials(tmp_path, missed(0.442), "sound")
    assert isinstance(study.evaluate(made_up.variant()), Scored)
    assert [line.partition(" ")[0] for line in heard] == ["phase", "note"]
    (told,) = read_json(store.artifact_folder(made_up.variant().artifact_name) / MANIFEST)["failed_builds"]
    assert "0.442" in told


def test_a_toolchain_that_contradicts_itself_is_no_failure_of_the_variant(tmp_path: Path) -> None:
    study, store, heard = trials(tmp_path, missed(0.442), missed(0.583), missed(0.1), "sound")
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed) and outcome.kind == "Unrepeatable"
    assert "builds failed in different ways" in heard[-1]
    assert store.failures() == ()
    assert study.lookup(made_up.variant()) is None
    assert isinstance(study.evaluate(made_up.variant()), Scored), "the next run finds the toolchain in a better mood"


def test_a_failure_that_comes_twice_is_kept(tmp_path: Path) -> None:
    study, store, _ = trials(tmp_path, missed(0.442), missed(0.442))
    study.evaluate(made_up.variant())
    assert [failure.kind for failure in store.failures()] == ["BuildError"]


@pytest.mark.fault(41)
def test_a_build_that_fails_where_nothing_of_its_target_has_run_is_kept_nowhere(tmp_path: Path) -> None:
    """The toolchain may be at fault. What it cannot express is the variant's own."""
    study, store, _ = trials(tmp_path, missed(0.442), missed(0.442), *[Unsupported("build", "no kernel")] * 2)
    study = replace(study, reference_baseline=replace(study.reference_baseline, target="another"))
    bench: Any = study.bench
    bench._targets = {**bench._targets, "another": ScriptedTarget("sound", "sound")}
    assert isinstance(study.evaluate(made_up.variant()), Failed)
    assert store.failures() == ()
    study.evaluate(made_up.variant())
    assert [failure.kind for failure in store.failures()] == ["Unsupported"]


def test_an_artifact_that_misses_parity_is_built_once_more_before_the_variant_is_blamed(tmp_path: Path) -> None:
    study, store, _ = trials(tmp_path, "off", "off")
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed) and outcome.kind == "ParityError"
    assert [failure.kind for failure in store.failures()] == ["ParityError"]


def test_another_artifact_from_the_same_question_is_measured(tmp_path: Path) -> None:
    """What the target kept of the first conversion is not taken for a second answer."""
    study, store, heard = trials(tmp_path, "off", "sound")
    assert isinstance(study.evaluate(made_up.variant()), Scored)
    assert "another build gave another artifact" in heard[-1]
    assert store.failures() == ()


@pytest.mark.fault(59, simulated="the toolchain, by a target of the tests' own")
@pytest.mark.parametrize("second", ["off in another way", missed(0.1)])
def test_two_artifacts_that_differ_and_both_miss_are_the_toolchains(second: Answer, tmp_path: Path) -> None:
    study, store, _ = trials(tmp_path, "off", *itertools.repeat(second, 2), "sound")
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed) and outcome.kind == "Unrepeatable"
    assert store.failures() == ()
    if isinstance(second, BuildError):
        assert isinstance(study.evaluate(made_up.variant()), Scored), "nothing of either build is kept"


class CrashingTrials(ScriptedTrials):
    """Trials whose board runs nothing."""

    def attempt(self, variant: Variant, split: Split, cool_to_c: float | None = None) -> Measurement:
        raise DidNotRun("board 'b': run it", "worker_crashed: candidate: SIGSEGV", "")


def crashing(folder: Path, *answers: Answer) -> Made:
    made, store, heard = trials(folder, *answers)
    return CrashingTrials(**vars(made)), store, heard


def test_a_crash_beside_a_baseline_of_the_same_runtime_is_the_variants(tmp_path: Path) -> None:
    study, store, _ = crashing(tmp_path, "sound")
    study.evaluate(made_up.variant())
    assert [failure.kind for failure in store.failures()] == ["DidNotRun"]


def test_a_crash_before_anything_has_run_with_that_runtime_shows_nothing(tmp_path: Path) -> None:
    """The baseline itself: nothing is known to be good. Once something of that target has run, it counts."""
    study, store, heard = crashing(tmp_path, "sound")
    outcome = study.evaluate(study.reference_baseline)
    assert isinstance(outcome, Failed) and outcome.kind == "DidNotRun"
    assert store.failures() == ()
    assert "SIGSEGV" in heard[-1]
    store.keep(made_up.measurement(made_up.variant()))
    study.evaluate(study.reference_baseline)
    assert [failure.kind for failure in store.failures()] == ["DidNotRun"]


def test_a_baseline_that_cannot_be_built_is_no_failure_of_the_variant(tmp_path: Path) -> None:
    study, store, _ = trials(tmp_path, missed(0.442), missed(0.442))
    study.bench.forget(study.reference_baseline)
    outcome = study.evaluate(made_up.variant())
    assert isinstance(outcome, Failed) and outcome.kind == "BuildError"
    assert store.failures() == ()
