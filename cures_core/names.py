"""The one door for names that come from outside: what passes cannot leave the folder, store or repository it is for.

Object keys, members of archives, files that a manifest or a saved dataset lists, run, suite and model names, tags and
revisions: whoever joins one to a path, or gives one to git, asks here first.
"""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

from cures_core.errors import ConfigError, CuresError
from cures_core.secrets import masked

MAX_PART_BYTES = 255
"""Longest part of a path that common file systems take, in bytes of UTF-8."""
MAX_BYTES = 1024
"""Longest name of an object on S3, in bytes of UTF-8."""

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_FILE = re.compile(
    r"(?!\.\.?(/|$))[A-Za-z0-9_.][A-Za-z0-9_.+=@ \-]*(/(?!\.\.?(/|$))[A-Za-z0-9_.][A-Za-z0-9_.+=@ \-]*)*"
)
_TAG = re.compile(r"posterior/[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NOT_IN_REVISIONS = re.compile(r"[\s:?*\[\\]")


def inside(folder: Path, name: str, place: str, error: type[CuresError] = ConfigError) -> Path:
    """The path of `name` below `folder`. `place`: where the name was read, for the message.

    Raises `error` for a name that is no relative path: empty, absolute, with an empty part, `.`, `..`, a backslash, a
    control character, or longer than a file system or S3 takes.
    """
    if (fault := _path_fault(name)) is not None:
        raise error(f"{place}: holds the name {_shown(name)}, which {fault}; rename it there")
    return folder / name


def check_part(name: str, place: str, error: type[CuresError] = ConfigError) -> str:
    """`name`, where it is one part of a path: as for `inside`, and without a slash. Raises `error`."""
    fault = "holds a slash" if "/" in name else _path_fault(name)
    if fault is not None:
        raise error(f"{place}: the name {_shown(name)} {fault}")
    return name


def check_key(key: str) -> str:
    """Keys of a store are relative, portable paths. Raises `ConfigError`."""
    if not _KEY.fullmatch(key) or len(key) > 512 or _path_fault(key):
        raise ConfigError(f"store key {_shown(key)}: use letters, digits, '.', '_', '-' and single '/' between them")
    return key


def check_file_name(name: str) -> str:
    """Names inside a published folder: as keys, but hidden files and a few more characters may occur."""
    if not _FILE.fullmatch(name) or len(name) > 512 or _path_fault(name):
        raise ConfigError(
            f"file name {_shown(name)}: use letters, digits, space and ._-+=@, with single '/' between them"
        )
    return name


def check_tag(tag: str) -> str:
    """Tags of snapshots are `posterior/<run>/<k>`. Raises `ConfigError`."""
    if not _TAG.fullmatch(tag) or ".." in tag or any(part.endswith((".", ".lock")) for part in tag.split("/")):
        raise ConfigError(f"tag {_shown(tag)}: use posterior/RUN/NUMBER, of letters, digits, '.', '_' and '-'")
    return tag


def check_revision(revision: str) -> str:
    """Names one commit for git, and is no option, range, path or pattern. Raises `ConfigError`."""
    odd = _NOT_IN_REVISIONS.search(revision) or unprintable(revision)
    if not revision or revision.startswith("-") or ".." in revision or odd or len(revision) > MAX_PART_BYTES:
        raise ConfigError(f"{_shown(revision)}: name a branch, tag or commit")
    return revision


def _path_fault(name: str) -> str | None:
    """Why `name` is no relative path; None where it is one."""
    if not name:
        return "is empty"
    if unprintable(name):
        return "holds a character that cannot be printed"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is absolute"
    parts = name.split("/")
    if "" in parts:
        return "has an empty part"
    if "." in parts or ".." in parts:
        return 'has a part "." or ".."'
    return "is too long" if too_long(name) else None


def too_long(name: str) -> bool:
    """Longer, or with a longer part, than a file system or S3 takes. Not for lone surrogates (`unprintable`)."""
    return len(name.encode()) > MAX_BYTES or max(len(part.encode()) for part in name.split("/")) > MAX_PART_BYTES


def unprintable(name: str) -> bool:
    """Control characters (NUL among them), line ends of all kinds, and lone surrogates."""
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def _shown(name: str) -> str:
    return ascii(masked(name)[:80])
