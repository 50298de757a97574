"""The built-in prompt sets under data/: made again where they are missing, and checked against data.dvc."""

from __future__ import annotations

from pathlib import Path

from cures_core.builtin import chains, sums
from cures_core.errors import CorruptArtifact

_SETS = {"chains": chains.write_builtin, "sums": sums.write_builtin}


def ensure_builtin(path: Path) -> None:
    """Make data/ if `path` is one of its files and is missing; `CorruptArtifact` if it is not what data.dvc names."""
    if path.exists() or path.parent.parent != Path("data") or path.parent.name not in _SETS:
        return
    for name, write in _SETS.items():
        if not Path("data", name).exists():
            write(Path("data", name))
    if Path("data.dvc").exists() and Path(".dvc").is_dir() and not _as_tracked("data.dvc"):
        raise CorruptArtifact(
            "data/: the sets there are not those that data.dvc names. Restore them with `dvc pull`, remove data/ to "
            "have them made again, or track what is there with `dvc add data`"
        )


def _as_tracked(tracker: str) -> bool:
    """Do the digests agree? (`dvc status` would only say that a fresh clone's cache is empty.)"""
    from dvc.repo import Repo

    with Repo() as repo:
        (stage,) = repo.stage.collect(tracker)
        return not any(out.changed_checksum() for out in stage.outs)
