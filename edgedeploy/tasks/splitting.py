"""Train, calibration, selection and confirmation from one list of cases: seeded, stratified by class, whole groups each.

Drawn by scikit-learn. A split that the data set names itself is honoured; those it does not name are drawn from what is left
to train on. No group (patient, session, picture that is there twice) is ever on two sides.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgedeploy.errors import DataError
from edgedeploy.interfaces.task import SPLITS, Split

SPLIT_WORDS: Final[Mapping[str, Split]] = {
    **{split: split for split in SPLITS},
    "training": "train",
    "val": "selection",
    "valid": "selection",
    "validation": "selection",
    "test": "confirmation",
}
"""What a data set may call its splits."""

_DRAWN: Final[tuple[Split, ...]] = ("confirmation", "selection", "calibration")
_SCORED: Final[tuple[Split, ...]] = ("train", "selection", "confirmation")
"""The splits in which every class has to be."""


@dataclass(frozen=True)
class Item:
    """One case before it has a split: its class and its group, where there are some, and the split it came with."""

    name: str
    label: str | None = None
    group: str | None = None
    split: Split | None = None


def deal_items(items: Sequence[Item], shares: Mapping[Split, float], seed: int, where: str) -> dict[Split, list[int]]:
    """Places in ``items`` by split, ascending. ``shares`` are of all cases that have no split of their own, or are named
    for training; ``where`` names the data in errors.

    Raises ``DataError`` for a group on two sides, and for too few cases of a class, which it counts.
    """
    _check_groups(items, where)
    dealt: dict[Split, list[int]] = {split: [] for split in SPLITS}
    for place, item in enumerate(items):
        dealt[item.split or "train"].append(place)
    pool = dealt["train"]
    counts = {split: max(1, round(shares[split] * len(pool))) for split in _DRAWN if not dealt[split]}
    dealt |= draw_splits(items, pool, counts, seed, where)
    _check_dealt(items, dealt, where)
    return dealt


def draw_splits(
    items: Sequence[Item], pool: Sequence[int], counts: Mapping[Split, int], seed: int, where: str
) -> dict[Split, list[int]]:
    """About as many of the places in ``pool`` as ``counts`` says for each split, the rest for training; stratified where
    the items have classes. Raises ``DataError`` for a class that is too small for all of them."""
    _check_classes(items, pool, list(counts), where)
    dealt: dict[Split, list[int]] = {"train": sorted(pool)}
    for split, wanted in counts.items():
        rest = dealt["train"]
        drawn = _draw(items, rest, split, wanted, _draws(items, rest, wanted, seed, where))
        dealt[split] = sorted(drawn)
        dealt["train"] = sorted(set(rest) - set(drawn))
    return dealt


def joined_groups(groups: Sequence[str | None], pictures: Sequence[str]) -> list[str]:
    """A group for each case: cases of one group, or with one picture (its digest), share it, and so on transitively."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for group, picture in zip(groups, pictures, strict=True):
        if group is not None:
            first, second = sorted((root(f"group {group}"), root(f"picture {picture}")))
            parent[second] = first
    return [root(f"picture {picture}") for picture in pictures]


def _draw(
    items: Sequence[Item], pool: Sequence[int], split: Split, wanted: int, draws: Iterable[list[int]]
) -> list[int]:
    """Of several draws from ``pool`` the one that leaves every class to train on, brings every class to a scored split, and
    is nearest to ``wanted``; the first of equals."""

    def lacks(places: Iterable[int]) -> int:
        return len({items[place].label for place in pool} - {items[place].label for place in places})

    def badness(chosen: list[int]) -> tuple[int, int, int]:
        absent = lacks(chosen) if split in _SCORED else 0
        return lacks(set(pool) - set(chosen)), absent, abs(len(chosen) - wanted)

    return min(draws, key=badness)


def _draws(items: Sequence[Item], pool: Sequence[int], wanted: int, seed: int, where: str) -> Iterator[list[int]]:
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    labels = [items[place].label for place in pool]
    groups = [items[place].group or f"case {place}" for place in pool]
    grouped, stratified = len(set(groups)) < len(groups), len(set(labels)) > 1
    folds = min(max(2, round(len(pool) / wanted)), len(set(groups)))
    if folds < 2:
        raise DataError(
            where, f"{len(pool)} cases in {len(set(groups))} groups", "Each split needs a group: bring more"
        )
    kinds: dict[tuple[bool, bool], Any] = {
        (True, True): StratifiedGroupKFold,
        (True, False): StratifiedKFold,
        (False, True): GroupKFold,
        (False, False): KFold,
    }
    if stratified and not grouped:
        folds = min(folds, max(Counter(labels).values()))
    kind = kinds[stratified, grouped](folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class smaller than the folds: which of them has it is checked
        for _, chosen in kind.split(np.zeros(len(pool)), [str(label) for label in labels], groups):
            yield [pool[index] for index in chosen]


def _check_groups(items: Sequence[Item], where: str) -> None:
    seen: dict[str, Item] = {}
    for item in items:
        if item.group is None:
            continue
        other = seen.setdefault(item.group, item)
        if other.split != item.split:
            sides = " and ".join(f"{one.name} ({one.split or 'no split'})" for one in (other, item))
            raise DataError(
                f"splits of {where} that share no group",
                f"{sides} are of one group",
                "Give all cases of a group one split: what is trained on can confirm nothing",
            )


def _check_classes(items: Sequence[Item], pool: Sequence[int], missing: Sequence[Split], where: str) -> None:
    """Every class has a group for training and for each scored split that is drawn."""
    needed = 1 + sum(split in _SCORED for split in missing)
    cases = Counter(items[place].label for place in pool)
    units = Counter(label for label, _ in {(items[p].label, items[p].group or f"case {p}") for p in pool})
    for label, count in sorted(units.items(), key=lambda entry: (entry[1], str(entry[0]))):
        if count < needed:
            what = "the data" if label is None else f"class {label!r}"
            found = f"{what} has {cases[label]} cases in {count} group{'s' if count > 1 else ''}"
            splits = ", ".join(("train", *(split for split in missing if split in _SCORED)))
            raise DataError(f"splits of {where}", found, f"At least {needed} are needed, one for each of: {splits}")


def _check_dealt(items: Sequence[Item], dealt: Mapping[Split, Sequence[int]], where: str) -> None:
    classes = {item.label for item in items}
    for split in SPLITS:
        there = {items[place].label for place in dealt[split]}
        lacking = sorted(str(label) for label in classes - there)
        if not dealt[split] or (lacking and split in _SCORED):
            what = f"{len(dealt[split])} cases" + (f" and none of class {lacking[0]!r}" if dealt[split] else "")
            counts = ", ".join(f"{name} {len(places)}" for name, places in dealt.items())
            raise DataError(
                f"split {split!r} of {where}",
                f"it has {what} (of {len(items)}: {counts})",
                "Bring more cases, change the shares or split_seed, or name the splits yourself",
            )


def shares_of(options: object) -> dict[Split, float]:
    """The shares of the drawn splits from options that name them."""
    return {split: float(getattr(options, f"{split}_share")) for split in _DRAWN}


def check_shares(options: object) -> None:
    """Raises ``ValueError`` unless the shares of the drawn splits leave something to train on."""
    shares = shares_of(options)
    if any(not math.isfinite(share) or share <= 0 for share in shares.values()) or sum(shares.values()) >= 0.9:
        said = ", ".join(f"{split}_share = {share:g}" for split, share in shares.items())
        raise ValueError(f"shares must be above 0 and below 0.9 together, but got {said}")
