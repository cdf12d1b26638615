"""The bars of the shipped studies, read from a finished study's folder. Every figure comes from stored evidence."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgedeploy.evidence.front import FrontReport
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.account import summarise
from edgedeploy.study.front import read_front
from edgedeploy.study.store import Store


@dataclass(frozen=True)
class Bar:
    """One requirement: what is asked, what was found, whether that is enough."""

    asked: str
    found: str
    holds: bool


def common_bars(store: Store, front: FrontReport, variants: int) -> list[Bar]:
    measured = store.measurements()
    targets = {item.variant.target for item in measured}
    account = summarise(store.times())
    baselines = len(front.baselines)
    return [
        Bar(f"at least {variants} measured variants", str(len(measured)), len(measured) >= variants),
        Bar("2 targets", ", ".join(sorted(targets)), len(targets) >= 2),
        Bar("baseline of every target measured", f"{baselines} of {len(targets)}", baselines == len(targets)),
        Bar(
            "overhead below 10 % of wall time",
            f"{account.overhead:.1%} of {account.wall_s:.0f} s",
            account.overhead < 0.10,
        ),
    ]


def demo_bars(store: Store, front: FrontReport) -> list[Bar]:
    reference = store.measurement(front.reference or "")
    dice = reference.metrics["dice_mean"] if reference else float("nan")
    return [
        *common_bars(store, front, 20),
        Bar("a front of at least 3 points", str(len(front.members)), len(front.members) >= 3),
        Bar("float Dice about 0.75 to 0.9", f"{dice:.3f}", 0.75 <= dice <= 0.9),
    ]


def usgra_bars(store: Store, front: FrontReport) -> list[Bar]:
    confirmed = {item.digest: item for item in store.confirmations()}
    reference = confirmed.get(front.reference or "")
    both = class_mean(reference) if reference else float("nan")
    trained_s = float(store.baseline_training().get("wall_s", float("nan")))
    fast = [item for item in front_measurements(store, front) if _fast_and_sound(item, store, front)]
    best = min((item.metrics["cpu_time_ratio"] for item in fast), default=float("nan"))
    return [
        *common_bars(store, front, 25),
        Bar("float baseline: mean Dice over both classes >= 0.65 on the 40", f"{both:.3f}", both >= 0.65),
        Bar("trained in at most 20 minutes", f"{trained_s / 60:.1f} min", trained_s <= 1200),
        Bar(
            "on the front: <= 0.30x CPU time of ONNX Runtime float32, within 0.01 Dice",
            f"{len(fast)} variants on the selection images, the fastest {best:.2f}x; {_on_confirmation(store, front)}",
            bool(fast),
        ),
    ]


def class_mean(item: Measurement) -> float:
    """Mean of the two classes' mean Dice over the cases."""
    return (item.metrics["dice_nerve"] + item.metrics["dice_vessel"]) / 2


def front_measurements(store: Store, front: FrontReport) -> list[Measurement]:
    members = {row.digest for row in front.members}
    return [item for item in store.measurements() if item.digest in members]


def _fast_and_sound(item: Measurement, store: Store, front: FrontReport) -> bool:
    reference = store.measurement(front.reference or "")
    if reference is None:
        return False
    loss = reference.metrics["dice_mean"] - item.metrics["dice_mean"]
    return item.metrics["cpu_time_ratio"] <= 0.30 and loss <= 0.01


COLUMNS = (
    "variant",
    "Dice nerve",
    "Dice vessel",
    "worst case",
    "Dice, selection",
    "p50",
    "p99",
    "latency vs baseline",
    "CPU time vs baseline",
    "size",
)


def markdown_table(store: Store, front: FrontReport) -> str:
    """Baselines, front, and what else was confirmed: Dice of the confirmation cases (per class, worst case), selection Dice,
    and costs."""
    measured = {item.digest: item for item in store.measurements()}
    confirmed = {item.digest: item for item in store.confirmations()}
    baselines = [row.digest for row in front.baselines]
    members = [row.digest for row in front.members]
    others = sorted(confirmed, key=lambda digest: -class_mean(confirmed[digest]))
    chosen = dict.fromkeys([*baselines, *members, *others])
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    for digest in chosen:
        item = measured[digest]
        marks = " (baseline)" * (digest in baselines) + " (front)" * (digest in members)
        marks += " **pick**" * bool(front.pick and front.pick.digest == digest)
        cells = [item.variant.label + marks, *_confirmed_cells(confirmed.get(digest)), *_cost_cells(item)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _confirmed_cells(item: Measurement | None) -> list[str]:
    if item is None:
        return ["-"] * 3
    cases = [value["dice_mean"] for value in item.cases.values() if value["dice_mean"] is not None]
    return [f"{value:.3f}" for value in (item.metrics["dice_nerve"], item.metrics["dice_vessel"], min(cases))]


def _cost_cells(item: Measurement) -> list[str]:
    metrics = item.metrics
    p99 = metrics.get("latency_p99_ns")
    return [
        f"{metrics['dice_mean']:.3f}",
        f"{metrics['latency_p50_ns'] / 1e6:.1f} ms",
        "-" if p99 is None else f"{p99 / 1e6:.1f} ms",
        f"{metrics['latency_ratio']:.2f}",
        f"{metrics['cpu_time_ratio']:.2f}",
        f"{metrics['size_bytes'] / 1e6:.2f} MB",
    ]


def _on_confirmation(store: Store, front: FrontReport) -> str:
    """The least CPU time of what stays within 0.01 of the float baseline's class mean on the confirmation images."""
    measured = {item.digest: item for item in store.measurements()}
    confirmed = {item.digest: item for item in store.confirmations()}
    reference = confirmed.get(front.reference or "")
    if reference is None:
        return "nothing is confirmed"
    close = [measured[d] for d, item in confirmed.items() if class_mean(item) >= class_mean(reference) - 0.01]
    least = min(close, key=lambda item: item.metrics["cpu_time_ratio"])
    return f"on the 40 images: {least.variant.label} at {least.metrics['cpu_time_ratio']:.3f}x"


BENCHES: dict[str, Callable[[Store, FrontReport], list[Bar]]] = {"demo": demo_bars, "usgra-seg": usgra_bars}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    parser.add_argument("--table", action="store_true", help="print the baselines and the front as Markdown instead")
    given = parser.parse_args()
    folder = given.folder or Path("studies") / given.name
    store, front = Store(folder), read_front(folder)
    if given.table:
        sys.stdout.write(markdown_table(store, front))
        return
    bars = BENCHES[given.name](store, front)
    for bar in bars:
        sys.stdout.write(f"{'ok  ' if bar.holds else 'FAIL'}  {bar.asked}: {bar.found}\n")
    if given.check and not all(bar.holds for bar in bars):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
