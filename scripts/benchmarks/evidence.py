"""Whether the evidence holds: how often the rules of the pick are wrong, and what else a handover claims.

Every row is a function in a module of `evidence_kit`, listed in its ROWS. Simulations run the product's own code on made-up
differences, with the seed given. With --check exit 1 when a bar does not hold.
"""

from __future__ import annotations

from typing import Final

from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Table

EXTRAS: Final = ("study",)

main = Table("evidence", __doc__, "evidence", "evidence_kit", asked=Asked).main
