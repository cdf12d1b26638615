"""Several boards and one queue. The boards are SIMULATIONS: their jobs wait, or fail as a board would."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import made_up
import pytest
from made_up_search import SMALL, SPACE, landscape

from edgedeploy.errors import BoardError, Busy, CommandFailed, OutOfTime, Quarantined, SpecError, Unreachable
from edgedeploy.lab import crew as crew_module
from edgedeploy.lab.crew import Crew, Machines, Post, abandoned
from edgedeploy.lab.kinds import health_check, require_alike, require_comparable, require_unchanged
from edgedeploy.records.board import BoardInfo
from edgedeploy.records.variant import Variant
from edgedeploy.search import loop
from edgedeploy.search.loop import Finished, Outcome, Search
from edgedeploy.search.space import Space

Evaluate = Callable[[str, Variant], Outcome]


class SimulatedLab:
    """Boards that answer from a made-up landscape, and the evidence of who evaluated what."""

    def __init__(self, storage: Path, names: str = "abcd", evaluate: Evaluate | None = None) -> None:
        self.storage = storage
        self.names = names
        self.evaluate: Evaluate = evaluate or (lambda name, variant: landscape(variant))
        self.evidence: dict[str, Outcome] = {}
        self.runs: list[tuple[str, str]] = []
        self.aside: list[str] = []

    def post(self, name: str) -> Post:
        def evaluate(variant: Variant) -> Outcome:
            outcome = self.evaluate(name, variant)
            self.runs.append((name, variant.digest))
            self.evidence[variant.digest] = outcome
            return outcome

        def set_aside(cause: str) -> BoardError:
            self.aside.append(name)
            return Quarantined(f"board {name!r}", cause)

        return Post(name, evaluate, set_aside)

    ahead: Callable[[Variant], None] | None = None

    def crew(self) -> Crew:
        return Crew([self.post(name) for name in self.names], ahead=self.ahead)

    def search(self, trials: int, space: Space = SPACE) -> str:
        return self.finish(trials, space).reason

    def finish(self, trials: int, space: Space = SPACE) -> Finished:
        search = Search(
            storage=self.storage,
            space=space,
            directions=("maximize", "minimize"),
            seed=3,
            lookup=lambda variant: self.evidence.get(variant.digest),
            clock=nullcontext,
        )
        with self.crew() as crew:
            return search.run(crew, trials=trials, deadline_s=time.monotonic() + 600)


def wait_until(condition: Callable[[], object]) -> None:
    give_up_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up_s
        time.sleep(0.01)


def digests(lab: SimulatedLab) -> list[str]:
    return [digest for _, digest in lab.runs]


def test_every_variant_is_evaluated_once_whichever_board_takes_it(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "o.sqlite3")
    assert lab.search(1000, SMALL) == "exhausted"
    assert len(digests(lab)) == len(set(digests(lab))) == 10


def test_boards_work_at_the_same_time(tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def meet(name: str, variant: Variant) -> Outcome:
        together.wait(60)  # breaks unless four jobs are under way at once
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=meet)
    assert lab.search(8) == "trials"
    assert Counter(name for name, _ in lab.runs) == dict.fromkeys("abcd", 2)


def test_an_interrupted_search_loses_and_doubles_nothing(tmp_path: Path) -> None:
    def interrupted(name: str, variant: Variant) -> Outcome:
        if len(lab.runs) >= 3:
            raise KeyboardInterrupt
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=interrupted)
    with pytest.raises(KeyboardInterrupt):
        lab.search(8)
    kept = set(lab.evidence)
    lab.evaluate = lambda name, variant: landscape(variant)
    assert lab.search(8) == "trials"
    assert len(digests(lab)) == len(set(digests(lab))) == 8
    assert kept <= set(digests(lab))


def test_the_end_of_the_time_in_a_training_lets_the_other_boards_finish(tmp_path: Path) -> None:
    trained = threading.Event()

    def cut(name: str, variant: Variant) -> Outcome:
        if len(lab.runs) >= 4 and not trained.is_set():
            trained.set()
            raise OutOfTime("training of width 0.5", "the time was over after 2 of 8 epochs")
        if trained.is_set():
            time.sleep(0.05)
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=cut)
    found = lab.finish(12)
    assert (found.reason, found.evaluated) == ("wall_clock", len(lab.runs))
    assert "after 2 of 8 epochs" in found.cut
    assert 4 <= len(lab.runs) < 12
    lab.evaluate = lambda name, variant: landscape(variant)
    assert lab.search(12) == "trials"
    assert len(digests(lab)) == len(set(digests(lab))) == 12
    assert lab.aside == []


def test_a_board_that_fails_again_and_again_is_set_aside_and_its_jobs_are_done_by_others(tmp_path: Path) -> None:
    def broken(name: str, variant: Variant) -> Outcome:
        if name == "b":
            raise Unreachable("board 'b'", "no answer")
        wait_until(lambda: lab.aside)
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "unused", "ab", broken)
    variants = {variant.digest: variant for variant in map(SPACE.variant, itertools.islice(SPACE.combinations(), 8))}
    with lab.crew() as crew:
        futures = [crew.submit(variant) for variant in variants.values()]
        outcomes = [future.result(60) for future in futures]
        assert crew.slots() == 1
        with pytest.raises(Busy, match="is over"):
            crew.check("b")
    assert lab.aside == ["b"]
    assert outcomes == [landscape(variant) for variant in variants.values()]
    assert sorted(digests(lab)) == sorted(variants)


def test_a_single_failure_sends_the_job_to_another_board(tmp_path: Path) -> None:
    failed: list[str] = []

    def once(name: str, variant: Variant) -> Outcome:
        if not failed:
            failed.append(name)
            raise Unreachable(f"board {name!r}", "no answer")
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=once)
    assert lab.search(8) == "trials"
    assert lab.aside == []
    assert len(digests(lab)) == len(set(digests(lab))) == 8


def test_a_crash_on_one_board_lets_the_others_finish_and_is_raised_with_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = threading.Event()
    monkeypatch.setattr(loop.LOG, "warning", lambda *told: known.set())

    def crash(name: str, variant: Variant) -> Outcome:
        if name == "a":
            wait_until(lambda: len(at_work) == 3)
            raise ZeroDivisionError("a bug of ours")
        at_work.append(name)
        assert known.wait(60)
        return landscape(variant)

    at_work: list[str] = []
    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=crash)
    with pytest.raises(ZeroDivisionError) as caught:
        lab.search(12)
    assert caught.traceback[-1].name == "crash"
    assert sorted(name for name, _ in lab.runs) == ["b", "c", "d"]
    lab.evaluate = lambda name, variant: landscape(variant)
    assert lab.search(12) == "trials"
    assert len(digests(lab)) == len(set(digests(lab))) == 12


def test_the_error_of_a_studys_only_board_is_the_studys(tmp_path: Path) -> None:
    """What a board suffers is tried again elsewhere (attempts.py); a study of one board does not put it into quarantine."""

    def gone(name: str, variant: Variant) -> Outcome:
        raise Unreachable("board 'a'", "no answer")

    lab = SimulatedLab(tmp_path / "o.sqlite3", "a", gone)
    with pytest.raises(Unreachable, match="no answer"):
        lab.search(8)
    assert lab.aside == []


def test_whoever_leaves_a_crew_interrupts_a_board_that_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C does in the caller's thread: what the board holds is let go."""

    def endless(name: str, variant: Variant) -> Outcome:
        at_work.set()
        try:
            while True:
                time.sleep(0.01)
        finally:
            let_go.set()

    monkeypatch.setattr(crew_module, "LEAVE_S", 60.0)  # a busy machine: it is waited for until it has ended, or hangs
    at_work, let_go = threading.Event(), threading.Event()
    with pytest.raises(KeyboardInterrupt), SimulatedLab(tmp_path / "unused", "a", endless).crew() as crew:
        crew.submit(SPACE.baseline_variant("openvino"))
        assert at_work.wait(60)
        raise KeyboardInterrupt
    assert let_go.is_set()
    assert not abandoned()


def test_who_is_interrupted_just_when_its_job_is_over_keeps_no_other_board_from_leaving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interrupt had come between the lock of the queue and its release, and the other boards waited for it for ever."""
    at_work, over, interrupt = threading.Event(), threading.Event(), crew_module.interrupt

    def work(name: str, variant: Variant) -> Outcome:
        at_work.set()
        assert over.wait(60)
        return landscape(variant)

    def late(thread: threading.Thread) -> None:
        over.set()
        time.sleep(0.2)  # time to come to the queue
        interrupt(thread)

    monkeypatch.setattr(crew_module, "interrupt", late)
    monkeypatch.setattr(crew_module, "LEAVE_S", 60.0)
    with SimulatedLab(tmp_path / "unused", evaluate=work).crew() as crew:
        crew.submit(SPACE.baseline_variant("openvino"))
        assert at_work.wait(60)
    assert not abandoned()
    asks = threading.Thread(target=crew.submit, args=(SPACE.baseline_variant("openvino"),), daemon=True)
    asks.start()
    asks.join(60)
    assert not asks.is_alive(), "it has kept the queue"


def test_the_last_board_takes_the_study_with_it(tmp_path: Path) -> None:
    def gone(name: str, variant: Variant) -> Outcome:
        raise Unreachable(f"board {name!r}", "no answer")

    lab = SimulatedLab(tmp_path / "o.sqlite3", "ab", gone)
    with pytest.raises(Quarantined, match="3 jobs in a row failed"):
        lab.search(8)
    assert sorted(lab.aside) == ["a", "b"]


def test_a_late_board_may_file_nothing(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "o.sqlite3")
    with lab.crew() as crew:
        crew.check("a")
    with pytest.raises(Busy, match="is over"):
        crew.check("a")


def test_boards_of_one_machine_never_measure_side_by_side(tmp_path: Path) -> None:
    machines = Machines()
    at_work: list[str] = []
    side_by_side: list[str] = []

    def alone(name: str, variant: Variant) -> Outcome:
        with machines.of("the one host"):
            at_work.append(name)
            time.sleep(0.02)
            side_by_side.extend(at_work[1:])
            at_work.remove(name)
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", evaluate=alone)
    assert lab.search(8) == "trials"
    assert side_by_side == []
    assert machines.of("another host") is not machines.of("the one host")


def test_what_changed_on_a_board_is_named_before_it_is_used() -> None:
    board = made_up.board()
    check = health_check(board)
    check(replace(board, boot_id="another", notes=("a note",)))
    with pytest.raises(CommandFailed, match="identity"):
        check(replace(board, identity="another"))
    with pytest.raises(CommandFailed, match="image 'r36', not ''"):
        check(replace(board, image="r36"))


def test_boards_of_two_kinds_share_no_study() -> None:
    board = made_up.board()
    require_alike([board, replace(board, name="other", identity="another", serial="2")])
    with pytest.raises(SpecError, match="cpu 'another'"):
        require_alike([board, replace(board, name="other", cpu="another")])


def test_boards_of_other_flags_are_told_apart_by_those_flags_alone() -> None:
    known = ("avx2", "avx512_bf16", "avx512_vnni", "avx_vnni", "fma")
    board = made_up.board(isa=("avx2", "avx512_bf16", "avx512_vnni", "fma"), isa_known=known)
    other = replace(board, name="other", identity="another", isa=("avx2", "avx_vnni", "fma"))
    with pytest.raises(SpecError) as caught:
        require_alike([board, other])
    assert caught.value.found == "they are of two kinds: CPU flags without avx512_bf16, avx512_vnni and with avx_vnni"


def test_a_flag_that_an_older_probe_did_not_look_for_tells_nothing() -> None:
    board = made_up.board(isa=("avx2", "fma", "gfni"), isa_known=("avx2", "avx_vnni", "fma", "gfni"))
    said_nothing = replace(board, isa=("avx2", "fma"), isa_known=())
    assert board.unlike(said_nothing) == said_nothing.unlike(board) == ()
    assert board.unlike(replace(said_nothing, isa=("avx2", "f16c"))) == ()
    assert board.unlike(replace(said_nothing, isa=("avx2", "avx_vnni"))) == ("CPU flags without avx_vnni",)
    assert said_nothing.unlike(replace(said_nothing, isa=("avx2",))) == ("CPU flags with fma",)
    assert BoardInfo.from_json(board.as_json()) == board


def test_a_study_does_not_go_on_with_another_processor_behind_the_same_machine() -> None:
    """A virtual machine that has moved keeps its machine id."""
    board = made_up.board(isa=("avx2", "avx512_vnni"))
    assert require_unchanged([], [board]) == require_unchanged([board], [replace(board, boot_id="another")]) == ()
    moved = replace(board, isa=("avx2",))
    with pytest.raises(SpecError, match="not the board that was measured before: CPU flags without avx512_vnni"):
        require_unchanged([board], [moved])
    assert require_unchanged([board, moved], [moved]) == (), "the last of its measurements counts"
    with pytest.raises(SpecError, match="identity"):
        require_unchanged([board], [replace(board, identity="another")])
    assert require_unchanged([board], [replace(board, name="a new one", identity="another")]) == ()


def test_newer_software_on_a_board_is_told_when_a_study_goes_on() -> None:
    board = made_up.board()
    (line,) = require_unchanged([board], [replace(board, python="3.11.10")])
    assert line == "board made-up board has changed since it was measured: python '3.11.10', not '3.11.9'"


def test_only_what_compares_across_boards_is_an_objective_of_several() -> None:
    require_comparable(["dice_mean", "latency_ratio", "size_bytes"])
    with pytest.raises(SpecError, match="latency_p50_ns on several boards"):
        require_comparable(["dice_mean", "latency_p50_ns"])


def test_the_next_variant_is_prepared_while_the_board_is_at_work(tmp_path: Path) -> None:
    """Each job ends only when the one after it was prepared."""
    prepared: list[str] = []

    def wait_for_next(name: str, variant: Variant) -> Outcome:
        if len(lab.runs) < 5:
            wait_until(lambda: set(prepared) - {*digests(lab), variant.digest})
        return landscape(variant)

    lab = SimulatedLab(tmp_path / "o.sqlite3", "a", evaluate=wait_for_next)
    lab.ahead = lambda variant: prepared.append(variant.digest)
    assert lab.search(6) == "trials"
    assert len(prepared) == len(set(prepared)) and set(prepared) <= set(digests(lab))
    assert len(digests(lab)) == len(set(digests(lab))) == 6


def fails(variant: Variant) -> None:
    raise CommandFailed("train", "the loss is not finite", "Look at it")


def test_what_goes_wrong_ahead_of_its_turn_is_told_in_its_turn(tmp_path: Path) -> None:
    lab = SimulatedLab(tmp_path / "o.sqlite3", "a")
    lab.ahead = fails
    assert lab.search(6) == "trials"
    assert not abandoned()


def test_with_one_board_a_search_that_is_ahead_proposes_the_same_again_and_after_a_kill(tmp_path: Path) -> None:
    whole, again = (SimulatedLab(tmp_path / f"{name}.sqlite3", "a") for name in ("whole", "again"))
    for lab in (whole, again):
        lab.ahead = lambda variant: None
        assert lab.search(16) == "trials"
    assert digests(whole) == digests(again)

    def interrupted(name: str, variant: Variant) -> Outcome:
        if len(cut.runs) == 9:
            cut.evaluate = lambda name, variant: landscape(variant)
            raise KeyboardInterrupt
        return landscape(variant)

    cut = SimulatedLab(tmp_path / "cut.sqlite3", "a", evaluate=interrupted)
    cut.ahead = lambda variant: None
    with pytest.raises(KeyboardInterrupt):
        cut.search(16)
    assert cut.search(16) == "trials"
    assert digests(cut) == digests(whole)


def test_a_study_that_ends_stops_what_is_ahead(tmp_path: Path) -> None:
    begun = threading.Event()

    def trains(variant: Variant) -> None:
        begun.set()
        while True:
            time.sleep(0.01)

    def interrupted(name: str, variant: Variant) -> Outcome:
        begun.wait(60)
        raise KeyboardInterrupt

    lab = SimulatedLab(tmp_path / "o.sqlite3", "a", evaluate=interrupted)
    lab.ahead = trains
    with pytest.raises(KeyboardInterrupt):
        lab.search(6)
    wait_until(lambda: not abandoned())
