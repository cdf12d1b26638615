"""Classification without code: folders and tables, metrics of cases and of the split, the user's own network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import picture_kit
import pytest
import torch

from edgedeploy import (
    FixedOnBaseline,
    Grouped,
    Pictured,
    RanksCases,
    ScoresSplit,
    Task,
    Trainable,
    TrainRecipe,
)
from edgedeploy.compress.training import fit
from edgedeploy.errors import DataError, SpecError
from edgedeploy.interfaces.task import SPLITS
from edgedeploy.tasks.classification import Classification, split_scores
from edgedeploy.tasks.load import load_task

SMALL = {"resolutions": [16], "base_channels": 4}


def load(root: Path, **options: Any) -> Classification:
    table = {"kind": "classification", "options": {"root": str(root), **SMALL, **options}}
    task = load_task(table, root.parent)
    assert isinstance(task, Classification)
    return task


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_kit.two_classes(tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return picture_kit.table_of_patients(tmp_path_factory.mktemp("patients"))


def answers(task: Classification, model: Any, split: Any) -> list[dict[str, Any]]:
    with torch.no_grad():
        return [
            {"logits": model(torch.from_numpy(task.inputs(case, resolution=16)["image"])).numpy()}
            for case in task.cases(split)
        ]


def test_a_folder_per_class_trains_scores_and_shows(folders: Path) -> None:
    task = load(folders, positive="upright")
    for protocol in (Task, Trainable, ScoresSplit, RanksCases, FixedOnBaseline, Grouped, Pictured):
        assert isinstance(task, protocol)
    assert [len(task.cases(split)) for split in SPLITS] == [23, 5, 10, 10]
    assert task.input_specs(resolution=16)[0].shape == (1, 1, 16, 16)
    model = task.build(resolution=16)
    recipe = TrainRecipe(epochs=8, batch_size=8, learning_rate=1e-2)
    fit(model, task, recipe, arch={"resolution": 16})
    outputs = answers(task, model, "selection")
    cases = task.cases("selection")
    found = task.score(cases, outputs)
    of_split = {"auroc", "balanced_accuracy", "f1", "sensitivity", "ece", "ece_by_chance"}
    assert set(found) == set(task.split_metrics) == of_split
    assert found["auroc"] is not None and found["auroc"] > 0.9
    by_case = [task.evaluate(row, case) for row, case in zip(outputs, cases, strict=True)]
    assert np.mean([row["accuracy"] for row in by_case]) == found["balanced_accuracy"]
    assert set(by_case[0]) == set(task.metrics)
    shown = task.picture(cases[0], None)
    assert (shown.shape, shown.dtype) == ((7 * 24 + 16, 7 * 24, 3), np.uint8)
    assert (task.picture(cases[0], outputs[0])[: 7 * 24] == shown[: 7 * 24]).all()
    assert (task.picture(cases[0], outputs[0]) != shown).any()


def test_splits_that_are_folders_are_kept(tmp_path: Path) -> None:
    picture_kit.two_classes(tmp_path / "train")
    picture_kit.two_classes(tmp_path / "test", cases=3)
    for number, path in enumerate(sorted((tmp_path / "test").rglob("*.png"))):
        picture_kit.save(path, picture_kit.striped(9000 + number, "upright" in str(path)))
    task = load(tmp_path)
    assert next(case.id for case in task.cases("confirmation")) == "confirmation/test/lying/000.png"
    assert [len(task.cases(split)) for split in SPLITS] == [33, 5, 10, 6]


def test_a_table_keeps_patients_together(patients: Path) -> None:
    task = load(patients, table="labels.csv")
    sides = [{case.id.rpartition("/p")[2].partition("-")[0] for case in task.cases(split)} for split in SPLITS]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 12
    groups = {task.group_of(case) for case in task.cases("train")}
    assert len(groups) == len(sides[0])
    assert task.groups_known


def test_a_table_names_splits_too(patients: Path, tmp_path: Path) -> None:
    lines = (patients / "labels.csv").read_text().splitlines()
    words = ["split", *(["test"] * 16 + ["train"] * 32)]
    (patients / "named.csv").write_text("\n".join(f"{line},{word}" for line, word in zip(lines, words, strict=True)))
    task = load(patients, table="named.csv")
    assert len(task.cases("confirmation")) == 16


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../secret.png,lying,p,", "'../secret.png' leads out of"),
        ("/etc/passwd,lying,p,", "'/etc/passwd' leads out of"),
        ("images/none.png,lying,p,", "no file at .*none.png"),
        ("images/p0-0.png,,p,", "no label"),
        ("images/p0-0.png,lying,p,holdout", "split 'holdout'.*Known: train"),
        ("images/p0-1.png,lying,patient 0,", "'images/p0-1.png' stands twice"),
        ("images/p0-0.png,lying, flat,p,train", "more than the 4 values.*in quotes"),
    ],
)
def test_rows_that_cannot_be_used_name_their_line(patients: Path, row: str, message: str) -> None:
    lines = (patients / "labels.csv").read_text().splitlines()
    text = "\n".join([lines[0] + ",split", *(line + "," for line in lines[2:]), row])
    (patients / "bad.csv").write_text(text + "\n")
    with pytest.raises(DataError, match=message) as told:
        load(patients, table="bad.csv")
    assert "bad.csv, line 49" in str(told.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image;klass\na;b\n", "its columns are image, klass"),
        ("image,label\n", "it has no rows"),
        ("", "its columns are none"),
    ],
)
def test_tables_that_are_none(patients: Path, text: str, message: str) -> None:
    (patients / "odd.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load(patients, table="odd.csv")


def test_a_table_that_is_far_too_large_is_not_read(patients: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgedeploy.tasks.pictures.table.MAX_TABLE_BYTES", 1 << 10)
    with pytest.raises(DataError, match=r"labels.csv: it is larger than"):
        load(patients, table="labels.csv")
    monkeypatch.undo()
    monkeypatch.setattr("edgedeploy.tasks.pictures.table.MAX_ROWS", 10)
    with pytest.raises(DataError, match=r"labels.csv, line 12: more than 10 rows"):
        load(patients, table="labels.csv")


def test_a_table_with_odd_separators_and_a_byte_order_mark_is_read(patients: Path) -> None:
    text = (patients / "labels.csv").read_text().replace(",", ";")
    (patients / "excel.csv").write_text("\ufeff" + text.replace("\n", "\r\n"), newline="")
    assert len(load(patients, table="excel.csv").cases("train")) > 8


def test_a_class_keeps_the_line_ends_that_its_quotes_hold(tmp_path: Path, patients: Path) -> None:
    header, *rows = (patients / "labels.csv").read_text().splitlines()
    for odd in ("on\nits side", "on\u2028its side"):
        quoted = "\n".join(row.replace(",lying,", f',"{odd}",') for row in rows)
        (patients / "quoted.csv").write_text(f"{header}\n{quoted}\n")
        assert load(patients, table="quoted.csv").classes == (odd, "upright")


def test_one_picture_in_two_classes_is_refused(tmp_path: Path) -> None:
    picture_kit.two_classes(tmp_path)
    (tmp_path / "lying" / "copy.png").write_bytes((tmp_path / "upright" / "004.png").read_bytes())
    with pytest.raises(
        DataError, match=r"lying/copy.png is 'lying' and upright/004.png is 'upright', and they are one"
    ):
        load(tmp_path)


def test_a_picture_that_is_there_twice_is_on_one_side(tmp_path: Path) -> None:
    picture_kit.two_classes(tmp_path)
    for number in range(12):
        (tmp_path / "lying" / f"copy{number}.png").write_bytes((tmp_path / "lying" / f"{number:03d}.png").read_bytes())
    task = load(tmp_path)
    side = {case.id.partition("/")[2]: split for split in SPLITS for case in task.cases(split)}
    assert all(side[f"lying/copy{n}.png"] == side[f"lying/{n:03d}.png"] for n in range(12))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    picture_kit.two_classes(tmp_path)
    (tmp_path / "lying" / "003.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"lying/003.png"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positive": "uprigth"}, "there is no class 'uprigth'.*upright"),
        ({"specificity": 1.5}, "specificity is a share"),
        ({"colour": "red"}, "colour is grey or rgb"),
        ({"selection_share": 0.9}, "shares must be above 0"),
        ({"resolutions": [8]}, "resolutions must be at least 16"),
        ({"resolutions": [1_000_000]}, "resolutions are at most 8000"),
        ({"epochs": 3}, "unknown option"),
    ],
)
def test_options_that_are_wrong(folders: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load(folders, **options)


def test_a_folder_without_classes_says_so(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="the folder holds no folders"):
        load(tmp_path / "data")


NETWORK = """
import torch
def small(classes, resolution, in_channels=1):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(in_channels * resolution**2, classes))
def one():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 1))
def asks(depth):
    return None
def nothing():
    return 3
def fails(classes):
    return {}["weights"]
"""


def test_a_network_of_ones_own(folders: Path) -> None:
    (folders.parent / "nets.py").write_text(NETWORK)
    task = load(folders, network="nets.py:small")
    model = task.build(resolution=16)
    assert model[1].weight.shape == (2, 256)
    assert torch.equal(model[1].weight, task.build(resolution=16)[1].weight)
    with pytest.raises(SpecError, match=r"no function or class 'smal'.*small"):
        load(folders, network="nets.py:smal")
    with pytest.raises(SpecError, match=r"it needs depth.*A network is offered: in_channels, classes"):
        load(folders, network="nets.py:asks").build(resolution=16)
    with pytest.raises(SpecError, match="it made int"):
        load(folders, network="nets.py:nothing").build(resolution=16)
    with pytest.raises(SpecError, match=r"network \(fails\): .*nets.py, line \d+: KeyError: 'weights'"):
        load(folders, network="nets.py:fails").build(resolution=16)


def test_a_single_logit_is_that_of_the_positive_class(folders: Path) -> None:
    (folders.parent / "nets.py").write_text(NETWORK)
    task = load(folders, network="nets.py:one", positive="lying", balanced=False)
    assert task.chances({"y": np.array([[2.0]])}).tolist() == pytest.approx([1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))])
    model = task.build(resolution=16)
    images, truth = next(task.batches(0, 4, resolution=16))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(model(images)[:, 0], (truth == 0).float())
    assert task.loss(model(images), truth).item() == pytest.approx(expected.item(), rel=1e-5)
    with pytest.raises(SpecError, match="its output has 1 columns"):
        load(folders, network="nets.py:one").chances({"y": np.array([[2.0]])})


def test_augmentation_is_decided_by_the_seed(folders: Path) -> None:
    task = load(folders)
    first, again, other = (next(task.batches(seed, 4, resolution=16))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_colour_and_fixed_intensity(folders: Path) -> None:
    task = load(folders, colour="rgb", intensity="fixed", mean=[0.5], std=[0.25])
    case = task.cases("selection")[0]
    found = task.inputs(case, resolution=16)["image"]
    assert found.shape == (1, 3, 16, 16)
    assert found[0].mean() == pytest.approx((task.image_of(case).mean() - 0.5) / 0.25, abs=0.02)


# -- scores


@pytest.mark.parametrize("digits", [1, 6], ids=["ties", "no ties"])
@pytest.mark.parametrize("classes", [2, 4])
def test_scores_are_those_of_scikit_learn(classes: int, digits: int) -> None:
    from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score, roc_curve

    rng = np.random.default_rng(digits)
    for _ in range(5):
        truth = rng.integers(0, classes, 50)
        chances = np.round(rng.dirichlet(np.ones(classes), 50) + 0.3 * np.eye(classes)[truth], digits)
        answers = chances.argmax(axis=1)
        found, mean = (split_scores(truth, chances, positive, 0.8) for positive in (1, None))
        sides = truth == 1
        false_alarms, hits, _ = roc_curve(sides, chances[:, 1], drop_intermediate=False)
        assert found["auroc"] == pytest.approx(roc_auc_score(sides, chances[:, 1]))
        assert found["f1"] == pytest.approx(f1_score(sides, answers == 1))
        assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, answers))
        assert found["sensitivity"] == pytest.approx(hits[1 - false_alarms >= 0.8 - 1e-12].max())
        each = [roc_auc_score(truth == label, chances[:, label]) for label in range(classes)]
        assert mean["auroc"] == pytest.approx(np.mean(each))
        assert mean["f1"] == pytest.approx(f1_score(truth, answers, average="macro"))
        assert set(mean) == {"auroc", "f1", "balanced_accuracy"}


def test_sensitivity_at_a_specificity_by_hand() -> None:
    """Ten negatives at 0.0 to 0.9: at a specificity of 0.8 two may lie at or above the threshold, so it is above 0.7."""
    negatives, positives = np.arange(10) / 10, np.array([0.65, 0.75, 0.85, 0.95])
    raw = np.concatenate([negatives, positives])
    truth = np.array([0] * 10 + [1] * 4)
    found = split_scores(truth, np.stack([1 - raw, raw], axis=1), 1, 0.8)
    assert found["sensitivity"] == 0.75


def test_undefined_scores_are_none() -> None:
    chances = np.array([[0.9, 0.1], [0.8, 0.2]])
    found = split_scores(np.array([0, 0]), chances, 1, 0.9)
    assert found == {"auroc": None, "balanced_accuracy": 1.0, "f1": None, "sensitivity": None}


def test_auroc_of_three_classes_is_the_mean_over_those_that_occur() -> None:
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(1)
    truth = np.array([0, 1] * 20)
    chances = rng.dirichlet([1, 1, 1], 40)
    found = split_scores(truth, chances, None, 0.9)
    both = [roc_auc_score(truth == label, chances[:, label]) for label in (0, 1)]
    assert found["auroc"] == pytest.approx(np.mean(both))
    assert "sensitivity" not in found


# -- the threshold that the float baseline sets


def logits(chance: float) -> dict[str, Any]:
    return {"logits": np.array([[0.0, np.log(chance / (1 - chance))]], np.float32)}


def test_the_threshold_is_the_baselines(folders: Path) -> None:
    """Ten selection cases, five of each class: at a specificity of 0.8 one negative may be flagged."""
    task = load(folders, positive="upright", specificity=0.8)
    cases = sorted(task.cases("selection"), key=task.truth)
    before = task.evaluate(logits(0.9), cases[0])
    assert (before["sensitivity_fixed"], before["specificity_fixed"]) == (None, None)
    baseline = [0.1, 0.2, 0.3, 0.4, 0.6, 0.35, 0.5, 0.7, 0.8, 0.9]
    told = task.fix(cases, [logits(chance) for chance in baseline])
    assert told == {"threshold for upright": pytest.approx(0.45)}  # above 0.4, half-way to 0.5
    shifted = [
        task.evaluate(logits(min(0.99, chance + 0.12)), case) for chance, case in zip(baseline, cases, strict=True)
    ]
    assert [row["specificity_fixed"] for row in shifted] == [1.0, 1.0, 1.0, 0.0, 0.0, None, None, None, None, None]
    assert [row["sensitivity_fixed"] for row in shifted] == [None, None, None, None, None, 1.0, 1.0, 1.0, 1.0, 1.0]
    # each at its own best threshold: the shift, which costs specificity at the one in use, is not seen
    own = task.score(cases, [logits(min(0.99, chance + 0.12)) for chance in baseline])
    assert own["sensitivity"] == task.score(cases, [logits(chance) for chance in baseline])["sensitivity"] == 0.8


def test_without_a_positive_class_no_threshold_is_set(folders: Path) -> None:
    task = load(folders)
    assert "sensitivity_fixed" not in task.metrics
    cases = task.cases("selection")
    assert task.fix(cases, [logits(0.3)] * len(cases)) == {}
    assert not task.groups_known  # folders say nothing of patients


def test_what_an_auroc_is_made_of(folders: Path) -> None:
    from sklearn.metrics import roc_auc_score

    task = load(folders)
    cases = task.cases("selection")
    rng = np.random.default_rng(2)
    outputs = [logits(float(chance)) for chance in rng.uniform(0.1, 0.9, len(cases))]
    sides, scores = task.ranked(cases, outputs)["auroc"]
    assert task.score(cases, outputs)["auroc"] == pytest.approx(roc_auc_score(sides, scores))
