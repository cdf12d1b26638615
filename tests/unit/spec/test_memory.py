"""`memory` of a board: a limit in words, the constraint and scenario that follow, one for all boards of a study."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedeploy.errors import SpecError
from edgedeploy.spec.study import StudySpec, parse_spec

STUDY = """\
[study]
name = "demo"
targets = ["onnxruntime"]

[task]
kind = "synthetic-ultrasound"

[[boards]]
name = "here"
kind = "local"
memory = "512 MB"

[space]
width = [1.0, 0.5]

[[objectives]]
metric = "latency_ratio"

[budget]
trials = 10
"""


def spec_of(text: str) -> StudySpec:
    return parse_spec(text, Path("study.toml"))[0]


def test_a_limit_is_a_constraint_and_brings_its_curves() -> None:
    spec = spec_of(STUDY)
    assert spec.memory_limit_bytes == 512_000_000
    assert [(item.metric, item.at_most) for item in spec.constraints] == [("peak_memory_bytes", "512 MB")]
    assert spec.measure.scenarios == ("resources",)
    assert {"resources_memory_area_byte_s", "resources_cpu_area_core_s"} <= {*spec.metric_table({})}


def test_without_one_nothing_is_added() -> None:
    spec = spec_of(STUDY.replace('memory = "512 MB"\n', ""))
    assert (spec.memory_limit_bytes, spec.constraints, spec.measure.scenarios) == (None, (), ())


def test_what_is_there_already_stays_as_it_is() -> None:
    own = '[[constraints]]\nmetric = "peak_memory_bytes"\nat_most = "512 MB"\nmargin = "10 MB"\n\n[budget]'
    measured = "\n[measure]\nscenarios = ['resources', 'offline']\n[measure.resources]\nrepeats = 2\n"
    spec = spec_of(STUDY.replace("[budget]", own) + measured)
    assert [item.margin for item in spec.constraints] == ["10 MB"]
    assert spec.measure.scenarios == ("resources", "offline") and spec.measure.resources.repeats == 2


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ('"512"', "expected a quantity in bytes, such as '8 MB'"),
        ('"20 ms"', "expected a quantity in bytes"),
        ("512", "string"),
        ('"2 MB"', "expected 16 MB or more, but got '2 MB'"),
        ('"1e20 GB"', "expected what a board can have, but got '1e20 GB'"),
    ],
)
def test_what_is_no_memory_is_refused(memory: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        spec_of(STUDY.replace('"512 MB"', memory))


def test_the_boards_of_a_study_have_one() -> None:
    other = '[[boards]]\nname = "there"\nkind = "emulated"\n{}\n[space]'
    with pytest.raises(SpecError, match="one `memory`, but got here 512 MB, there none"):
        spec_of(STUDY.replace("[space]", other.format("")))
    alike = other.format('memory = "0.512 GB"\n')
    assert spec_of(STUDY.replace("[space]", alike)).memory_limit_bytes == 512_000_000


def test_an_emulated_processor_has_none() -> None:
    with pytest.raises(SpecError, match="its emulator's memory"):
        spec_of(STUDY.replace('"local"', '"emulated:arm64"'))
