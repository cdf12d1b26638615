"""What may happen to a bundle between its maker and a device, each with the reasons for which it may be refused."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import signed_kit as kit

from edgedeploy.runtime.bundle.names import MANIFEST, SIGNATURE

NOW: Final = datetime(2026, 11, 29, tzinfo=UTC)
"""What a mutated bundle's last day is held against."""

Change = Callable[[Path, random.Random], None]
"""Alters the folder of a whole bundle. Beside it there is room for what lies outside."""


def _paths(bundle: Path) -> list[Path]:
    return sorted(path for path in bundle.rglob("*") if path.is_file() and path.name != SIGNATURE)


def _any(bundle: Path, rng: random.Random) -> Path:
    return rng.choice(_paths(bundle))


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _flipped(bundle: Path, rng: random.Random) -> None:
    flip(_any(bundle, rng), rng)


def _flipped_signature(bundle: Path, rng: random.Random) -> None:
    flip(bundle / SIGNATURE, rng)


def _swapped(bundle: Path, rng: random.Random) -> None:
    one, other = rng.sample(_paths(bundle), 2)
    ours, theirs = one.read_bytes(), other.read_bytes()
    one.write_bytes(theirs)
    other.write_bytes(ours)


def _renamed(bundle: Path, rng: random.Random) -> None:
    path = _any(bundle, rng)
    path.rename(path.with_name(f"{path.name}{rng.randrange(10)}"))


def _moved(bundle: Path, rng: random.Random) -> None:
    folder = bundle / f"f{rng.randrange(10)}"
    folder.mkdir()
    path = rng.choice([path for path in _paths(bundle) if path.parent == bundle])
    path.rename(folder / path.name)


def _extra(bundle: Path, rng: random.Random) -> None:
    place = rng.choice([bundle, *(path.parent for path in _paths(bundle))])
    (place / f"extra{rng.randrange(10)}").write_bytes(rng.randbytes(rng.randrange(9)))


def _missing(bundle: Path, rng: random.Random) -> None:
    _any(bundle, rng).unlink()
    for folder in (bundle / "artifact", bundle / "golden"):
        if not any(folder.iterdir()):
            folder.rmdir()  # an empty folder is another mutation


def _cut(bundle: Path, rng: random.Random) -> None:
    path = _any(bundle, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))


def _appended(bundle: Path, rng: random.Random) -> None:
    with _any(bundle, rng).open("ab") as stream:
        stream.write(rng.randbytes(1 + rng.randrange(9)))


def _linked(bundle: Path, rng: random.Random) -> None:
    """The same bytes by a link: whoever owns what it leads to can exchange them after the check."""
    path = _any(bundle, rng)
    elsewhere = bundle.parent / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere if rng.randrange(2) else Path(os.path.relpath(elsewhere, path.parent)))


def _linked_inside(bundle: Path, rng: random.Random) -> None:
    path = _any(bundle, rng)
    (bundle / "link").symlink_to(path.relative_to(bundle))


def _linked_folder(bundle: Path, rng: random.Random) -> None:
    folder = bundle / rng.choice(["artifact", "golden"])
    folder.rename(bundle.parent / "elsewhere")
    folder.symlink_to(bundle.parent / "elsewhere")


def _dangling(bundle: Path, rng: random.Random) -> None:
    (bundle / f"link{rng.randrange(10)}").symlink_to("nowhere")


def _hard_linked(bundle: Path, rng: random.Random) -> None:
    os.link(_any(bundle, rng), bundle.parent / "elsewhere")


def _empty_folder(bundle: Path, rng: random.Random) -> None:
    rng.choice([bundle, bundle / "artifact"]).joinpath(f"empty{rng.randrange(10)}").mkdir()


def _case_clash(bundle: Path, rng: random.Random) -> None:
    path = _any(bundle, rng)
    other = path.with_name(path.name.swapcase())
    other.write_bytes(path.read_bytes())


def _case_clash_of_folders(bundle: Path, rng: random.Random) -> None:
    folder = bundle / rng.choice(["Artifact", "GOLDEN"])
    folder.mkdir()
    (folder / "more").write_bytes(b"more")


def _git(bundle: Path, rng: random.Random) -> None:
    name = rng.choice([".git/hooks/post-checkout", ".gitignore", ".gitattributes", ".github/x.yml", "artifact/.GIT/x"])
    kit.written(bundle, {name: b"#!/bin/sh\n"})


def _bad_name(bundle: Path, rng: random.Random) -> None:
    name = rng.choice(["a b", "a\nb", "ä", "a\\b", "$(touch x)", "<b>", "x" * 201, "a:b", "dot.", "\x1b[2J"])
    (bundle / name).write_bytes(b"")


def _pipe(bundle: Path, rng: random.Random) -> None:
    os.mkfifo(bundle / f"pipe{rng.randrange(10)}")


def _unsigned(bundle: Path, rng: random.Random) -> None:
    (bundle / SIGNATURE).unlink()
    if rng.randrange(2):
        _flipped(bundle, rng)


def _wrong_key(bundle: Path, rng: random.Random) -> None:
    """Whole, changed or not, and signed by somebody else."""
    if rng.randrange(2):
        _extra(bundle, rng)
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in _paths(bundle)}
    kit.written(bundle, kit.signed(files, number=1))


def _signature_of_another(bundle: Path, rng: random.Random) -> None:
    other = kit.bundle(release=4 + rng.randrange(10))
    (bundle / SIGNATURE).write_bytes(other[SIGNATURE])


def _manifest_of_another(bundle: Path, rng: random.Random) -> None:
    """An older manifest in a newer bundle."""
    (bundle / MANIFEST).write_bytes(kit.bundle(release=1 + rng.randrange(2))[MANIFEST])


def _downgraded(bundle: Path, rng: random.Random) -> None:
    """A whole older release in its place."""
    kit.written(bundle, kit.bundle(release=1 + rng.randrange(2)))


def _expired(bundle: Path, rng: random.Random) -> None:
    kit.written(bundle, kit.bundle(not_after=f"2026-0{1 + rng.randrange(9)}-01T00:00:00Z"))


def _signed_but_untrue(bundle: Path, rng: random.Random) -> None:
    """Its maker signed a manifest that is not that of the files."""
    files = {**kit.FILES, "recipe.json": b"%d" % rng.randrange(10)}
    kit.written(bundle, kit.signed({**files, MANIFEST: kit.manifest(kit.FILES)}))


def _file_becomes_folder(bundle: Path, rng: random.Random) -> None:
    path = rng.choice([path for path in _paths(bundle) if path.name != MANIFEST])
    data = path.read_bytes()
    path.unlink()
    path.mkdir()
    (path / f"x{rng.randrange(10)}").write_bytes(data)


def _engine(bundle: Path, rng: random.Random) -> None:
    """A TensorRT engine of the maker's own machine, signed."""
    files = {**kit.FILES, "artifact/model.onnx": rng.choice([b"ftrt", b"ptrt"]) + rng.randbytes(40)}
    kit.written(bundle, kit.signed({**files, MANIFEST: kit.manifest(files)}))


CHANGES: Final[Mapping[str, tuple[Change, tuple[str, ...]]]] = {
    "flipped": (_flipped, ("tampered",)),
    "flipped signature": (_flipped_signature, ("malformed", "untrusted", "tampered")),
    "swapped": (_swapped, ("tampered",)),
    "renamed": (_renamed, ("tampered",)),
    "moved": (_moved, ("tampered",)),
    "extra file": (_extra, ("tampered",)),
    "missing file": (_missing, ("tampered",)),
    "cut": (_cut, ("tampered",)),
    "appended": (_appended, ("tampered",)),
    "linked": (_linked, ("malformed",)),
    "linked inside": (_linked_inside, ("malformed",)),
    "linked folder": (_linked_folder, ("malformed",)),
    "dangling link": (_dangling, ("malformed",)),
    "hard link": (_hard_linked, ("malformed",)),
    "empty folder": (_empty_folder, ("malformed",)),
    "case clash": (_case_clash, ("malformed",)),
    "case clash of folders": (_case_clash_of_folders, ("malformed",)),
    "git name": (_git, ("malformed",)),
    "bad name": (_bad_name, ("malformed",)),
    "pipe": (_pipe, ("malformed",)),
    "unsigned": (_unsigned, ("unsigned",)),
    "wrong key": (_wrong_key, ("untrusted",)),
    "signature of another": (_signature_of_another, ("tampered",)),
    "manifest of another": (_manifest_of_another, ("tampered",)),
    "downgraded": (_downgraded, ("downgrade",)),
    "expired": (_expired, ("expired",)),
    "signed but untrue": (_signed_but_untrue, ("tampered",)),
    "file becomes folder": (_file_becomes_folder, ("tampered",)),
    "engine": (_engine, ("malformed",)),
}


def mutation(number: int) -> tuple[str, Change, tuple[str, ...], random.Random]:
    """The name, the change, the reasons and the chance of one mutation; every kind comes in turn."""
    name = [*CHANGES][number % len(CHANGES)]
    change, reasons = CHANGES[name]
    return name, change, reasons, random.Random(f"mutation {number}")


def mutated(folder: Path, number: int, whole: Mapping[str, bytes]) -> tuple[str, Path, tuple[str, ...]]:
    """A mutated bundle below the empty ``folder``: what was done, where it lies, the reasons it may be refused for."""
    name, change, reasons, rng = mutation(number)
    bundle = kit.written(folder / "bundle", whole)
    change(bundle, rng)
    return name, bundle, reasons


def refusal(act: Callable[[], Any]) -> str:
    """The reason for which a bundle is refused; empty when it is accepted."""
    from edgedeploy.runtime.faults import BundleError

    try:
        act()
    except BundleError as exc:
        return exc.reason
    return ""
