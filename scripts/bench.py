"""The Python half of `scripts/bench`: list the benchmarks, or run one. It imports only the benchmark that it runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module

from benchmarks import catalogue, listing

EXIT_USAGE = 2
OWN = ("benchmarks", "edgedeploy.")


def main(argv: Sequence[str]) -> int:
    name, *rest = argv or ["--help"]
    found = catalogue()
    if name == "--extras-of":  # asked by scripts/bench before there is an environment; unknown names need nothing
        wanted = found.get(rest[0]) if rest else None
        sys.stdout.write(",".join(wanted.extras) if wanted else "")
        return 0
    if name in ("-h", "--help"):
        sys.stdout.write(listing())
        return 0
    if name not in found:
        sys.stderr.write(f"no benchmark is named {name!r}\n{listing()}")
        return EXIT_USAGE
    try:
        result: int = import_module(f"benchmarks.{found[name].module}").main(rest)
    except ModuleNotFoundError as exc:  # of an extra: what is missing of this project itself is a defect
        if (exc.name or "").startswith(OWN):
            raise
        sys.stderr.write(
            f"benchmark {name}: {exc.name} is not installed; run scripts/bench {name}, which installs what it needs\n"
        )
        return EXIT_USAGE
    return result


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
