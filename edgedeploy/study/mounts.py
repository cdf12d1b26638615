"""Which file system a path is on, as the kernel's mount table says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")

_NETWORK: Final = """
9p afs beegfs ceph cifs coda gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 pvfs2 smb3 smbfs
fuse.ceph fuse.cifs fuse.glusterfs fuse.gvfsd-fuse fuse.rclone fuse.s3fs fuse.smbnetfs fuse.sshfs
"""


def network_file_system(path: Path, mounts: Path = MOUNTS) -> str | None:
    """The type and source of the network file system that ``path`` (which need not exist) lies on; None on any other.

    A network file system at ``/`` does not count: the machine is diskless or a sandbox, and has no better place.
    """
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    place = path.resolve()
    best: tuple[str, str, str] | None = None
    for line in table.splitlines():
        source, point, kind, *_ = (*(_plain(field) for field in line.split(" ")), "", "", "")
        if place.is_relative_to(point or "/nowhere") and (best is None or len(point) >= len(best[1])):
            best = source, point, kind  # of two mounts on one point the later one is seen
    if best is None or best[1] == "/" or best[2] not in _NETWORK.split():
        return None
    return f"{best[2]}, {best[0]}"


def _plain(field: str) -> str:
    """``field`` with its octal escapes decoded, which the table uses for blanks in names."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)
