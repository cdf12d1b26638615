"""Large models and volumes on small machines: the table of their bars, each beside its baseline.

Every row is a function in a module of `large_kit`, listed in its ROWS. Networks are trained and data is made here, with the
seed given; with EDGEDEPLOY_SHARED naming the folder of real images, rows that can use them do, and say so. With --check
exit 1 when a bar does not hold.
"""

from __future__ import annotations

from typing import Final

from benchmarks.shared.rows import Table

EXTRAS: Final = ("study",)

main = Table("large", __doc__, "large models and volumes", "large_kit").main
