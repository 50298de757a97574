"""The fault matrix: 24 faults, each by one drill or several. What a fault is made of is in `tests.faults.drills`."""

from __future__ import annotations

from functools import partial

from cures_core.errors import ConfigError
from tests.faults.drills import commands, inputs, jobs, servers, stages, stores
from tests.faults.harness import Fault

ROWS: dict[int, str] = {
    1: "kill -9 during validation",
    2: "kill -9 during the estimation of the prior",
    3: "kill -9 during a training step",
    4: "kill -9 inside the saving of a checkpoint",
    5: "kill -9 during evaluation, snapshot and promotion",
    6: "S3 away",
    7: "S3 slow, 500, 503",
    8: "S3 403, expired token",
    9: "disk full",
    10: "a byte flipped in any committed file",
    11: "files cut, emptied or missing",
    12: "out of memory; limits of the process",
    13: "NaN or infinity in loss or gradient",
    14: "verifier hangs or dies",
    15: "SIGTERM",
    16: "the same trigger several times",
    17: "clock steps",
    18: "two workers on one run, one paused past its lease",
    19: "Prefect server restarted",
    20: "partial push of a snapshot",
    21: "prompts changed under a run",
    22: "malformed JSONL",
    23: "hostile answers",
    24: "wrong tokenizer, template or weights on resume",
}

SAME = "the same bytes as the undisturbed run"

MATRIX: tuple[Fault, ...] = (
    Fault(
        "kill_command",
        (1, 2, 3, 5),
        "SIGKILL at random instants, one to three times: the command, all its processes, or its job",
        f"{SAME}; no process and no leftover",
        "command",
        commands.kill_command,
        200,
    ),
    Fault(
        "kill_validation",
        (1,),
        "SIGKILL at a random instant inside validation",
        f"{SAME}; no process and no leftover",
        "part",
        partial(stages.kill_in, names=stages.VALIDATION),
        100,
    ),
    Fault(
        "kill_snapshot",
        (5,),
        "SIGKILL at a random instant inside the snapshot of a posterior",
        f"{SAME}, one tag each; no process and no leftover",
        "part",
        partial(stages.kill_in, names=stages.SNAPSHOTS),
        100,
    ),
    Fault(
        "kill_promotion",
        (5,),
        "SIGKILL at a random instant inside promotion",
        f"{SAME}, the model's pointer moved once; no process and no leftover",
        "part",
        partial(stages.kill_in, names=stages.PROMOTION),
        100,
    ),
    Fault(
        "kill_job",
        (2, 3, 5),
        "SIGKILL at random instants to the jobs that warm start, prior, epoch and evaluation run in",
        f"a retryable error; {SAME}",
        "job",
        jobs.kill_job,
        200,
    ),
    Fault(
        "stop_in_epoch",
        (3, 15),
        "stopped two to five times in a row inside a job, its last step included",
        SAME,
        "part",
        jobs.stop_here,
        200,
    ),
    Fault(
        "kill_save",
        (4,),
        "SIGKILL at boundaries of saving (half written, before manifest, before rename)",
        f"the old or the new checkpoint, never half; {SAME}",
        "job",
        jobs.kill_save,
        50,
    ),
    Fault(
        "s3_command",
        (6, 7),
        "503, 500, lost, cut and slow answers to a whole run, and its machine killed",
        f"another machine with an empty disk: {SAME}",
        "command",
        commands.s3_command,
    ),
    Fault(
        "s3_weather",
        (6, 7),
        "503, 500, 429, lost, cut and slow answers while a stage is published",
        "published in the end, or told as an outage; a reader finds it whole or not at all",
        "part",
        stores.s3_weather,
        200,
    ),
    Fault(
        "s3_refuses",
        (8,),
        "403 or an expired token from a random request on",
        "told within 10 s without repeating, without a secret",
        "part",
        stores.s3_refuses,
        100,
    ),
    Fault(
        "full_disk",
        (9,),
        "a disk that is full somewhere in the run",
        f"an error that says so; with room: {SAME}",
        "command",
        commands.full_disk,
    ),
    Fault(
        "full_disk_in_stage",
        (9,),
        "a disk that becomes full inside validation, a snapshot or promotion",
        f"an error that says so, or nothing more was to be written; with room: {SAME}",
        "part",
        stages.full_disk_in,
        100,
    ),
    Fault(
        "damage_store",
        (10, 11),
        "one file of a whole run's store flipped, cut or removed, every kind of file",
        "named by `cures runs verify` with a remedy; readers change nothing",
        "part",
        commands.damage_store,
        1000,
    ),
    Fault(
        "damage_values",
        (10, 11),
        "the same in a small store with two versions of a model",
        "named by `cures runs verify` with a remedy; readers change nothing",
        "part",
        stores.damage_small,
        1000,
    ),
    Fault(
        "damage_unfinished",
        (10, 11),
        "a file of unfinished work (in-epoch checkpoints, chunks, rows) flipped, cut or "
        "removed between stop and resume",
        f"told, or made again: {SAME}",
        "part",
        jobs.damage_unfinished,
        1000,
    ),
    Fault(
        "limits",
        (12,),
        "limits of memory, descriptors or file size put on a job",
        f"an error that says so; without the limit: {SAME}",
        "job",
        jobs.limits,
        50,
    ),
    Fault(
        "not_finite",
        (13,),
        "NaN or infinity in the loss or a gradient of a step, or of all from it on",
        "no update, counted, all saved weights finite; diverged where it lasts",
        "part",
        jobs.not_finite,
        200,
    ),
    Fault(
        "verifier_ends",
        (14,),
        "a comparison that hangs, or whose process is killed",
        "unknown in time; the next ones judged right; no process left",
        "part",
        inputs.verifier_ends,
        100,
    ),
    Fault(
        "stop_job",
        (15,),
        "SIGTERM at random instants to a job",
        f"saved, a retryable error; {SAME}",
        "job",
        jobs.stop_job,
        100,
    ),
    Fault(
        "stop_command",
        (15,),
        "SIGTERM or Ctrl-C at random instants to the command, once or twice",
        f"exit code 75 within 45 s; {SAME}",
        "command",
        commands.stop_command,
    ),
    Fault(
        "duplicate_starts",
        (16,),
        "the same command three times at once",
        f"one works, the others are told who holds the run; {SAME}",
        "command",
        commands.duplicate_starts,
    ),
    Fault(
        "duplicate_events", (16,), "ten equal events to a Prefect server", "one run", "stack", servers.duplicate_events
    ),
    Fault(
        "clock_steps",
        (17,),
        "clocks of machines jump by up to an hour between any two operations of three workers",
        "no double commit",
        "part",
        stores.clock_steps,
        1000,
    ),
    Fault(
        "schedule",
        (18,),
        "three workers on one run, stopped and killed between any two operations",
        "no double commit; a model's pointer only by who holds the run",
        "part",
        stores.schedule,
        1000,
    ),
    Fault(
        "two_workers",
        (18,),
        "two processes; one is killed or stopped past its lease before a random operation",
        "one commit",
        "job",
        stores.two_workers,
        100,
    ),
    Fault(
        "side_by_side",
        (18,),
        "two runs that share stages on one store, one of them perhaps killed",
        f"what is shared is made once; each: {SAME}",
        "command",
        commands.side_by_side,
    ),
    Fault(
        "server_restarted",
        (19,),
        "the Prefect server is killed at a random instant and comes back",
        f"the run goes on, once; {SAME}",
        "stack",
        servers.server_restarted,
    ),
    Fault(
        "machine_lost",
        (3, 19),
        "worker, flow and job of a deployed run killed at once at a random instant, then Retry on a new worker",
        f"shown as crashed; {SAME}",
        "stack",
        servers.machine_lost,
    ),
    Fault(
        "partial_push",
        (20,),
        "SIGKILL at a random instant of a snapshot's publication",
        "the tag is there with its data, or not at all",
        "part",
        stores.partial_push,
        100,
    ),
    Fault(
        "changed_inputs",
        (21, 24),
        "prompts edited, or another tokenizer, template or weights under a run",
        "refused with both digests; another run by the same command",
        "part",
        inputs.changed_inputs,
        200,
    ),
    Fault(
        "migrated_posterior",
        (21,),
        "prompts edited, appended, removed, reordered before the next run",
        "counts follow the content; removed ones are archived, and come back",
        "part",
        inputs.migrated_posterior,
        500,
    ),
    Fault(
        "malformed_rows",
        (22,),
        "broken rows of fourteen kinds among good ones",
        "each told with line and reason; every good one read",
        "part",
        inputs.malformed_rows,
        500,
    ),
    Fault(
        "random_bytes",
        (22,),
        "prompt files with bytes flipped, cut and inserted anywhere",
        "rows, or an error that names the file",
        "part",
        inputs.random_bytes,
        1000,
    ),
    Fault(
        "hostile_answers",
        (23,),
        "ten answers made to stall, crash, fool or break into a verifier",
        "two seconds each, none right, no code run, good ones judged right after them",
        "part",
        inputs.hostile_answers,
        100,
    ),
)


def chosen(names: str, number: int) -> list[tuple[Fault, int]]:
    """Faults with how often each is to be tried, by a comma-separated list of names, rows (`10`) and forms (`part`),
    each with a number of its own if wanted (`part=3`); all of them if it is empty. Raises `ConfigError`."""
    found: list[tuple[Fault, int]] = []
    for word in names.split(",") if names else [fault.name for fault in MATRIX]:
        name, _, own = word.partition("=")
        those = [fault for fault in MATRIX if _is(fault, name)]
        if not those or (own and not own.isdigit()):
            known = ", ".join(fault.name for fault in MATRIX)
            raise ConfigError(f"{word}: use names ({known}), rows or forms, with =NUMBER if wanted")
        found += [(fault, int(own or number)) for fault in those]
    return found


def _is(fault: Fault, word: str) -> bool:
    return word in (fault.name, fault.form) or (word.isdigit() and int(word) in fault.rows)
