"""--verbose, --quiet and neither: what gets to standard error, and with what time."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgedeploy import Event, SpecError, __version__
from edgedeploy.cli import loudness as module
from edgedeploy.cli.app import app
from edgedeploy.cli.loudness import PACKAGE_LOG, loudness, package_log_shown, print_line, say
from edgedeploy.cli.watch import Watch, _eta_text

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


@pytest.fixture(autouse=True)
def as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loudness, "verbose", False)
    monkeypatch.setattr(loudness, "quiet", False)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Standard error as somebody sees it."""
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=True, width=200, soft_wrap=True)
    monkeypatch.setattr(module, "err", console)
    monkeypatch.setattr("edgedeploy.cli.watch.err", console)
    return seen


def watched() -> None:
    with Watch() as watch:
        watch(Event("phase", "building", 0, 2))
        watch(Event("phase", "measuring", 0, 2))
        watch(Event("trial", "float32: 0.9", 1, 2, eta_s=90.0, best="float32"))
        watch(Event("note", "[bracketed]", 1, 2))


def test_a_log_has_lines_with_the_time_and_a_phase_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    watched()
    lines = capsys.readouterr().err.splitlines()
    assert all(re.match(STAMP, line) for line in lines)
    assert [re.sub(STAMP, "", line) for line in lines] == [
        "[0/2, ETA ?] building",
        "[1/2, ETA 1:30] float32: 0.9  | best so far: float32",
        "[1/2, ETA ?] [bracketed]",
    ]


def test_a_terminal_has_a_bar_and_lines_without_the_time(terminal: io.StringIO) -> None:
    watched()
    assert "[1/2, ETA 1:30] float32: 0.9" in terminal.getvalue()
    assert "variants" in terminal.getvalue()
    assert not re.search(STAMP, terminal.getvalue())


def test_verbose_has_every_event_with_the_time(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loudness, "verbose", True)
    watched()
    assert len(re.findall(rf"{STAMP}\[[01]/2, ETA", terminal.getvalue())) == 4


@pytest.mark.parametrize("on_terminal", [True, False])
def test_quiet_has_nothing_of_it(
    on_terminal: bool,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: Callable[[], str] = lambda: capsys.readouterr().err  # noqa: E731
    if on_terminal:
        seen = request.getfixturevalue("terminal").getvalue
    monkeypatch.setattr(loudness, "quiet", True)
    watched()
    say("progress")
    assert seen() == ""
    print_line("Interrupted.")
    assert "Interrupted." in seen()


# -- the package's log


def logged() -> None:
    with package_log_shown():
        logging.getLogger("edgedeploy.study.preflight").debug("target %s is ready", "litert")
        logging.getLogger("edgedeploy.study.events").debug("phase: building")
        logging.getLogger("edgedeploy.study.events").warning("events.jsonl cannot be written")


def test_warnings_of_the_package_are_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logged()
    assert re.fullmatch(f"{STAMP}warning: events.jsonl cannot be written\n", capsys.readouterr().err)


def test_warnings_are_shown_when_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loudness, "quiet", True)
    logged()
    assert "events.jsonl cannot be written" in capsys.readouterr().err


def test_verbose_shows_what_is_done_but_no_event_twice(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loudness, "verbose", True)
    logged()
    first, second = capsys.readouterr().err.splitlines()
    assert re.fullmatch(f"{STAMP}debug edgedeploy.study.preflight: target litert is ready", first)
    assert re.fullmatch(f"{STAMP}warning edgedeploy.study.events: events.jsonl cannot be written", second)


def test_the_log_is_left_as_it_was() -> None:
    def state() -> tuple[object, ...]:
        return PACKAGE_LOG.level, PACKAGE_LOG.propagate, list(PACKAGE_LOG.handlers)

    before = state()
    with package_log_shown():
        assert state() != before
    assert state() == before


# -- the options


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["recipe"], (False, False)),
        (["-v", "recipe"], (True, False)),
        (["recipe", "--verbose"], (True, False)),
        (["recipe", "demo", "-q"], (False, True)),
        (["boards", "--catalog", "--quiet"], (False, True)),
        (["boards", "-q", "look", "--catalog"], (False, True)),
    ],
)
def test_the_options_stand_before_or_after_the_command(arguments: list[str], found: tuple[bool, bool]) -> None:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (loudness.verbose, loudness.quiet) == found


def test_both_options_are_a_mistake() -> None:
    with pytest.raises(SpecError, match="--verbose and --quiet: both were given"):
        CliRunner().invoke(app, ["-v", "recipe", "-q"], catch_exceptions=False)


def test_what_follows_two_dashes_is_no_option() -> None:
    done = CliRunner().invoke(app, ["recipe", "--", "-q"])
    assert isinstance(done.exception, SpecError)
    assert done.exception.asked == "recipe '-q'"
    assert not loudness.quiet


def test_the_version_is_said_and_nothing_else_happens() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"edgedeploy {__version__}\n")


@pytest.mark.parametrize(
    ("eta_s", "at_least", "text"), [(None, False, "?"), (0.2, True, "?"), (270, True, "4:30+"), (0.2, False, "0:00")]
)
def test_a_bound_that_bounds_nothing_is_a_question_mark(eta_s: float | None, at_least: bool, text: str) -> None:
    assert _eta_text(eta_s, at_least) == text
