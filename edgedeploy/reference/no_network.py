"""Takes the network from a process before it looks at a stranger's file. It imports nothing of the project.

A filter of the kernel (seccomp) that refuses new sockets needs no rights and outlives ``exec``. Files, pipes and
what is open already stay as they are.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Final

_SOCKET_CALLS: Final = {"x86_64": (0xC000003E, (41, 53)), "aarch64": (0xC00000B7, (198, 199))}
"""Machine -> the kernel's name of it, and its numbers of ``socket`` and ``socketpair``."""

_X32_BIT: Final = 0x40000000
"""On x86-64 the same calls have a second number, with this bit."""

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _FILTER = 22, 38, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF: load a word, compare, return
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050000 | errno.EACCES, 0x80000000
_NUMBER_AT, _MACHINE_AT = 0, 4  # in struct seccomp_data


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter() -> bytes | None:
    """The filter for this machine; None for one that is not listed."""
    machine, numbers = _SOCKET_CALLS.get(platform.machine(), (0, ()))
    if not machine:
        return None
    steps = [
        (_LOAD, 0, 0, _MACHINE_AT),
        (_EQUAL, 1, 0, machine),
        (_RETURN, 0, 0, _KILL),  # a program of another machine would have other numbers
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32_BIT),
        (_RETURN, 0, 0, _KILL),
    ]
    for number in numbers:
        steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _REFUSE)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *step) for step in steps)


_FILTER_BYTES: Final = _filter()
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


def leave_network() -> bool:
    """Refuse new sockets to this process and its children from now on. False where the kernel or the machine cannot do
    it: the process then goes on with its other limits. Safe between ``fork`` and ``exec``: it imports and opens nothing."""
    if _FILTER_BYTES is None:
        return False
    held = ctypes.create_string_buffer(_FILTER_BYTES, len(_FILTER_BYTES))
    program = _Program(len(_FILTER_BYTES) // 8, ctypes.addressof(held))
    if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    return bool(_LIBC.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(program), 0, 0) == 0)
