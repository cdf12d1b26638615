"""Options and places shared by all tests."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kept_registry
import pytest

from edgedeploy.runtime.agent.claim import PLACE

if TYPE_CHECKING:
    from benchmarks.shared.fault_outcomes import Outcome

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the processor: with several threads each they only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

REPO = Path(__file__).resolve().parent.parent
BESIDE = {"unit", "contract"}

collect_ignore = ["thirdparty"]
"""A package of its own: it is tested where it is installed, by integration/targets/test_third_party.py."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--hardware", action="store_true", help="run the tests that need a real board")
    parser.addoption("--long", action="store_true", help="run the tests that take many minutes")
    parser.addoption("--fault-log", type=Path, metavar="FILE", help="append what became of each test with a fault mark")


_SERVERS = pytest.StashKey[Path]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """In the process that starts xdist's workers: they share the servers of ``warm_cli.py``."""
    if _SERVERS not in node.config.stash:
        node.config.stash[_SERVERS] = Path(tempfile.mkdtemp(prefix="edgedeploy-warm-"))
    folder = node.config.stash[_SERVERS]
    node.workerinput["servers"] = (str(folder), os.getpid())


def pytest_configure(config: pytest.Config) -> None:
    gc.disable()  # while tests are collected: nothing of 9,000 is garbage, and to look for it took a quarter of that time
    if found := getattr(config, "workerinput", {}).get("servers"):
        import warm_cli

        warm_cli.shared = warm_cli.Run(Path(found[0]), found[1])


def pytest_unconfigure(config: pytest.Config) -> None:
    if (folder := config.stash.get(_SERVERS, None)) is not None:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    for item in items:
        if BESIDE & set(item.path.relative_to(REPO).parts):
            item.add_marker(pytest.mark.beside)
        if "hardware" in item.keywords and not config.getoption("--hardware"):
            item.add_marker(pytest.mark.skip(reason="needs a real board: give --hardware"))
        if "long" in item.keywords and not config.getoption("--long"):
            item.add_marker(pytest.mark.skip(reason="takes many minutes: give --long"))
    yield  # what is not asked for is left out now
    items[:] = slow_first(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def slow_first(items: Sequence[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker gets an even part of the list, and one that is done takes from the end of another's. So each part begins
    with slow tests, studies and boards follow, and the units of milliseconds come last: no worker is left with a long one.
    Tests of a file stay together, as what they share is made once; a file of more than a worker's part is cut."""
    if workers == 1:
        return [*items]
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    ranks = [_rank(item) for item in items]
    for rank in (0, 1):
        tier = [item for item, found in zip(items, ranks, strict=True) if found == rank]
        most = max(1, -(-len(tier) // workers))
        files = [[*tests] for _, tests in itertools.groupby(tier, key=lambda item: item.path)]
        pieces = [tests[start : start + most] for tests in files for start in range(0, len(tests), most)]
        counts = [0] * workers
        for piece in sorted(pieces, key=len, reverse=True):
            least = counts.index(min(counts))
            parts[least].extend(piece)
            counts[least] += len(piece)
    rest = iter([item for item, found in zip(items, ranks, strict=True) if found == 2])
    for part in parts:
        part.extend(itertools.islice(rest, max(0, len(items) // workers - len(part))))
    return [*itertools.chain(*parts), *rest]


def _rank(item: pytest.Item) -> int:
    rank = 2 if BESIDE & set(item.path.relative_to(REPO).parts) else 1
    return rank - 1 if "slow" in item.keywords else rank


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """A test that judges no time, with all its fixtures, measures in a place of its worker's own: else four workers would
    wait for one another. An emulated board behind sshd has that place too, and a kit's server one of its own."""
    _leave_imported_alone()
    with pytest.MonkeyPatch.context() as patch:
        if {"beside", "waiting"} & set(item.keywords) and "alone" not in item.keywords:
            patch.setenv(PLACE, f"tests-{os.getpid()}")
        else:
            patch.delenv(PLACE, raising=False)
        return (yield)


MANY_MODULES = 200


def _leave_imported_alone() -> None:
    """Modules and what they define stay to the end: the collector of garbage looked through all of them again
    and again, a tenth of a worker's processor time. New ones are looked through less often too."""
    if len(sys.modules) >= _settled[0] + MANY_MODULES:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        _settled[0] = len(sys.modules)


_settled = [0]
"""How many modules there were when what they hold was left alone."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """The lines that a test survives travel with its reports, also from xdist's workers."""
    for mark in item.iter_markers("fault"):
        item.user_properties += [("fault", (line, mark.kwargs.get("simulated"))) for line in mark.args]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _REPORTS.setdefault(report.nodeid, []).append(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-log")
    if path is not None and not hasattr(session.config, "workerinput"):
        from benchmarks.shared.fault_outcomes import write_log  # scripts are not on the path of every run

        write_log(path, fault_outcomes())


_REPORTS: dict[str, list[pytest.TestReport]] = {}


def fault_outcomes() -> Iterator[Outcome]:
    """One for each line of each marked test that was begun. A test that was expected to fail and did is no survivor."""
    from benchmarks.shared.fault_outcomes import Outcome

    for test, reports in _REPORTS.items():
        bad = next((report for report in reports if report.failed), None)
        missed = next((report for report in reports if report.skipped), None)
        result, reason = "passed", ""
        if bad is not None:
            crash = getattr(bad.longrepr, "reprcrash", None)
            told = str(crash.message if crash else bad.longrepr).strip().splitlines()
            result, reason = "failed", (told or ["no reason was given"])[0]
        elif missed is not None:
            why = missed.longrepr
            result, reason = "skipped", str(why[2] if isinstance(why, tuple) else getattr(missed, "wasxfail", why))
        for name, value in reports[0].user_properties:
            if name == "fault":
                line, simulated = value  # type: ignore[misc]
                yield Outcome(line, simulated, test, result, reason)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real data and models, which is not part of the project."""
    folder = Path(os.environ.get("EDGEDEPLOY_SHARED", REPO.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}: set EDGEDEPLOY_SHARED")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    return program


@pytest.fixture(scope="class")
def warm_converter() -> Iterator[None]:
    """LiteRT files are built by processes that need not load torch and the converter anew: ``warm_cli.py``."""
    if importlib.util.find_spec("litert_torch") is None:
        yield
        return
    import warm_cli

    from edgedeploy.targets.litert import target

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, "TOOL", warm_cli.converter())
        yield


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes what this user's boards are remembered by. Who writes there makes the folder: thousands of
    tests need none, and pytest looks through all of its folders for the number of a new one."""
    monkeypatch.setenv("EDGEDEPLOY_STATE", str(tmp_path_factory.getbasetemp() / "states" / str(next(_STATES))))


_STATES = itertools.count()


@pytest.fixture
def machine_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boards of the test measure in the place of the whole machine: it is tested who may have that."""
    monkeypatch.delenv(PLACE, raising=False)


@pytest.fixture(autouse=True)
def told_between_epochs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a training stops for longer than it stays silent, and is heard of within an epoch too."""
    if (training := sys.modules.get("edgedeploy.compress.training")) is not None:
        monkeypatch.setattr(training, "TELL_EVERY_S", math.inf)


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[object]:
    """What several tests share is made of the same numbers whichever of them comes first, and leaves it its own."""
    torch = sys.modules.get("torch")
    if torch is None or fixturedef.scope == "function":
        return (yield)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return (yield)


@pytest.fixture(autouse=True)
def own_numbers() -> None:
    """A network without a seed of its own begins with the same weights whatever test ran before it in this process. What
    the exporter knows of operators does not depend on the test."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)
    kept_registry.keep()
