"""What a front takes from a measurement's raw series: made once, kept as plain data, and read again instead of them.

The series are most of a measurement's file. Numbers survive JSON to the last bit, so a front that is made of what was kept
has the same bytes as one that is made of the series.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

import numpy as np

from edgedeploy.evidence.bootstrap import Estimate, Resampler
from edgedeploy.evidence.interleaved import baseline_beside
from edgedeploy.evidence.samples import Fixed, Median, Minimum, Percentile, Ratio, Sample, Share, Slope
from edgedeploy.evidence.verdict import Verdict, latency_verdict
from edgedeploy.records.measurement import Measurement
from edgedeploy.records.metric_table import BOARD_METRICS

_SAMPLES: Final[Mapping[str, Any]] = {
    kind.__name__: kind for kind in (Percentile, Median, Minimum, Ratio, Share, Slope, Fixed)
}


@dataclass(frozen=True)
class Derived:
    """``estimates`` of every metric, whether it is faster than the baseline ``beside`` it and what that gave, and the
    ``samples`` of the metrics that variants are compared by."""

    estimates: Mapping[str, Estimate]
    verdict: Verdict | None
    beside: Mapping[str, float]
    samples: Mapping[str, Sample] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        return {
            "estimates": {name: [item.value, item.low, item.high] for name, item in self.estimates.items()},
            "verdict": self.verdict.as_json() if self.verdict else None,
            "beside": dict(self.beside),
            "samples": {name: _sample_as_json(item) for name, item in self.samples.items()},
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Derived:
        """Raises ``KeyError``, ``TypeError`` or ``ValueError`` for data that :meth:`as_json` cannot have written."""
        return cls(
            {name: Estimate(*item) for name, item in data["estimates"].items()},
            Verdict(**data["verdict"]) if data["verdict"] else None,
            dict(data["beside"]),
            {name: _sample_from_json(item) for name, item in data["samples"].items()},
        )


def derive(item: Measurement, resampler: Resampler, compared: Iterable[str] = ()) -> Derived:
    """What a front needs of ``item``; ``compared`` are the metrics whose samples are kept.

    Raises ``MeasurementError`` for values that no clock can give.
    """
    samples = {}
    for name in compared:
        row = BOARD_METRICS.get(name)
        if row is not None and row.source.has_spread and name in item.metrics:
            found = resampler.sample(item, row)
            if not isinstance(found, str):
                samples[name] = found
    estimates = resampler.estimates(item, sorted(item.metrics))
    return Derived(estimates, _verdict(item, resampler), baseline_beside(item), samples)


def without_series(item: Measurement) -> Measurement:
    """The measurement without its raw series: numbers, cases and facts are left."""
    candidate = replace(item.candidate, blocks_ns=(), cpu_ns=(), cold_starts_ns=())
    return replace(item, candidate=candidate, baseline=None, layers={}, scenarios={}, environment={})


def _verdict(item: Measurement, resampler: Resampler) -> Verdict | None:
    if item.baseline is None or item.digest == item.baseline_variant:
        return None
    return latency_verdict(item.candidate, item.baseline, seed=resampler.seed, resamples=resampler.resamples)


def _sample_as_json(sample: Sample) -> dict[str, Any]:
    values = {part.name: getattr(sample, part.name) for part in fields(sample)}
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in values.items()}
    return {"kind": type(sample).__name__, **plain}


def _sample_from_json(data: Mapping[str, Any]) -> Sample:
    arrays = {name: np.asarray(data[name]) for name in ("values", "pairs") if name in data}
    sample: Sample = _SAMPLES[data["kind"]](**{key: item for key, item in data.items() if key != "kind"} | arrays)
    return sample
