"""A study's folder: the evidence, and everything that can be looked up instead of made again.

    study.toml           the study file as it was given       study.json       what it was resolved to
    measurements/*.json  one per variant, valid ones          invalid/*.json   runs whose conditions drifted
    failures/*.json      variants that cannot give a number   confirmation/    final split, with its log of openings
    models/DIGEST/       ONNX reference of a float model,     artifacts/NAME/  what a target built from it, with its
                         its outputs on golden cases                           manifest
    baseline/            the trained baseline's weights       inputs/*.npz     model-ready inputs of a split
    training/*.pt        checkpoints of unfinished trainings  optuna.sqlite3   the optimiser's history of proposals
    account.jsonl        where the time went                  events.jsonl     what happened when

Every file appears whole or not at all. One process at a time owns the folder (:meth:`Store.own`).
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgedeploy.errors import SpecError
from edgedeploy.files import read_json, remove_partials, write_atomic, write_json
from edgedeploy.records.artifact import MANIFEST, Artifact
from edgedeploy.records.measurement import SCHEMA_VERSION, Failure, Measurement
from edgedeploy.records.variant import Variant
from edgedeploy.runtime.files import sha256_file
from edgedeploy.study.mounts import network_file_system


def utc_now() -> str:
    """Wall-clock time for people; durations never come from it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Store:
    """The folder of one study. Constructing it touches nothing."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # -- the study itself

    @property
    def study_path(self) -> Path:
        return self.root / "study.json"

    def check_place(self) -> None:
        """Raises ``SpecError`` on a file system whose locks cannot be relied on: SQLite loses data there."""
        found = network_file_system(self.root)
        if found is not None:
            raise SpecError(
                f"study folder {self.root}",
                f"it is on a network file system ({found}), where SQLite's locks cannot be relied on",
                "Choose an --out on a disk of this machine",
            )

    def exists(self) -> bool:
        return self.study_path.is_file()

    def create(self, study_text: str, resolved: Mapping[str, Any]) -> None:
        write_atomic(self.root / "study.toml", study_text.encode())
        write_json(self.study_path, {"schema": SCHEMA_VERSION, "created_utc": utc_now(), **resolved})

    def study(self) -> dict[str, Any]:
        """What :meth:`create` wrote. Raises ``SpecError`` when the folder holds no study."""
        try:
            data = read_json(self.study_path)
        except FileNotFoundError:
            raise SpecError(
                f"study folder {self.root}", "it holds no study", "`edgedeploy search STUDY.toml --out DIR` makes one"
            ) from None
        except (OSError, ValueError) as exc:
            raise SpecError(f"study folder {self.root}", f"its study.json cannot be read ({exc})") from None
        if not isinstance(data, dict) or data.get("schema") != SCHEMA_VERSION:
            raise SpecError(
                f"study folder {self.root}", "its study.json is of another version", "Use that version to read it"
            )
        return data

    def study_text(self) -> str:
        return (self.root / "study.toml").read_text(encoding="utf-8")

    @contextmanager
    def own(self) -> Iterator[None]:
        """Hold the folder for writing; a second search on it is an error, a killed one frees it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise SpecError(
                    f"study folder {self.root}",
                    "another process is writing to it",
                    "Wait for it, or choose another --out",
                ) from None
            remove_partials(self.root)
            yield

    # -- evidence

    def _read_all(self, folder: str) -> Iterator[dict[str, Any]]:
        for path in sorted((self.root / folder).glob("*.json")):
            yield read_json(path)

    def measurements(self) -> tuple[Measurement, ...]:
        return tuple(Measurement.from_json(data) for data in self._read_all("measurements"))

    def measurement(self, digest: str) -> Measurement | None:
        path = self.root / "measurements" / f"{digest}.json"
        return Measurement.from_json(read_json(path)) if path.is_file() else None

    def invalid(self) -> tuple[Measurement, ...]:
        return tuple(Measurement.from_json(data) for data in self._read_all("invalid"))

    def failures(self) -> tuple[Failure, ...]:
        return tuple(Failure.from_json(data) for data in self._read_all("failures"))

    def failure(self, digest: str) -> Failure | None:
        path = self.root / "failures" / f"{digest}.json"
        return Failure.from_json(read_json(path)) if path.is_file() else None

    def variants(self) -> list[Variant]:
        """Every variant that has an outcome, in the order they were evaluated."""
        outcomes: list[Measurement | Failure] = [*self.measurements(), *self.failures()]
        found = [(item.created_utc, item.variant.digest, item.variant) for item in outcomes]
        return [variant for _, _, variant in sorted(found, key=lambda entry: entry[:2])]

    def confirmations(self) -> tuple[Measurement, ...]:
        return tuple(Measurement.from_json(data) for data in self._read_all("confirmation"))

    def keep(self, measurement: Measurement) -> None:
        """Store a measurement as valid, invalid (each attempt in its own file), or confirmation."""
        if measurement.split == "confirmation":
            path = self.root / "confirmation" / f"{measurement.digest}.json"
        elif measurement.valid:
            path = self.root / "measurements" / f"{measurement.digest}.json"
        else:
            attempts = len(list((self.root / "invalid").glob(f"{measurement.digest}-*.json")))
            path = self.root / "invalid" / f"{measurement.digest}-{attempts + 1}.json"
        write_json(path, measurement.as_json())

    def keep_failure(self, failure: Failure) -> None:
        write_json(self.root / "failures" / f"{failure.variant.digest}.json", failure.as_json())

    def log_opening(self, reason: str, variants: tuple[str, ...]) -> None:
        """Record that the confirmation split was used. Using it often would make it part of the search."""
        self._append("confirmation/openings.jsonl", {"utc": utc_now(), "reason": reason, "variants": list(variants)})

    def openings(self) -> list[dict[str, Any]]:
        return self._lines("confirmation/openings.jsonl")

    # -- the time account

    def add_time(self, run: str, phase: str, duration_ns: int, at_ns: int) -> None:
        self._append("account.jsonl", {"run": run, "phase": phase, "ns": duration_ns, "at_ns": at_ns})

    def times(self) -> list[dict[str, Any]]:
        return self._lines("account.jsonl")

    # -- line files: appended in one write, so that only the last line can be torn by a kill

    def _append(self, name: str, value: Mapping[str, Any]) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        line = (json.dumps(value, sort_keys=True) + "\n").encode()
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def _lines(self, name: str) -> list[dict[str, Any]]:
        try:
            lines = (self.root / name).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        values = []
        for line in lines:
            try:
                values.append(json.loads(line))
            except ValueError:
                continue
        return values

    # -- places for what can be made again

    def model_folder(self, model_digest: str) -> Path:
        return self.root / "models" / model_digest

    def artifact_folder(self, name: str) -> Path:
        return self.root / "artifacts" / name

    def weight_bits_path(self, artifact_name: str) -> Path:
        """Which of an artifact's two builds, with 7-bit or 8-bit weights, a board chose."""
        return self.root / "artifacts" / f"{artifact_name}.weight-bits.json"

    def inputs_path(self, name: str) -> Path:
        return self.root / "inputs" / f"{name}.npz"

    def outputs_path(self, digest: str, split: str) -> Path:
        return self.root / "outputs" / f"{digest}-{split}.npz"

    @property
    def baseline_weights(self) -> Path:
        return self.root / "baseline" / "weights.pt"

    def keep_baseline_training(self, facts: Mapping[str, Any]) -> None:
        """Store how the baseline was trained: ``wall_s`` and ``cpu_s`` over all its runs, the ``precision``, and the
        ``host``'s processor."""
        write_json(self.root / "baseline" / "training.json", dict(facts))

    def baseline_training(self) -> dict[str, Any]:
        path = self.root / "baseline" / "training.json"
        found: dict[str, Any] = read_json(path) if path.is_file() else {}
        return found

    def model_trainings(self) -> list[dict[str, Any]]:
        """The same facts of each stored model that was trained by recovery or quantization-aware training."""
        return [read_json(path) for path in sorted((self.root / "models").glob("*/training.json"))]

    def checkpoint(self, name: str) -> Path:
        """The checkpoint of the unfinished training of the baseline, or of the model with that digest."""
        return self.root / "training" / f"{name}.pt"

    @property
    def optimiser_path(self) -> Path:
        return self.root / "optuna.sqlite3"


# -- manifests of stored artifacts: what Artifact.as_json gave, in the artifact's folder


def artifact_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the artifact in ``folder``; None when there is none. Writes nothing."""
    path = folder / MANIFEST
    found = path if path.is_file() else _older_manifest(folder)
    manifest: dict[str, Any] | None = None if found is None else read_json(found)
    return manifest


def adopt_manifest(folder: Path) -> None:
    """Move a manifest that an older version wrote beside ``folder`` into it."""
    older = _older_manifest(folder)
    if older is not None:
        if not (folder / MANIFEST).is_file():
            write_json(folder / MANIFEST, read_json(older))
        older.unlink()


def forget_artifact(folder: Path) -> None:
    """Remove the manifest, so that the artifact is built again when it is needed."""
    adopt_manifest(folder)
    (folder / MANIFEST).unlink(missing_ok=True)


def _older_manifest(folder: Path) -> Path | None:
    """The manifest beside ``folder``, where older versions wrote it.

    They cut the folder's name at its last dot, so artifacts of targets with a dot in their names shared one manifest,
    that of the last build. It therefore counts only for a folder that holds the files it lists.
    """
    path = folder.with_suffix(".json")
    if not (folder.is_dir() and path.is_file()):
        return None
    if path.stem == folder.name:
        return path
    files = Artifact.from_json(read_json(path)).files
    sound = all((folder / file.name).is_file() and sha256_file(folder / file.name) == file.sha256 for file in files)
    return path if sound else None
