"""What becomes of a bundle that was changed, and how long it takes to know that one was not."""

from __future__ import annotations

import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.evidence_kit.asked import Asked
from benchmarks.shared.rows import Row

sys.path.append(str(ROOT / "tests"))  # signed_kit and bundle_mutations

MUTATIONS: Final = 203
VERIFY_BAR_S: Final = 0.1
VERIFY_BYTES: Final = 10_000_000
VERIFY_REPEATS: Final = 9
FUZZED: Final = 5000


def mutations_refused(asked: Asked) -> Row:
    """As files: flips, swaps, names, links of both kinds, empty folders, keys, dates, releases; each for its reason."""
    import bundle_mutations
    import signed_kit

    from edgedeploy.runtime.bundle.verify import verify

    whole, trust = signed_kit.bundle(not_after="2027-01-01T00:00:00Z"), signed_kit.public_pem()
    wrong = []
    with tempfile.TemporaryDirectory(prefix="edgedeploy-mutations-") as place:
        for number in range(MUTATIONS):
            name, bundle, reasons = bundle_mutations.mutated(Path(place, str(number)), number, whole)
            now = bundle_mutations.NOW
            found = bundle_mutations.refusal(lambda folder=bundle, now=now: verify(folder, trust, now=now, at_least=3))
            wrong += [] if found in reasons else [f"{name} ({found or 'accepted'})"]
    kinds = len(bundle_mutations.CHANGES)
    found = ", ".join(wrong) or f"{MUTATIONS} of {MUTATIONS} ({kinds} kinds)"
    return Row("mutated bundles refused for the right reason", found, "all", not wrong)


def signature_flips_refused(asked: Asked) -> Row:
    """One bit of each byte of a signature file, one file at a time."""
    import bundle_mutations
    import signed_kit

    from edgedeploy.runtime.bundle.names import SIGNATURE
    from edgedeploy.runtime.bundle.signature import verify_signature
    from edgedeploy.runtime.bundle.tree import Tree

    whole, trust, rng = signed_kit.bundle(), signed_kit.public_pem(), random.Random(asked.seed)
    ends: Counter[str] = Counter()
    for at in range(len(whole[SIGNATURE])):
        data = bytearray(whole[SIGNATURE])
        data[at] ^= 1 << rng.randrange(8)
        tree = Tree({**whole, SIGNATURE: bytes(data)})
        ends[bundle_mutations.refusal(lambda tree=tree: verify_signature(tree, trust))] += 1
    accepted = ends.pop("", 0)
    found = f"{sum(ends.values())} of {len(whole[SIGNATURE])}"
    return Row("bytes of a signature file, each flipped: refused", found, "all", accepted == 0)


def verify_time(asked: Asked) -> Row:
    """Of a bundle of 10 MB in the file system's cache, in a process that has the code loaded."""
    import signed_kit

    from edgedeploy.runtime.bundle.names import MANIFEST
    from edgedeploy.runtime.bundle.verify import verify

    files = {**signed_kit.FILES, "artifact/model.onnx": random.Random(asked.seed).randbytes(VERIFY_BYTES)}
    whole = signed_kit.signed({**files, MANIFEST: signed_kit.manifest(files)})
    taken_s = []
    with tempfile.TemporaryDirectory(prefix="edgedeploy-verify-") as place:
        bundle, trust = signed_kit.written(Path(place), whole), signed_kit.public_pem()
        for _ in range(VERIFY_REPEATS):
            started_s = time.perf_counter()
            verify(bundle, trust)
            taken_s.append(time.perf_counter() - started_s)
    found = f"{statistics.median(taken_s) * 1e3:.0f} ms, median of {VERIFY_REPEATS} (worst {max(taken_s) * 1e3:.0f} ms)"
    holds = statistics.median(taken_s) < VERIFY_BAR_S
    return Row("verify a bundle of 10 MB", found, f"< {VERIFY_BAR_S * 1e3:.0f} ms", holds)


def fuzzed_bundles(asked: Asked) -> Row:
    """Damaged manifests, signature files, signed payloads, archives and trust files; `scripts/bench fuzz` has many more."""
    from benchmarks.shared.fuzz_bundles import Bundles
    from edgedeploy.errors import EdgeDeployError

    ends: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="edgedeploy-fuzz-") as place:
        bundles = Bundles(None, Path(place))
        for number in range(FUZZED):
            what, data = bundles.damage(random.Random(f"{asked.seed}:{number}"))
            try:
                bundles.read(what, data)
                ends["accepted"] += 1
            except EdgeDeployError:
                ends["refused"] += 1
            except Exception as exc:
                ends[f"{what}: {type(exc).__name__} in case {number}"] += 1
    odd = sorted(set(ends) - {"accepted", "refused"})
    found = ", ".join(odd[:3]) or f"{ends['refused']} refused, {ends['accepted']} read, of {FUZZED}"
    return Row("fuzzed parts of bundles: refused by a typed error or read", found, "all", not odd)


ROWS = (mutations_refused, signature_flips_refused, verify_time, fuzzed_bundles)
