"""uPlot 1.6.32 by Leon Sorokin (https://github.com/leeoniya/uPlot), MIT licence: curves that answer to the mouse.

Kept here as it was published, so that a served report needs no network: files of `dist` in npm's uplot-1.6.32.tgz,
whose integrity there is
sha512-KIMVnG68zvu5XXUbC4LQEPnhwOxBuLyW1AHtpm6IKTXImkbLgkMy+jabjLgSLMasNuGGzQm/ep3tOkyTxpiQIw==. For another version
replace files, number and digests alike: a test compares them.
"""

from __future__ import annotations

from importlib.resources import files

VERSION = "1.6.32"
DIGESTS = {
    "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
    "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
}
"""SHA-256 of each file."""


def text_of(name: str) -> str:
    """One of the files, to be put into a page."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
