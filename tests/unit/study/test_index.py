"""The index beside the evidence saves time and changes nothing: what it says counts while the evidence is the same."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import made_up
import made_up_report
import made_up_study
import numpy as np
import pytest

from edgedeploy.evidence.bootstrap import Resampler
from edgedeploy.evidence.derived import Derived, derive, without_series
from edgedeploy.evidence.samples import Fixed, Median, Minimum, Percentile, Ratio, Share, Slope
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.best import Best
from edgedeploy.study.front import evidence_of, front_of, open_index, read_front, stored_spec, with_failures
from edgedeploy.study.index import NAME
from edgedeploy.study.known import Known
from edgedeploy.study.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    items = made_up_report.measurements()
    store = made_up_study.new_store(tmp_path / "study", [items[0].variant])
    for item in items:
        store.keep(item)
    return store


def text(store: Store) -> str:
    return json.dumps(read_front(store.root).as_json())


def from_evidence(store: Store) -> str:
    """As :func:`text`, of a folder that nobody keeps an index of."""
    front = front_of(store.study(), stored_spec(store), evidence_of(store))
    return json.dumps(with_failures(front, store).as_json())


def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The digests of measurements whose files are read from now on."""
    found: list[str] = []
    read = Store.measurement

    def noted(self: Store, digest: str) -> Measurement | None:
        found.append(digest)
        return read(self, digest)

    monkeypatch.setattr(Store, "measurement", noted)
    return found


def test_a_front_of_the_index_has_the_bytes_of_one_of_the_evidence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = from_evidence(store)
    assert text(store) == wanted and (store.root / NAME).is_file()
    read = reads(monkeypatch)
    assert text(store) == wanted
    assert read == [], "the index was there"


@pytest.mark.parametrize("metric", ["latency_p50_ns", "latency_p90_ns", "cpu_time_ns", "cold_start_ns", "size_bytes"])
def test_every_kind_of_objective_is_compared_by_the_index_as_by_the_series(
    store: Store, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = store.root / "study.toml"
    path.write_text(path.read_text().replace("latency_ratio", metric))
    wanted = from_evidence(store)
    assert text(store) == wanted
    read = reads(monkeypatch)
    assert text(store) == wanted and read == []


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for place in range(500, len(data), 700):
        data[place] ^= 1
    path.write_bytes(data)


def _foreign(path: Path) -> None:
    head, *lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([head.replace(b'"seed"', b'"sped"'), *lines]))


def _swapped(path: Path) -> None:
    """Each line is whole, but stands for the next line's variant."""
    head, *lines = path.read_bytes().splitlines(keepends=True)
    found = [json.loads(line[16:]) for line in lines]
    names = [item["digest"] for item in found]
    texts = [
        json.dumps({**item, "digest": name}).encode() + b"\n"
        for item, name in zip(found, names[1:] + names[:1], strict=True)
    ]
    path.write_bytes(b"".join([head, *(hashlib.sha256(text).hexdigest()[:16].encode() + text for text in texts)]))


@pytest.mark.parametrize("damage", [_cut, _flip, _foreign, _swapped, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_foreign_or_removed_index_changes_nothing_and_is_made_again(
    store: Store, damage: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = text(store)
    damage(store.root / NAME)
    assert text(store) == wanted
    read = reads(monkeypatch)
    assert text(store) == wanted and read == []


def test_a_link_in_its_place_is_neither_read_nor_written_through(store: Store, tmp_path: Path) -> None:
    wanted, victim = text(store), tmp_path / "victim"
    (store.root / NAME).rename(victim)
    before = victim.read_bytes()
    (store.root / NAME).symlink_to(victim)
    assert text(store) == wanted
    assert victim.read_bytes() == before and not (store.root / NAME).is_symlink()


def test_a_measurement_that_was_edited_by_hand_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    text(store)
    item = made_up_report.measurements()[1]
    path = store.root / "measurements" / f"{item.digest}.json"
    before = path.stat()
    old = path.read_text()
    new = old.replace('"created_utc": "2026', '"created_utc": "2027')
    assert len(new) == len(old) and new != old
    path.write_text(new)
    os.utime(
        path, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # the same size and time: only the inode's own time tells
    read = reads(monkeypatch)
    text(store)
    assert read == [item.digest]
    store.keep(replace(item, metrics={**item.metrics, "dice_mean": 0.123}))
    assert "0.123" in text(store) and text(store) == from_evidence(store)


def test_a_removed_measurement_is_gone_and_a_new_one_is_there(store: Store) -> None:
    text(store)
    gone, *_ = made_up_report.measurements()[1:]
    (store.root / "measurements" / f"{gone.digest}.json").unlink()
    new = made_up.measurement(made_up.variant(width=0.35), dice=0.7, latency_ms=1.0, seed=77)
    store.keep(new)
    digests = {row.digest for row in read_front(store.root).rows}
    assert gone.digest not in digests and new.digest in digests
    assert text(store) == from_evidence(store)


def test_nothing_is_written_where_another_process_owns_the_folder(store: Store) -> None:
    with store.own():
        assert text(store) == from_evidence(store)
        assert not (store.root / NAME).exists()


def test_a_look_leaves_no_lock(store: Store) -> None:
    with store.own():
        pass
    text(store)
    with (store.root / ".lock").open("r+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_where_it_cannot_be_written_the_front_is_the_same(store: Store) -> None:
    (store.root / NAME).mkdir()  # whoever runs this, root included, cannot write a file there
    assert text(store) == from_evidence(store)
    assert [path.name for path in store.root.iterdir() if path.name.startswith(".part")] == []


def test_a_search_keeps_the_index_as_it_goes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Known(store, open_index(store))
    known.measurements()
    assert not (store.root / NAME).exists(), "a search that is refused has written nothing"
    known.keep_index(open_index)
    new = made_up.measurement(made_up.variant(width=0.35), dice=0.7, latency_ms=1.0, seed=77)
    store.keep(new)
    assert known.measurement(new.digest) == without_series(new)
    wanted = from_evidence(store)
    read = reads(monkeypatch)
    assert text(store) == wanted and read == []
    again = Known(store, open_index(store))
    assert again.measurements() == known.measurements() and read == []
    best = Best(store.study(), stored_spec(store), again.measurements())
    assert best.text() == Best(store.study(), stored_spec(store), evidence_of(store)).text()


def test_a_search_of_a_new_folder_begins_its_index(tmp_path: Path) -> None:
    store = Store(tmp_path / "study")
    known = Known(store, open_index(store))
    items = made_up_report.measurements()
    made_up_study.new_store(store.root, [items[0].variant])
    known.keep_index(open_index)
    store.keep(items[0])
    known.measurement(items[0].digest)
    assert items[0].digest in (store.root / NAME).read_text()


def test_what_is_derived_survives_json_to_the_last_bit() -> None:
    values = np.random.default_rng(0).normal(1, 0.1, (20, 2))
    samples = {
        "percentile": Percentile(3.0, ((1, 2, 3), (4, 5)), 50.0),
        "median": Median(values[:, 0]),
        "minimum": Minimum(values[:, 1]),
        "ratio": Ratio(values, 0.1),
        "share": Share(np.array([[0, 10], [2, 10]]), 100.0),
        "slope": Slope(0.1 + 0.2, 1 / 3, 7.0),
        "fixed": Fixed(2.0),
    }
    item = made_up_report.measurements()[1]
    kept = replace(derive(item, Resampler(0, 100)), samples=samples)
    again = Derived.from_json(json.loads(json.dumps(kept.as_json())))
    assert replace(again, samples={}) == replace(kept, samples={})
    for name, sample in samples.items():
        read = again.samples[name]
        assert type(read) is type(sample) and read.value == sample.value
    assert json.dumps(again.as_json()) == json.dumps(kept.as_json())
