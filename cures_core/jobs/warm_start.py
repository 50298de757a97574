"""Job: make the small policy."""

from __future__ import annotations

from cures_core.config.policy import WarmStartPolicy, dtype_of
from cures_core.errors import ConfigError
from cures_core.events import PartDone
from cures_core.faults import fault_point
from cures_core.files import canonical_json, write_atomic
from cures_core.jobs.parent import Parent
from cures_core.jobs.spec import Job
from cures_core.machine import machine_of
from cures_core.policy.loading import device_of
from cures_core.policy.warm_start import warm_start


def run(job: Job, parent: Parent) -> None:
    """Write `policy/` (Hugging Face format) and `figures.json` to `job.out`."""
    cfg = job.config.policy
    if not isinstance(cfg, WarmStartPolicy):
        raise ConfigError("a warm start needs policy.type = 'warm-start'")

    def on_step(step: int, loss: float) -> None:
        fault_point("warm_start.step", str(step))
        if step % 10 == 0:
            parent.emit(PartDone(part="warm_start", done=step, total=cfg.steps))
        if step % cfg.checkpoint_every == 1:
            parent.stop_if_asked(f"the warm start's last checkpoint before step {step}")

    figures = warm_start(cfg, job.config.device, job.scratch, job.out / "policy", on_step)
    machine = machine_of(device_of(job.config.device), dtype_of(cfg))
    write_atomic(job.out / "figures.json", canonical_json({**figures, "machine": machine}))
