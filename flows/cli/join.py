"""`cures join`: the part of the second and later nodes in a run over several machines."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from cures_core.errors import ConfigError, Preempted


def join(
    address: Annotated[str, typer.Argument(help="host:port of the first node: `training.address` of the run.")],
    node: Annotated[int, typer.Option(min=1, help="Number of this node: 1, 2, ...")],
    nodes: Annotated[int, typer.Option(min=2, help="Number of nodes: `training.nodes` of the run.")],
    processes: Annotated[int, typer.Option(min=1, help="Ranks here: `training.processes` of the run.")] = 1,
    device: Annotated[Literal["auto", "cpu"], typer.Option(help="`device.type` of the run.")] = "auto",
    idle: Annotated[float, typer.Option(min=0, help="End after so many seconds without an epoch.")] = 86400.0,
    start_timeout: Annotated[float, typer.Option(min=1, help="`training.start_timeout_s` of the run.")] = 600.0,
    wait_timeout: Annotated[float, typer.Option(min=1, help="`training.wait_timeout_s` of the run.")] = 1800.0,
) -> None:
    """Lend this machine to a run on another one: take part in every epoch that starts there.

    Needs the same version of this package, and the base policy under the same path or hub name.
    """
    from cures_core.config.training import RanksConfig
    from cures_core.jobs.join import join_epochs

    if node >= nodes:
        raise ConfigError(f"--node {node}: nodes are numbered from 0 to {nodes - 1}; 0 is where `cures run` runs")
    cfg = RanksConfig(
        processes=processes, nodes=nodes, address=address, start_timeout_s=start_timeout, wait_timeout_s=wait_timeout
    )
    try:
        join_epochs(cfg, node, idle, on_gpu=device != "cpu", report=lambda text: print(text, flush=True))
    except KeyboardInterrupt:
        raise Preempted(
            "stopped by Ctrl-C. An epoch that was going on fails on the first node, which tries it again from its last "
            "checkpoint: run the same command again to take part"
        ) from None
    print(f"no epoch at {address} for {idle:g} s")
