"""What the bars of the shipped studies have in common. Every figure comes from the stored evidence of a finished study."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import parser_of
from edgedeploy.errors import EdgeDeployError
from edgedeploy.evidence.front import Front
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


def common_bars(store: Store, front: Front, variants: int) -> list[Bar]:
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


def class_mean(item: Measurement) -> float:
    """Mean of the two classes' mean Dice over the cases."""
    return (item.metrics["dice_nerve"] + item.metrics["dice_vessel"]) / 2


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


def markdown_table(store: Store, front: Front) -> str:
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


def judge(name: str, text: str | None, bars: Callable[[Store, Front], list[Bar]], argv: Sequence[str]) -> int:
    """Print the bars of the study's folder, or its table; 1 when --check was given and a bar does not hold."""
    parser = parser_of(name, text)
    place = Path("studies") / name
    parser.add_argument("folder", nargs="?", type=Path, default=place, help=f"the study's folder ({place})")
    parser.add_argument("--check", action="store_true", help="exit 1 when a bar does not hold")
    parser.add_argument("--table", action="store_true", help="print the baselines and the front as Markdown instead")
    given = parser.parse_args(argv)
    store = Store(given.folder)
    try:
        front = read_front(given.folder)
    except EdgeDeployError as exc:
        parser.exit(exc.exit_code, f"{exc}\n")
    if given.table:
        sys.stdout.write(markdown_table(store, front))
        return 0
    found = bars(store, front)
    for bar in found:
        sys.stdout.write(f"{'ok  ' if bar.holds else 'FAIL'}  {bar.asked}: {bar.found}\n")
    return int(given.check and not all(bar.holds for bar in found))
