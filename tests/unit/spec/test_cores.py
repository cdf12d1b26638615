"""`cores` of a board: some of its machine, for studies beside each other."""

from __future__ import annotations

from pathlib import Path

import pytest
from spec_kit import HEAD

from edgedeploy.errors import SpecError
from edgedeploy.spec.study import StudySpec, parse_spec

CORES = "cores = [2, 3]"
STUDY = HEAD.replace('kind = "local"', f'kind = "local"\n{CORES}')


def spec_of(text: str) -> StudySpec:
    return parse_spec(text, Path("study.toml"))[0]


def test_cores_are_numbers_of_the_board() -> None:
    assert spec_of(STUDY).board("here").cores == (2, 3)
    assert spec_of(HEAD).board("here").cores == ()


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("cores = [2, 2]", "`cores` names one twice"),
        ("cores = [-1]", "-1"),
        ("cores = [0.5]", "0.5"),
        ('cores = "0-3"', "cores"),
        ('cores = [2]\ngovernor = "performance"', "whose `governor` or `nvpmodel` it may not change"),
        ('cores = [2]\nnvpmodel = "MAXN"', "whose `governor` or `nvpmodel` it may not change"),
    ],
)
def test_what_cannot_be_is_refused_by_name(keys: str, found: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec_of(STUDY.replace(CORES, keys))
    assert found in str(caught.value) and "boards number 1" in str(caught.value), str(caught.value)


def test_an_emulated_processor_has_its_own() -> None:
    with pytest.raises(SpecError, match="cores of its own"):
        spec_of(STUDY.replace('kind = "local"', 'kind = "emulated:arm64"'))
