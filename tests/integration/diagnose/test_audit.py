"""``edgedeploy audit`` on a study's folder: what it writes, what it keeps, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bundle_kit import INT8, made_up_study
from typer.testing import CliRunner

from edgedeploy.cli.app import app
from edgedeploy.diagnose.audit import run as audits
from edgedeploy.diagnose.audit.run import audit
from edgedeploy.diagnose.audit.subject import Pair, Subject
from edgedeploy.errors import MeasurementError, SpecError

pytestmark = pytest.mark.beside


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_study(tmp_path_factory.mktemp("study")).root


def test_parts_are_made_once_and_every_finding_has_its_limits(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    options = ["audit", str(study), "--variant", INT8.digest[:8], "--out", str(out)]
    for name in ("residuals", "disagreement", "membership"):
        options += ["--only", name]
    first = CliRunner().invoke(app, options)
    assert first.exit_code == 0, first.output
    told = json.loads((out / "audit.json").read_text())
    assert [part["name"] for part in told["parts"]] == ["residuals", "disagreement", "membership"]
    assert told["sleeping_backdoor_found_by"] == [] and told["sleeping_backdoor_looked_for_by"] == ["residuals"]
    assert "No sleeping backdoor found by residuals." in first.output
    assert all(part["limits"] for part in told["parts"])
    by_name = {part["name"]: part for part in told["parts"]}
    assert by_name["residuals"]["data"]["layers"], "its layers were looked at"
    assert by_name["disagreement"]["data"]["cases"] == 6
    assert "--shadows 8" in by_name["membership"]["why_not"]
    page = (out / "audit.md").read_text()
    assert page.count("*Limits.*") == 3
    assert "Not measured, because no shadows were asked for" in page
    assert (out / "disagreement.png").read_bytes().startswith(b"\x89PNG")
    kept = {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    again = CliRunner().invoke(app, [*options, "--json"])
    assert json.loads(again.output)["parts"] == told["parts"]
    assert {path.name: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == kept


def test_a_part_of_other_things_or_half_a_file_is_made_again(study: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit"
    made = audit(study, INT8.digest, out=out, only=["membership"])
    part = out / "parts" / "membership.json"
    part.write_text(part.read_text()[:40])
    assert (
        audit(study, INT8.digest, out=out, only=["membership"]).as_json()["parts"][0]["data"] == made.parts[0]["data"]
    )
    other = audit(study, INT8.digest, out=out, only=["membership"], seed=1)
    assert other.parts[0]["made_from"]["seed"] == 1


def test_an_artifact_that_does_not_run_here_is_told_part_by_part_and_tried_again(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(subject: Subject) -> Pair:
        raise MeasurementError("open it", "it is for arm64", "Audit it there")

    monkeypatch.setattr(audits, "open_pair", refuses)
    wanted = ["residuals", "disagreement"]
    first, second = audit(study, INT8.digest, out=tmp_path / "audit", only=wanted).parts
    assert first["measured"] and not first["why_not"]
    assert second["why_not"] == "open it: it is for arm64"
    monkeypatch.undo()
    assert audit(study, INT8.digest, out=tmp_path / "audit", only=wanted).parts[1]["measured"]


def test_time_that_is_over_is_told_and_exits_partial(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "_is_over", lambda end_s: True)
    options = ["audit", str(study), "--variant", INT8.digest, "--only", "robustness", "--out", str(tmp_path / "audit")]
    found = CliRunner().invoke(app, options)
    assert found.exit_code == 4, found.output
    assert "before these were complete: robustness" in (tmp_path / "audit" / "audit.md").read_text()


def test_what_cannot_be_is_refused_before_anything_is_written(study: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'residuals'"):
        audit(study, INT8.digest, out=tmp_path / "audit", only=["residual"])
    with pytest.raises(SpecError, match="--minutes 0"):
        audit(study, INT8.digest, out=tmp_path / "audit", minutes=0)
    (tmp_path / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(SpecError, match="it is a link"):
        audit(study, INT8.digest, out=tmp_path / "link")
    assert not (tmp_path / "audit").exists()
