"""A lab's folder: it belongs to one lab, and keeps the journal, what is frozen of entries, and each night's results.

lab.json          whose folder it is          journal.sqlite   the journal, unless [lab] storage names a server
frozen/           what entries are held against                night-DATE.json and pages of nights
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgedeploy.errors import EdgeDeployError, SpecError
from edgedeploy.files import disk_told, parsed, read_plain, write_json
from edgedeploy.nightly.holder import Holder
from edgedeploy.nightly.journal import JOURNAL_FILE, Journal
from edgedeploy.search.history import Server, server_at
from edgedeploy.spec.lab import LabSpec, load_lab
from edgedeploy.spec.public import hide_in, private_words, secret_words
from edgedeploy.spec.source import SpecSource

MARKER: Final = "lab.json"
FORMAT: Final = "edgedeploy-lab"
VERSION: Final = 1
FROZEN: Final = "frozen"


@dataclass(frozen=True)
class Lab:
    """A lab file that was read. Constructing it touches nothing but that file."""

    spec: LabSpec
    source: SpecSource

    @classmethod
    def load(cls, path: Path) -> Lab:
        """Raises ``SpecError``."""
        return cls(*load_lab(path))

    @property
    def base(self) -> Path:
        """The folder of the lab file, which its paths are relative to."""
        return self.source.path.resolve().parent

    @property
    def out(self) -> Path:
        return self.base / self.spec.lab.out

    @property
    def frozen(self) -> Path:
        return self.out / FROZEN

    @property
    def private(self) -> tuple[str, ...]:
        """Words of the lab file that get into no log."""
        return private_words(tomllib.loads(self.source.text))

    @property
    def secret(self) -> tuple[str, ...]:
        """Words of it that get into no message either."""
        return secret_words(tomllib.loads(self.source.text))

    @contextmanager
    def secrets_kept(self) -> Iterator[None]:
        """No error that is raised inside tells them."""
        try:
            yield
        except EdgeDeployError as exc:
            hide_in(exc, self.secret)
            raise

    @property
    def storage(self) -> Path | Server:
        """Raises ``SpecError`` for a URL that cannot be used."""
        url = self.spec.lab.storage
        if url is None:
            return self.out / JOURNAL_FILE
        try:
            return server_at(url, self.spec.lab.name)
        except SpecError as exc:
            raise self.source.error("lab.storage", exc.found, exc.remedy) from None

    def check_owner(self) -> bool:
        """Whether the folder is this lab's already. Raises ``SpecError`` for one that is another's, or nobody's but not
        empty."""
        path = self.out / MARKER
        try:
            found = parsed(read_plain(path))
        except FileNotFoundError:
            there = self.out.exists() or self.out.is_symlink()  # a link that leads nowhere is no folder either
            if there and (not self.out.is_dir() or any(self.out.iterdir())):
                raise self._refused("it holds something else") from None
            return False
        except (OSError, ValueError, RecursionError) as exc:
            raise self._refused(f"its {MARKER} cannot be read ({exc})") from None
        if found.get("format") != FORMAT:
            raise self._refused(f"its {MARKER} is no {FORMAT}")
        if found.get("version") != VERSION:
            raise self._refused(f"it is of version {str(found.get('version'))[:20]}, and this release knows {VERSION}")
        if found.get("name") != self.spec.lab.name:
            raise self._refused(f"it belongs to the lab {str(found.get('name'))[:80]!r}")
        return True

    def open(self, holder: Holder | None = None) -> Journal:
        """The journal, made with the folder where there is none. Raises ``SpecError`` for a folder of somebody else,
        ``StorageError`` for a disk or a database that cannot be used."""
        storage = self.storage
        if not self.check_owner():
            with disk_told(self.out):
                self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.out / MARKER, {"format": FORMAT, "version": VERSION, "name": self.spec.lab.name})
        return Journal(storage, self.spec.lab.name, holder or Holder.this()).open()

    def look(self) -> Journal | None:
        """The journal as it is, None where there is none yet: nothing is written."""
        storage = self.storage
        if not self.check_owner() or (isinstance(storage, Path) and not storage.exists()):
            return None
        return Journal(storage, self.spec.lab.name, Holder.this(), read_only=True).open()

    def _refused(self, found: str) -> SpecError:
        return self.source.error("lab.out", f"{self.out}: {found}", "Give this lab a folder of its own")
