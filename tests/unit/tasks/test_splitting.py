"""Splits of the kinds without code: stratified, grouped, seeded, and as the data set names them."""

from __future__ import annotations

from collections import Counter

import pytest

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import SPLITS, Split
from edgedeploy.tasks.splitting import Item, deal_items, joined_groups

SHARES: dict[Split, float] = {"calibration": 0.1, "selection": 0.2, "confirmation": 0.2}


def deal(items: list[Item], seed: int = 0) -> dict[Split, list[int]]:
    return deal_items(items, SHARES, seed, "data")


def test_classes_keep_their_share_in_every_split() -> None:
    items = [Item(f"{i}", "rare" if i % 5 == 0 else "often") for i in range(100)]
    dealt = deal(items)
    assert {split: len(places) for split, places in dealt.items()} == {
        "train": 50,
        "calibration": 10,
        "selection": 20,
        "confirmation": 20,
    }
    assert sorted(place for places in dealt.values() for place in places) == list(range(100))
    for places in dealt.values():
        assert Counter(items[place].label for place in places)["rare"] == len(places) // 5


def test_a_seed_decides_the_splits() -> None:
    items = [Item(f"{i}", str(i % 2)) for i in range(60)]
    assert deal(items) == deal(items)
    assert deal(items) != deal(items, seed=1)


@pytest.mark.parametrize("stratified", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_on_two_sides(stratified: bool, seed: int) -> None:
    items = [Item(f"{i}", str(i // 7 % 3) if stratified else None, f"patient {i // 7}") for i in range(210)]
    dealt = deal(items, seed)
    groups = [{items[place].group for place in places} for places in dealt.values()]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 30
    assert 28 <= len(dealt["selection"]) <= 56
    if stratified:
        assert {items[place].label for place in dealt["confirmation"]} == {"0", "1", "2"}


def test_splits_of_the_data_set_stay_and_what_it_lacks_is_drawn_from_training() -> None:
    items = [Item(f"{i}", str(i % 2), split="confirmation" if i < 30 else "train") for i in range(90)]
    dealt = deal(items)
    assert dealt["confirmation"] == list(range(30))
    assert [len(dealt[split]) for split in SPLITS] == [42, 6, 12, 30]


def test_a_group_in_two_named_splits_is_refused() -> None:
    items = [Item("a.png", "x", "p1", "train"), Item("b.png", "x", "p1", "confirmation")]
    with pytest.raises(DataError, match=r"a.png \(train\) and b.png \(confirmation\) are of one group"):
        deal(items)


def test_too_few_cases_of_a_class_are_counted() -> None:
    items = [Item(f"{i}", "rare" if i < 2 else "often") for i in range(50)]
    with pytest.raises(DataError, match=r"class 'rare' has 2 cases in 2 groups.*At least 3 are needed"):
        deal(items)


def test_many_cases_of_one_patient_are_one_group() -> None:
    items = [Item(f"{i}", "rare" if i < 20 else "often", f"p{i // 20}" if i < 20 else f"q{i}") for i in range(90)]
    with pytest.raises(DataError, match="class 'rare' has 20 cases in 1 group"):
        deal(items)


def test_a_named_split_without_a_class_says_which() -> None:
    items = [Item(f"{i}", str(i % 2), split="train") for i in range(40)]
    items += [Item(f"t{i}", "0", split="confirmation") for i in range(5)]
    with pytest.raises(DataError, match=r"split 'confirmation' of data.*5 cases and none of class '1'"):
        deal(items)


def test_three_cases_of_a_class_are_just_enough() -> None:
    items = [Item(f"{i}", "rare" if i < 3 else "often") for i in range(40)]
    dealt = deal(items)
    for split in ("train", "selection", "confirmation"):
        assert "rare" in {items[place].label for place in dealt[split]}


def test_groups_and_equal_pictures_join() -> None:
    joined = joined_groups(["p1", "p1", "p2", None, None], ["a", "b", "b", "a", "c"])
    assert len(set(joined[:4])) == 1
    assert joined[4] != joined[0]
