"""What a reference answers is computed once, by one session, and kept: until it, a case or the file is another one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_up
import numpy as np
import pytest
from small_onnx import convolutional, feeds
from small_task import SmallTask, bench

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import Array
from edgedeploy.reference import export as module
from edgedeploy.reference.export import Reference, describe, kept_outputs, run_reference
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.inputs import Rivals
from edgedeploy.study.modeller import GOLDEN_CASES
from edgedeploy.study.store import Store

Opened = list[bool]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """One entry per session of a reference: whether it runs the file as it is written."""
    real, seen = module.open_onnx, Opened()

    def watched(path: Path, threads: int, *, as_written: bool = False) -> Any:
        seen.append(as_written)
        return real(path, threads, as_written=as_written)

    monkeypatch.setattr(module, "open_onnx", watched)
    return seen


@pytest.fixture
def reference(tmp_path: Path) -> Reference:
    return describe(convolutional(tmp_path / "reference.onnx"))


@pytest.fixture
def cases(reference: Reference) -> list[dict[str, Array]]:
    return list(feeds(reference.inputs[0], count=4))


def same(found: Sequence[dict[str, Array]], wanted: Sequence[dict[str, Array]]) -> bool:
    return len(found) == len(wanted) and all(
        np.array_equal(one["out"], other["out"]) and one["out"].dtype == other["out"].dtype
        for one, other in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("quantized", [False, True])
def test_one_session_answers_all_cases_once(
    quantized: bool, reference: Reference, cases: list[dict[str, Array]], opened: Opened, tmp_path: Path
) -> None:
    asked = replace(reference, quantized=quantized)
    wanted = [run_reference(asked, feed) for feed in cases]
    opened.clear()
    for _ in range(3):
        assert same(kept_outputs(asked, cases, tmp_path / "golden.npz"), wanted)
    assert opened == [quantized]


def test_another_case_is_computed_anew(
    reference: Reference, cases: list[dict[str, Array]], opened: Opened, tmp_path: Path
) -> None:
    path = tmp_path / "golden.npz"
    kept_outputs(reference, cases, path)
    changed = [{"image": feed["image"] + np.float32(1e-3)} for feed in cases]
    assert same(kept_outputs(reference, changed, path), [run_reference(reference, feed) for feed in changed])
    opened.clear()
    kept_outputs(reference, cases[:3], path)
    kept_outputs(reference, list(reversed(cases[:3])), path)
    assert len(opened) == 2, "fewer cases, and another order, are other cases"


def test_another_reference_is_computed_anew(
    reference: Reference, cases: list[dict[str, Array]], opened: Opened, tmp_path: Path
) -> None:
    path = tmp_path / "golden.npz"
    before = kept_outputs(reference, cases, path)
    reference.path.write_bytes(convolutional(tmp_path / "other.onnx", opset=14).read_bytes())
    other = replace(reference, sha256=sha256_file(reference.path))
    opened.clear()
    assert len(kept_outputs(other, cases, path)) == len(before)
    assert len(opened) == 1


def forged(path: Path, note: Path, **arrays: Any) -> None:
    """Other content, by somebody who can write here and knows how the hash is made."""
    np.savez(path, **arrays)
    kept = json.loads(note.read_text(encoding="utf-8"))
    note.write_text(json.dumps({**kept, "sha256": sha256_file(path)}), encoding="utf-8")


DAMAGES = ["cut", "empty", "gone", "note", "shape of note", "pickled", "folder", "note folder", "row", "shape", "type"]


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_told_and_computed_anew(
    what: str, reference: Reference, cases: list[dict[str, Array]], tmp_path: Path
) -> None:
    path, note = tmp_path / "golden.npz", tmp_path / "golden.json"
    wanted, heard = kept_outputs(reference, cases, path), list[str]()
    whole = path.read_bytes()
    if what == "cut":
        path.write_bytes(whole[:-20])
    elif what == "empty":
        path.write_bytes(b"")
    elif what == "gone":
        path.unlink()
    elif what == "note":
        note.write_text('{"sha256": "', encoding="utf-8")
    elif what == "shape of note":
        note.write_text("[]", encoding="utf-8")
    elif what == "folder":
        path.unlink()
        path.mkdir()
    elif what == "note folder":
        note.unlink()
        note.mkdir()
    else:
        rows = np.stack([row["out"] for row in wanted])
        other = {"row": rows[1:], "shape": rows[..., :1], "type": rows.astype(np.float64)}
        forged(path, note, out0=other.get(what, np.array([{"run": "me"}], dtype=object)))
    assert same(kept_outputs(reference, cases, path, heard.append), wanted)
    assert [line.partition(" ")[0] for line in heard] == ["golden.npz"]
    assert path.read_bytes() == whole
    assert same(kept_outputs(reference, cases, path, heard.append), wanted)
    assert len(heard) == 1


def test_a_reference_that_is_not_what_was_exported_is_no_truth(
    reference: Reference, cases: list[dict[str, Array]], tmp_path: Path
) -> None:
    convolutional(reference.path, opset=14)
    with pytest.raises(DataError, match="not the one that was exported"):
        kept_outputs(reference, cases, tmp_path / "golden.npz")
    assert not (tmp_path / "golden.npz").exists()


def test_every_attempt_of_every_artifact_takes_the_same_golden_outputs(tmp_path: Path, opened: Opened) -> None:
    """Of a study that goes on in another process too. One model, four variants of it, two runs."""
    store, task = Store(tmp_path / "study"), SmallTask(tmp_path)
    variants = [made_up.variant(target, precision) for target in ("a", "b") for precision in ("float32", "int8")]
    first = bench(store, task).golden_outputs(variants[0])
    assert len(first) == GOLDEN_CASES
    for variant in variants:
        again = bench(store, task)
        assert same(again.golden_outputs(variant), first)
        assert same(again.golden_outputs(variant), first)
    assert opened == [False]
    assert not same(bench(store, SmallTask(tmp_path, brightness=0.5)).golden_outputs(variants[0]), first)


def test_the_choice_of_weight_bits_is_made_by_kept_outputs_too(tmp_path: Path, opened: Opened) -> None:
    store, task = Store(tmp_path / "study"), SmallTask(tmp_path)
    rows = tuple(task.inputs(case) for case in task.cases("train"))
    rivals = Rivals({}, rows, "training cases", "held-out-1")
    static, dynamic = made_up.variant(precision="int8"), made_up.variant(precision="int8-dynamic")
    first = bench(store, task).rivals_reference(static, rivals)
    assert same(bench(store, task).rivals_reference(dynamic, rivals), first)
    bench(store, task).golden_outputs(static)
    assert len(opened) == 2, "one for the golden cases, one for those"
