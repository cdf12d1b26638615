"""What to do about a board's runtime that cannot be imported, by what it died of."""

from __future__ import annotations

import re
from typing import Final

_NAMED: Final = re.compile(r"(?:importing|imported) ([\w.-]+)")
_LIBRARY: Final = re.compile(r"([\w./+-]+\.so[\w.]*): cannot allocate memory in static TLS")

_REMEDIES: Final = (
    (
        re.compile(r"SIGILL"),
        "It uses an instruction that this processor lacks (`edgedeploy boards` shows its flags): install a build of {name} "
        "for this processor, or an older release",
    ),
    (
        re.compile(r"static TLS block"),
        "Load the library first: in the board's table name a script as python, with the lines `#!/bin/sh` and "
        '`LD_PRELOAD={library} exec python3 "$@"`',
    ),
    (
        re.compile(r"GLIBC|version `"),
        "Its C library is older than {name} wants: install a release of {name} that was built for it (pip does so by itself "
        "when it is new enough), or a newer system",
    ),
    (
        re.compile(r"cannot open shared object"),
        "Install the library that is named on the board, or install {name} from another source",
    ),
    (
        re.compile(
            r"(?i)undefined symbol|binary incompatib|dtype size changed|compiled (against|using)|_ARRAY_API|multiarray"
        ),
        "{name} and numpy there were not built for each other: install releases that were, as in "
        "`pip install --force-reinstall {name} numpy`",
    ),
    (
        re.compile(r"ELF|SIG|exit status|was ended|failed to map"),
        "Its installation is damaged or not for this machine: `python3 -X faulthandler -c 'import ...'` on the board says "
        "where it ends; then install {name} anew",
    ),
)
_ANY: Final = "Import it on the board by hand, with the Python that the board's table names, and mend what it says"


def remedy_for(message: str) -> str:
    """The remedy for an agent's ``runtime_broken``, whose ``message`` names the package."""
    named, library = _NAMED.search(message), _LIBRARY.search(message)
    name = named[1] if named else "the runtime"
    for pattern, remedy in _REMEDIES:
        if pattern.search(message):
            return remedy.format(name=name, library=library[1] if library else "/path/to/the/library.so")
    return _ANY
