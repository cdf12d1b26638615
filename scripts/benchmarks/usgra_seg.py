"""The bars of a finished usgra-seg study (real ultrasound images), read from its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.shared.bars import Bar, class_mean, common_bars, judge
from edgedeploy.evidence.front import Front
from edgedeploy.records.measurement import Measurement
from edgedeploy.study.store import Store

EXTRAS: Final = ("study",)


def bars(store: Store, front: Front) -> list[Bar]:
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


def front_measurements(store: Store, front: Front) -> list[Measurement]:
    members = {row.digest for row in front.members}
    return [item for item in store.measurements() if item.digest in members]


def _fast_and_sound(item: Measurement, store: Store, front: Front) -> bool:
    reference = store.measurement(front.reference or "")
    if reference is None:
        return False
    loss = reference.metrics["dice_mean"] - item.metrics["dice_mean"]
    return item.metrics["cpu_time_ratio"] <= 0.30 and loss <= 0.01


def _on_confirmation(store: Store, front: Front) -> str:
    """The least CPU time of what stays within 0.01 of the float baseline's class mean on the confirmation images."""
    measured = {item.digest: item for item in store.measurements()}
    confirmed = {item.digest: item for item in store.confirmations()}
    reference = confirmed.get(front.reference or "")
    if reference is None:
        return "nothing is confirmed"
    close = [measured[d] for d, item in confirmed.items() if class_mean(item) >= class_mean(reference) - 0.01]
    least = min(close, key=lambda item: item.metrics["cpu_time_ratio"])
    return f"on the 40 images: {least.variant.label} at {least.metrics['cpu_time_ratio']:.3f}x"


def main(argv: Sequence[str]) -> int:
    return judge("usgra-seg", __doc__, bars, argv)
