"""A bundle from a study's folder: what is in it, what is not, and what is refused. Models and artifacts are real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from bundle_kit import FLOAT, INT8, SECRET, array, clip_study, here, made_up_study, manifest_of
from product_kit import make_key
from small_task import bench
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.errors import BundleError, GoalNotMet, SpecError
from edgedeploy.interfaces.task import Piped
from edgedeploy.runtime import load
from edgedeploy.runtime.bundle.tree import read_tree
from edgedeploy.runtime.bundle.verify import verify
from edgedeploy.runtime.pipeline.run import finish, prepare
from edgedeploy.runtime.pipeline.steps import read_steps
from edgedeploy.runtime.sessions.open import open_session
from edgedeploy.study.bundle.golden import DULL, SOURCES, npy, synthetic_frame
from edgedeploy.study.bundle.make import make_bundle
from edgedeploy.study.bundle.material import gather
from edgedeploy.study.bundle.options import BundleOptions, name_of
from edgedeploy.study.bundle.pages import code as code_span
from edgedeploy.study.bundle.private import require_nothing_private
from edgedeploy.study.bundle.sbom import require_whole
from edgedeploy.study.store import Store
from edgedeploy.targets.openvino import OpenVinoTarget
from edgedeploy.targets.tensorrt import TensorRtTarget
from edgedeploy.tasks.load import load_task, task_sources

pytestmark = pytest.mark.beside


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_study(tmp_path_factory.mktemp("bundle") / "study").root.parent


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    return make_bundle(folder / "runs", "pick", folder / "bundle").folder


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Callable[..., Store]:
    """The study in a folder of the test's own, with another task where its code is given."""

    def made(more_code: str = "", *, known: bool = True) -> Store:
        place = tmp_path / "study"
        shutil.copytree(folder, place, ignore=shutil.ignore_patterns("bundle*"))
        store = Store(place / "runs")
        kept = {**json.loads(store.study_path.read_text("utf-8")), "spec_folder": str(place)}
        if more_code:
            code = (
                (place / "phantom.py")
                .read_text("utf-8")
                .replace("    trained = True\n", f"    trained = True\n{more_code}")
            )
            (place / "phantom.py").write_text(code, "utf-8")
        if known:
            table = {"kind": "python", "object": "phantom.py:make_task"}
            kept["task_sources"] = task_sources(table, place)
        store.study_path.write_text(json.dumps(kept), "utf-8")
        return store

    return made


def test_a_bundle_is_whole_and_its_manifest_is_read(bundle: Path) -> None:
    found = verify(bundle, trust=None)
    assert found.manifest.name == "a-phantom" and found.manifest.target == "onnxruntime"
    assert set(found.manifest.files) == set(found.tree.digests) - {"bundle.json"}
    assert {name.partition("/")[0] for name in found.tree.digests} == {
        *("bundle.json", "artifact", "model", "golden", "recipe.json", "claims.json", "provenance.json"),
        *("MODEL_CARD.md", "sbom.cdx.json", "CHANGES.md"),
    }


def test_golden_vectors_are_what_the_artifact_and_the_pipeline_give(bundle: Path) -> None:
    manifest = manifest_of(bundle)
    session = open_session("onnxruntime", bundle / "artifact", manifest.artifact.session.entry, {}, 1)
    steps = read_steps(manifest.pipeline.input, manifest.pipeline.output)
    assert len(manifest.golden.cases) >= 3
    for case in manifest.golden.cases:
        inputs, placement = prepare(steps, array(bundle, case.frame))
        assert all(np.array_equal(inputs[name], array(bundle, file)) for name, file in case.inputs.items())
        outputs = session.run(inputs)
        assert all(np.array_equal(outputs[name], array(bundle, file)) for name, file in case.outputs.items())
        result = array(bundle, case.result)
        assert np.array_equal(finish(steps, outputs, placement), result)
        assert result.shape == (48, 48) and result.dtype == np.uint8
    assert 0.0025 <= manifest.golden.tolerance["out0"].relative_l2 <= 0.25  # int8
    assert len({array(bundle, case.outputs["out0"]).tobytes() for case in manifest.golden.cases}) == 3
    dull = all(array(bundle, case.result).max() == 0 for case in manifest.golden.cases)  # the network was never trained
    assert dull == (DULL in (bundle / "MODEL_CARD.md").read_text("utf-8"))


def test_the_pipeline_gives_what_the_study_measured(folder: Path, bundle: Path) -> None:
    task: Any = load_task({"kind": "python", "object": "phantom.py:make_task", "options": {"site": SECRET}}, folder)
    assert isinstance(task, Piped)
    manifest = manifest_of(bundle)
    steps = read_steps(manifest.pipeline.input, manifest.pipeline.output)
    for case in task.cases("selection"):
        inputs, placement = prepare(steps, task.frame(case))
        assert np.array_equal(inputs["image"], task.inputs(case, **INT8.arch_kwargs)["image"])
        logits = {"out0": np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)}
        assert np.array_equal(finish(steps, logits, placement), task.answer(logits, (48, 48)))


def test_two_builds_are_the_same_bytes(folder: Path, bundle: Path) -> None:
    again = make_bundle(folder / "runs", "pick", folder / "bundle-again")
    assert read_tree(again.folder).digests == read_tree(bundle).digests
    assert again.identity == read_tree(bundle).identity


def test_the_moment_is_that_of_the_measurement_or_the_one_that_is_asked_for(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert manifest_of(bundle).created == "2026-01-01T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    made = make_bundle(folder / "runs", "pick", tmp_path / "b").folder
    assert manifest_of(made).created == "1970-01-02T00:00:00Z"
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "tomorrow")
    with pytest.raises(SpecError, match="SOURCE_DATE_EPOCH"):
        make_bundle(folder / "runs", "pick", tmp_path / "c")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]  # nothing half-written


@pytest.mark.fault(39)
def test_nothing_of_the_host_and_no_private_word_is_in_it(folder: Path, bundle: Path) -> None:
    for path in bundle.rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        for word in ("selection-0", "case-0", SECRET, str(folder), "cart-17", "operator9", str(Path.home()) + "/"):
            assert word.encode() not in data, path
    with pytest.raises(BundleError, match=r"file .* a word of the study file that is private"):
        make_bundle(folder / "runs", "pick", folder / "bundle-told", BundleOptions(supplier=f"for {SECRET}"))
    assert not (folder / "bundle-told").exists()


@pytest.mark.fault(39)
def test_a_toolchain_that_writes_a_folder_of_the_host_is_found_out(folder: Path, tmp_path: Path) -> None:
    material = gather(folder / "runs", "pick")
    (tmp_path / "artifact").mkdir()
    for name, text in (
        ("model.onnx", f"\0{folder}/phantom.py\0"),
        ("a.json", f'"{Path.home()}/x"'),
        ("b.md", "of selection-0001"),
    ):
        (tmp_path / "artifact" / name).write_text(text)
        with pytest.raises(BundleError, match=name):
            require_nothing_private(tmp_path, material)
        (tmp_path / "artifact" / name).unlink()
    layers = f"/{Path.home().parts[1]}/conv {folder}ed selection-00012"
    (tmp_path / "artifact" / "model.onnx").write_text(layers)
    require_nothing_private(tmp_path, material)


def test_the_bill_of_materials_is_valid_and_whole(bundle: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator  # two seconds, which only this test needs

    text = (bundle / "sbom.cdx.json").read_text("utf-8")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    bom = json.loads(text)
    model = bom["metadata"]["component"]
    assert {item["name"].partition(":")[2] for item in model["properties"]} >= {"support-level", "end-of-support"}
    metrics = {item["type"]: item for item in model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]}
    assert float(metrics["dice_mean [1]"]["confidenceInterval"]["lowerBound"]) < 0.85
    bom["dependencies"][0]["dependsOn"].append("nobody")
    with pytest.raises(BundleError, match="nobody"):
        require_whole(bom)


def test_claims_have_intervals_conditions_and_provenance(bundle: Path) -> None:
    claims = json.loads((bundle / "claims.json").read_text("utf-8"))
    dice = claims["metrics"]["dice_mean"]
    assert dice["low"] < dice["value"] < dice["high"] and dice["unit"] == "1"
    assert claims["provenance"] == "emulated" and claims["board"]["cpu"].startswith("Made-up")
    assert claims["against_baseline"]["word"] == "non-inferior" and claims["against_baseline"]["picked_by_rule"]
    assert "energy_j" in claims["missing"] and "not on the board" in claims["golden"]
    assert not {"host_key", "serial", "boot_id"} & set(claims["board"])
    chain = json.loads((bundle / "provenance.json").read_text("utf-8"))["chain"]
    assert [link["what"] for link in chain] == ["checkpoint", "model", "reference", "artifact"]
    listed = manifest_of(bundle).files
    assert chain[2]["sha256"] == listed["model/reference.onnx"].sha256
    assert chain[3]["files"]["model.onnx"] == listed["artifact/model.onnx"].sha256


def test_the_card_and_the_change_report_say_what_a_reader_asks(bundle: Path) -> None:
    card = (bundle / "MODEL_CARD.md").read_text("utf-8")
    assert card.splitlines()[0] == "# a-phantom, release 1" and "> **" not in card
    for said in ("Classes: 0 background, 1 nerve, 2 vessel.", "one point of the front", "black is 0 and white 255"):
        assert said in card
    report = (bundle / "CHANGES.md").read_text("utf-8")
    assert [line for line in report.splitlines() if line.startswith("## ")] == [
        "## 1. Description of modifications",
        "## 2. Modification protocol",
        "## 3. Impact assessment",
    ]
    assert "- precision: float32 -> int8" in report and "no claim that the product" in report


@pytest.mark.parametrize("named", [True, False])
def test_the_card_says_that_clusters_are_unknown_where_they_are(
    named: bool, copy: Callable[..., Store], tmp_path: Path
) -> None:
    """Cases that each stand alone leave no groups with a measurement, and a task that names them so had been said to name
    none."""
    store = copy()
    kept = json.loads(store.study_path.read_text("utf-8"))
    count = {"selection": 40, "confirmation": 40}
    store.study_path.write_text(
        json.dumps({**kept, "clusters": {"named": named, "cases": count, "groups": count}}), "utf-8"
    )
    card = (make_bundle(store.root, "pick", tmp_path / "b").folder / "MODEL_CARD.md").read_text("utf-8")
    assert ("Clusters of cases" in card) != named


@pytest.mark.fault(38)
def test_names_do_nothing_in_the_card(copy: Callable[..., Store], tmp_path: Path) -> None:
    name = "<script>alert(1)</script>`|[x](javascript:y)"
    code = "    def __init__(self, options):\n        super().__init__(options)\n"
    store = copy(code + f"        self.classes = {{{name!r}: 1, 'vessel': 2}}\n")
    made = make_bundle(store.root, "pick", tmp_path / "b", BundleOptions(support="<img src=x onerror=y>")).folder
    card = (made / "MODEL_CARD.md").read_text("utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;'" in card and "<script" not in card and "<img" not in card
    assert r"\[x\](javascript" in card
    assert code_span("a`b\n|") == r"`a'b \|`"


def test_without_a_pick_a_variant_has_to_be_named_and_the_card_says_so_first(
    copy: Callable[..., Store], tmp_path: Path
) -> None:
    store = copy()
    kept = store.measurement(INT8.digest)
    assert kept is not None
    worse = made_up.measurement(INT8, dice=0.8, latency_ms=2.0)
    store.keep(replace(kept, cases=worse.cases, metrics=worse.metrics))
    with pytest.raises(GoalNotMet, match="--variant DIGEST"):
        make_bundle(store.root, "pick", tmp_path / "b")
    made = make_bundle(store.root, INT8.digest[:6], tmp_path / "b")
    assert made.warning.startswith("NOT shown") and "case-" not in made.warning
    card = (made.folder / "MODEL_CARD.md").read_text("utf-8").splitlines()
    assert card[2].startswith("> **NOT shown to be as good as the float baseline")
    with pytest.raises(SpecError, match="0 measured variants"):
        make_bundle(store.root, "abcdef", tmp_path / "c")


def test_a_folder_that_is_there_is_left_alone(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(SpecError, match="exists"):
        make_bundle(folder / "runs", "pick", tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_cases_leave_only_when_that_is_asked_for(folder: Path, bundle: Path, tmp_path: Path) -> None:
    task: Any = load_task({"kind": "python", "object": "phantom.py:make_task", "options": {"site": SECRET}}, folder)
    frames = {
        np.asarray(task.frame(case)).tobytes() for split in ("train", "calibration") for case in task.cases(split)
    }
    kept = [array(bundle, case.frame) for case in manifest_of(bundle).golden.cases]
    assert not any(frame.tobytes() in frames for frame in kept)
    made = make_bundle(folder / "runs", "pick", tmp_path / "b", BundleOptions(golden="cases")).folder
    cases = manifest_of(made).golden.cases
    assert [case.id for case in cases] == ["case-1", "case-2", "case-3"]
    assert all(array(made, case.frame).tobytes() in frames for case in cases)
    assert "may be patients' data" in (made / "MODEL_CARD.md").read_text("utf-8")


def test_a_task_that_declares_no_pipeline_gives_and_takes_tensors(copy: Callable[..., Store], tmp_path: Path) -> None:
    made = make_bundle(copy("    pipeline = None\n").root, "pick", tmp_path / "b").folder
    manifest = manifest_of(made)
    assert manifest.pipeline.input == manifest.pipeline.output == ()
    assert {(case.frame, case.result) for case in manifest.golden.cases} == {(None, None)}
    assert "declares no pipeline" in (made / "MODEL_CARD.md").read_text("utf-8")


def test_steps_that_make_other_inputs_than_the_study_are_refused(copy: Callable[..., Store], tmp_path: Path) -> None:
    code = "    def inputs(self, case, **arch):\n        return {'image': super().inputs(case, **arch)['image'] + 1}\n"
    store = copy(code)
    with pytest.raises(SpecError, match="other inputs of its frame than the study measured"):
        make_bundle(store.root, "pick", tmp_path / "b")


def test_a_task_whose_code_changed_is_refused(copy: Callable[..., Store], tmp_path: Path) -> None:
    store = copy("    more = 1\n", known=False)
    with pytest.raises(SpecError, match=r"phantom\.py changed since"):
        make_bundle(store.root, "pick", tmp_path / "b")


@pytest.mark.fault(34)
def test_for_tensorrt_the_bundle_has_a_recipe_and_no_plan(copy: Callable[..., Store], tmp_path: Path) -> None:
    store = copy()
    variant = replace(FLOAT, target="tensorrt")
    task = load_task(
        {"kind": "python", "object": "phantom.py:make_task", "options": {"site": SECRET}}, store.root.parent
    )
    artifact, _ = bench(store, task, TensorRtTarget()).artifact(variant)
    board = made_up.board(
        arch="aarch64", isa=("asimd",), accelerators=("GPU Orin (nvgpu)",), runtimes={"tensorrt": "10.3.0"}
    )
    found = made_up.measurement(variant, latency_ms=1.0)
    side = replace(found.candidate, runtime_version="10.3.0")
    for path in (store.root / "measurements").iterdir():
        path.unlink()
    store.keep(replace(found, artifact=artifact, board=board, candidate=side))
    made = make_bundle(store.root, variant.digest, tmp_path / "b").folder
    manifest = manifest_of(made)
    assert manifest.artifact.kind == "recipe" and "model.onnx" in manifest.artifact.files
    assert not [name for name in manifest.files if name.endswith((".plan", ".engine", ".trt"))]
    assert manifest.compatibility.gpu == "GPU Orin (nvgpu)" and manifest.compatibility.runtime.below == "11"
    assert "ONNX reference" in json.loads((made / "claims.json").read_text("utf-8"))["golden"]


def test_an_artifact_of_several_files_loads_too(copy: Callable[..., Store], tmp_path: Path) -> None:
    store = copy()
    variant = replace(FLOAT, target="openvino")
    options = {"kind": "python", "object": "phantom.py:make_task", "options": {"site": SECRET}}
    task: Any = load_task(options, store.root.parent)
    artifact, _ = bench(store, task, OpenVinoTarget()).artifact(variant)
    found = made_up.measurement(variant, latency_ms=1.0, baseline_ms=6.0)
    side = replace(found.candidate, runtime_version=here()["runtimes"]["openvino"])
    store.keep(replace(found, artifact=artifact, board=made_up.board(**here()), candidate=side))
    made = make_bundle(store.root, variant.digest, tmp_path / "b")
    manifest = manifest_of(made.folder)
    assert set(manifest.artifact.files) == {"model.xml", "model.bin"} and manifest.artifact.session.entry == "model.xml"
    model = load(made.folder, trust=None)
    assert model(task.frame(task.cases("selection")[0])).shape == (48, 48)


def test_the_golden_cases_of_a_network_with_state_are_clips(tmp_path: Path) -> None:
    store, variant = clip_study(tmp_path / "study")
    for golden in SOURCES:
        made = make_bundle(store.root, variant.digest, tmp_path / golden, BundleOptions(golden=golden)).folder
        case = manifest_of(made).golden.cases[0]
        assert array(made, case.inputs["x"]).shape == (4, 1, 8) and array(made, case.inputs["state"]).shape == (1, 8)
        assert set(case.outputs) == {"y"} and len(array(made, case.outputs["y"])) == 4
        assert load(made, trust=None).proof.relative_l2 == {"y": 0.0}


def test_a_signed_bundle_is_the_same_bytes_twice_and_loads_in_a_product(folder: Path, tmp_path: Path) -> None:
    key, trust = make_key(tmp_path)
    made = [make_bundle(folder / "runs", "pick", tmp_path / name, BundleOptions(sign=key)) for name in ("a", "b")]
    assert (tmp_path / "a" / "model.sig").read_bytes() == (tmp_path / "b" / "model.sig").read_bytes()
    assert made[0].signer is not None and made[0].identity == made[1].identity
    model = load(tmp_path / "a", trust=trust)
    task: Any = load_task({"kind": "python", "object": "phantom.py:make_task", "options": {"site": SECRET}}, folder)
    for case in task.cases("selection")[:2]:
        logits = model.run(task.inputs(case, **INT8.arch_kwargs))
        assert np.array_equal(model(task.frame(case)), task.answer(logits, (48, 48)))


def test_the_command_says_what_it_made(folder: Path, bundle: Path, tmp_path: Path) -> None:
    words = ["bundle", str(folder / "runs"), "--pick", "--out", str(tmp_path / "b"), "--release", "4"]
    done = CliRunner().invoke(app, [*words, "--name", "cart", "--not-after", "2027-12-31"])
    assert done.exit_code == 0, done.output
    assert "Bundle cart, release 4" in done.stdout and "Not signed" in done.stdout
    manifest = manifest_of(tmp_path / "b")
    assert (manifest.name, manifest.release, manifest.not_after) == ("cart", 4, "2027-12-31T23:59:59Z")
    done = CliRunner().invoke(app, [*words[:-3], str(tmp_path / "c"), "--json"])
    assert json.loads(done.stdout)["identity"] == read_tree(bundle).identity


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"name": "../x"}, "--name"),
        ({"release": 0}, "--release"),
        ({"golden": "patients"}, "--golden"),
        ({"not_after": "soon"}, "--not-after"),
        ({"end_of_support": "2027-02-30"}, "--end-of-support"),
        ({"supplier": "a\nb"}, "--supplier"),
    ],
)
def test_options_that_say_nothing_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        BundleOptions(**options)


def test_a_study_that_has_no_name_for_files_gets_one() -> None:
    assert name_of("Schilddrüse: 2. Anlauf!") == "Schilddr-se-2.-Anlauf"
    assert name_of("日本") == "model"


def test_synthetic_frames_are_of_the_size_and_type_alone() -> None:
    like = np.full((20, 30, 3), 7, np.uint8)
    frame = synthetic_frame(like, 1)
    assert (frame.shape, frame.dtype) == (like.shape, like.dtype) and frame.std() > 20
    assert np.array_equal(frame, synthetic_frame(np.zeros_like(like), 1))
    assert not np.array_equal(frame, synthetic_frame(like, 2))
    assert synthetic_frame(np.zeros((8, 9), np.float32), 1).dtype == np.float32
    assert npy(frame) == npy(np.asfortranarray(frame))
