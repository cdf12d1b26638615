"""A whole study on a board whose times no clock can give: nothing of them is evidence, and nothing stands on a front."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from board_kit import squares_study
from spoiled_boards import spoiling_python

import edgedeploy
from edgedeploy.errors import BoardError, EdgeDeployError
from edgedeploy.study.front import read_front, read_measurement
from edgedeploy.study.store import Store

pytestmark = pytest.mark.beside

LOCAL = 'name = "here"\nkind = "local"'


@pytest.mark.fault(17)
@pytest.mark.parametrize("value", ["0", "NaN"])
def test_a_time_that_no_clock_gives_is_no_evidence(value: str, tmp_path: Path) -> None:
    """The candidate's first query alone is wrong, in every run: a median would not show it."""
    change = (
        "def change(data):\n    value = json.loads(data)\n    blocks = value['candidate']['blocks_ns']\n"
        "    if blocks:\n        blocks[0][0] = 'HERE'\n"
        f"    return json.dumps(value).replace('\"HERE\"', {value!r}).encode()"
    )
    python = spoiling_python(tmp_path, "result.json", change)
    path = squares_study(
        tmp_path,
        (LOCAL, f'{LOCAL}\npython = "{python}"\nroot = "{tmp_path / "root"}"'),
        ('targets = ["onnxruntime", "openvino"]', 'targets = ["onnxruntime"]'),
        ("trials = 6", "trials = 2"),
        ("count = 32", "count = 8"),
        ("cold_starts = 1", "cold_starts = 0"),
    )
    out = tmp_path / "out"
    with contextlib.suppress(BoardError):  # a board whose answers are no answers may end the study
        edgedeploy.load_study(path).run(edgedeploy.RunOptions(out=out, boards=["here"], confirm=False))
    store, front = Store(out), read_front(out)
    assert store.measurements() == () and front.rows == () and front.pick is None
    told = [failure.message for failure in (*store.failures(), *front.passing)] + [str(front.ended)]
    assert any("latency" in text or "blocks_ns" in text or "NaN" in text for text in told), told
    with pytest.raises(EdgeDeployError, match="0 measured"):
        read_measurement(out, "")
