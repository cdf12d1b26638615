"""Which names a bundle's files may have.

A bundle goes through archives, file systems that know no upper case, and the signing of models, whose specification leaves
out names that belong to git. None of these may make two names one, or one file nobody's, so the rules are narrow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from edgedeploy.runtime.faults import BundleError

MANIFEST = "bundle.json"
SIGNATURE = "model.sig"

MOST_NAME_CHARACTERS = 200
MOST_FILES = 4096
MOST_FILE_BYTES = 2 << 30
MOST_BUNDLE_BYTES = 4 << 30

_PART = re.compile(r"[A-Za-z0-9._-]+")


def check_name(name: str) -> None:
    """Raises ``malformed`` unless ``name`` is a relative POSIX path of ASCII letters, digits and ``._-``, within
    :data:`MOST_NAME_CHARACTERS`, without a part that is ``.`` or ``..``, ends in a dot or begins with ``.git``."""
    if len(name) > MOST_NAME_CHARACTERS:
        raise _refused(name, f"{len(name)} characters, at most {MOST_NAME_CHARACTERS} are allowed")
    if name.startswith("/"):
        raise _refused(name, "it is an absolute path")
    for part in name.split("/"):
        if part in (".", ".."):
            raise _refused(name, f"the part {part!r} leads elsewhere")
        if not _PART.fullmatch(part):
            raise _refused(name, "only ASCII letters, digits and ._- are allowed between single slashes")
        if part.endswith("."):
            raise _refused(name, "some file systems drop a dot at the end")
        if part.lower().startswith(".git"):
            raise _refused(name, "names that begin with .git are left out when models are signed")


def check_names(names: Iterable[str]) -> None:
    """Raises ``malformed`` for a name that :func:`check_name` refuses, for more than :data:`MOST_FILES`, and for two that
    are one where upper and lower case are, or of which one is the other's folder."""
    spelled: dict[str, str] = {}
    files: set[str] = set()
    for count, name in enumerate(names, start=1):
        if count > MOST_FILES:
            raise BundleError("malformed", f"it has more than {MOST_FILES} files")
        check_name(name)
        for path in (name, *_folders(name)):
            if spelled.setdefault(path.lower(), path) != path:
                raise _refused(name, f"{spelled[path.lower()]!r} differs from it in upper and lower case only")
        if name in files:
            raise _refused(name, "it is there twice")
        files.add(name)
    for name in files:
        for folder in _folders(name):
            if folder in files:
                raise _refused(folder, "it is a file and a folder")


def _folders(name: str) -> Iterator[str]:
    """``a`` and ``a/b`` of ``a/b/c``."""
    at = name.find("/")
    while at >= 0:
        yield name[:at]
        at = name.find("/", at + 1)


def _refused(name: str, found: str) -> BundleError:
    return BundleError("malformed", f"file name {name[:MOST_NAME_CHARACTERS]!r}: {found}")
