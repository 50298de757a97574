"""What the kernel takes from a process before it runs a program that nobody trusts. It cannot be given back.

Three things, none of which needs root or a tool: limits (memory, processor time, what it writes), a filter of system
calls (no network, processes, signals, writing of files; `syscalls`), and Landlock, which leaves of the file system only
Python's own library to read. Landlock is in Linux since 5.13, where it is switched on; it works in containers too.

References: seccomp(2), landlock(7), and include/uapi/linux/{seccomp,landlock,filter,audit,prctl}.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import struct
import sys
from typing import TYPE_CHECKING

from cures_core.rewards.sandbox.syscalls import ALLOWED, GUARDED

if TYPE_CHECKING:
    from collections.abc import Sequence

STACK_BYTES = 64 << 20
"""Stack of a program, for recursion."""
_OPEN_FILES = 32

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 1, 38, 22, 2
_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
"""Landlock version -> how many rights of files it knows; 16 from version 5 on."""
_NO_TCP, _NO_SIGNALS_NOR_ABSTRACT_SOCKETS = 0b11, 0b11

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_X32 = 0x40000000
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CLONE_THREAD = 0x00010000
_SIGNALLING = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: a file of one's own could be made to signal any process of the account."""
_HARMLESS_CONTROLS = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
"""TCGETS (isatty), TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_NR, _ARCH, _ARGUMENTS = 0, 4, 16
"""Offsets in the kernel's seccomp_data; arguments are 8 bytes each, the low half first."""

_libc = ctypes.CDLL(None, use_errno=True)


class Limits:
    """What a program may take: address space (MiB), processor seconds, bytes that it writes to one stream.

    No dataclass: every program waits for what this module imports.
    """

    def __init__(self, memory_mb: int, cpu_s: int, output_bytes: int) -> None:
        self.memory_mb, self.cpu_s, self.output_bytes = memory_mb, cpu_s, output_bytes


def landlock_version() -> int:
    """The kernel's version of Landlock, 0 where it has none or it is switched off."""
    return max(0, int(_libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION)))


def why_not() -> str:
    """Why programs cannot be confined here; nothing where they can."""
    if sys.platform != "linux" or os.uname().machine not in ALLOWED:
        return f"{sys.platform} on {os.uname().machine} is not supported, Linux on x86_64 and aarch64 is"
    if landlock_version() == 0:
        return "the kernel has no Landlock, or it is switched off (Linux 5.13; kernel option lsm=landlock,...)"
    return ""


def confine(limits: Limits, files: bool = True, readable: Sequence[str] = ()) -> None:
    """Confine this process for good. `readable`: what it may read beside `library_folders`.

    `files` False leaves out Landlock: then it reads what this account reads.

    Raises OSError where the kernel refuses.
    """
    die_with_parent()
    _limit(limits)
    _drop_capabilities()
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    if files:
        _restrict_files([*library_folders(), *readable])
    _filter_system_calls()


def library_folders() -> list[str]:
    """Python's standard library and the system's shared ones: all that a program may read."""
    shared = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
    wanted = (os.__file__.rpartition("/")[0], f"{sys.base_prefix}/lib", *shared)
    return sorted({os.path.realpath(path) for path in wanted if os.path.isdir(path)})  # noqa: PTH112


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as the thread that has started it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))


def _limit(limits: Limits) -> None:
    memory = limits.memory_mb << 20
    for which, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(which, (value, value))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))  # SIGXCPU, then SIGKILL
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    stack = STACK_BYTES if hard == resource.RLIM_INFINITY else min(STACK_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_STACK, (stack, hard))


def _drop_capabilities() -> None:
    """What root may do beyond other accounts, such as raising its limits again."""
    header = struct.pack("=Ii", 0x20080522, 0)
    _check(_libc.capset(header, bytes(24)))


def _restrict_files(readable: Sequence[str]) -> None:
    version = landlock_version()
    rights = (1 << _FILE_RIGHTS.get(version, 16)) - 1
    fields = [
        rights,
        *([_NO_TCP] if version >= 4 else []),
        *([_NO_SIGNALS_NOR_ABSTRACT_SOCKETS] if version >= 6 else []),
    ]
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    rules = _check(_libc.syscall(_LANDLOCK_CREATE, attributes, len(attributes), 0))
    for path in readable:
        if not os.path.exists(path):  # noqa: PTH110
            continue
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _check(
            _libc.syscall(_LANDLOCK_ADD, rules, _PATH_BENEATH, struct.pack("=Qi", _READ_FILE | _READ_DIR, folder), 0)
        )
        os.close(folder)
    _check(_libc.syscall(_LANDLOCK_RESTRICT, rules, 0))
    os.close(rules)


class _FilterProgram(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_system_calls() -> None:
    code = system_call_filter(os.uname().machine)
    program = _FilterProgram(len(code) // 8, code)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0))


def system_call_filter(machine: str) -> bytes:
    """The filter as classic BPF: what is allowed passes, what is guarded if its arguments do, all else gets EPERM."""
    guarded, refused = GUARDED[machine], _refusal(errno.EPERM)
    code = [
        _step(_LOAD, _ARCH),
        _step(_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _step(_RETURN, _KILL),
        _step(_LOAD, _NR),
        _step(_AT_LEAST, _X32, 0, 1),
        _step(_RETURN, _KILL),
        _step(_EQUAL, guarded["clone3"], 0, 1),
        _step(_RETURN, _refusal(errno.ENOSYS)),  # libc then takes clone
        *_guard(guarded["clone"], 0, _ANY_BIT, [_CLONE_THREAD], if_so=_ALLOW, else_=refused),
        *_guard(guarded["prlimit64"], 0, _EQUAL, [0], if_so=_ALLOW, else_=refused),
        *_guard(guarded["fcntl"], 1, _EQUAL, _SIGNALLING, if_so=refused, else_=_ALLOW),
        *_guard(guarded["ioctl"], 1, _EQUAL, _HARMLESS_CONTROLS, if_so=_ALLOW, else_=refused),
    ]
    for name, argument in (("open", 1), ("openat", 2)):
        if name in guarded:
            code += _guard(guarded[name], argument, _ANY_BIT, [_WRITES], if_so=refused, else_=_ALLOW)
    numbers = sorted(ALLOWED[machine].values())
    code += [_step(_EQUAL, number, len(numbers) - i, 0) for i, number in enumerate(numbers)]
    code += [_step(_RETURN, refused), _step(_RETURN, _ALLOW)]
    return b"".join(code)


def _guard(number: int, argument: int, test: int, values: Sequence[int], *, if_so: int, else_: int) -> list[bytes]:
    """For one system call: what is returned where the low half of an argument passes the test with any of `values`, and
    where it does not. Other calls go on behind it."""
    n = len(values)
    return [
        _step(_EQUAL, number, 0, n + 3),
        _step(_LOAD, _ARGUMENTS + 8 * argument),
        *[_step(test, value, n - i, 0) for i, value in enumerate(values)],
        _step(_RETURN, else_),
        _step(_RETURN, if_so),
    ]


def _step(operation: int, value: int, if_so: int = 0, else_: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, if_so, else_, value)


def _refusal(number: int) -> int:
    return _ERRNO | number


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"the kernel refuses to confine this process: {os.strerror(number)}")
    return result
