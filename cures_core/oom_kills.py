"""How often the kernel has killed processes for lack of memory: what tells such a SIGKILL from anybody else's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def oom_kills(root: Path = Path("/")) -> int:
    """Kills in this process's control group, or on the whole machine where groups do not count; 0 where nothing does.

    Compare two readings around a child's life: children belong to the group of their parent. `root` is for tests.
    """
    for path in _counters(root):
        try:
            counts = dict(line.split() for line in path.read_text().splitlines())
            return int(counts["oom_kill"])
        except (OSError, KeyError, ValueError):
            continue
    return 0


def _counters(root: Path) -> Iterator[Path]:
    """Where the kernel may count, the closest first: the group under cgroup v2 and v1, the group as a container sees
    it (whose own path is not the one it is told), the machine."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        inner = path.strip("/")
        if not controllers:
            yield groups / inner / "memory.events"
        elif "memory" in controllers.split(","):
            yield groups / "memory" / inner / "memory.oom_control"
    yield groups / "memory.events"
    yield groups / "memory/memory.oom_control"
    yield root / "proc/vmstat"
