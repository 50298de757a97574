"""Causes of failure, each made to happen in earnest inside of a job's process. Imports are the drills' own."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cures_core.jobs.parent import Parent
    from cures_core.jobs.spec import Job

_PAGE = os.sysconf("SC_PAGE_SIZE")


def run(job: Job, parent: Parent, _: object = None) -> None:
    globals()[job.scratch.parent.name](job, parent)


@contextlib.contextmanager
def _limited(kind: int, soft: int) -> Iterator[None]:
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (soft, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def _little_memory(mib: int) -> contextlib.AbstractContextManager[None]:
    """So much more address space than is in use."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
    return _limited(resource.RLIMIT_AS, used + (mib << 20))


def quotes_secrets(_: Job, __: Parent) -> None:
    """As a client does that shows the request which a server refused: in its log, and in what it raises."""
    import logging

    held = {name: os.environ[name] for name in os.environ["QUOTED"].split()}
    for name, value in held.items():
        logging.getLogger("client").warning("sent %s: %s", name, value)
    try:
        raise PermissionError(f"refused: {held}")
    except PermissionError as error:
        raise RuntimeError(f"no answer to {list(held.values())}") from error


# What is raised on purpose.


def bad_setting(job: Job, _: Parent) -> None:
    from cures_core.config.loading import load_config

    profile = job.scratch / "bad.toml"
    profile.write_text('name = "x"\nseed = -1\n')
    load_config(profile)


def garbage_prompts(job: Job, _: Parent) -> None:
    from cures_core.prompts.columnar import parquet_names

    (job.scratch / "set.parquet").write_bytes(b"not Parquet")
    parquet_names([job.scratch / "set.parquet"])


def no_prompts(job: Job, _: Parent) -> None:
    from cures_core.prompts import PromptSet

    PromptSet.read_parquet(job.scratch / "none.parquet")


def no_package(_: Job, __: Parent) -> None:
    from cures_core.prompts.language import other_language

    sys.modules["py3langid.langid"] = None  # type: ignore[assignment]
    other_language("What is the sum of seven and five, and why is it so large?" * 4, "en")


def no_slice(_: Job, __: Parent) -> None:
    sys.path.clear()
    import peft  # noqa: F401


def damaged_bytes(job: Job, _: Parent) -> None:
    from cures_core.prompts import PromptSet

    (job.scratch / "set.parquet").write_bytes(b"not Parquet")
    PromptSet.read_parquet(job.scratch / "set.parquet")


def told_twice(_: Job, __: Parent) -> None:
    from cures_core.config.curriculum import UniformConfig
    from cures_core.curriculum import Posterior, make_curriculum
    from cures_core.prompts import PromptSet
    from cures_core.terms import Prompt

    prompts = PromptSet.of([Prompt(f"{i:032x}", f"{i}+1", str(i + 1)) for i in range(4)])
    config = UniformConfig(prompts_per_step=2, rollouts_per_step=4)
    curriculum = make_curriculum(config, prompts, Posterior.fresh(prompts, config.posterior), 0)
    curriculum.ask(4)
    curriculum.ask(4)


def diverged(_: Job, __: Parent) -> None:
    from cures_core.config.training import TorchTrainerConfig
    from cures_core.training.torch_trainer import TorchTrainer
    from tests.cures_core.training.test_data_parallel import batches
    from tests.cures_core.training.test_torch_trainer import policy

    trained = policy()
    next(iter(trained.trainable().values())).register_hook(lambda gradient: gradient * float("nan"))
    trainer = TorchTrainer(trained, TorchTrainerConfig(learning_rate=1e-3, max_bad_steps=2), 1.0)
    for batch in batches(2):
        trainer.update(batch)


def silent_engine(_: Job, __: Parent) -> None:
    from cures_core.rollout.vllm.waiting import Caller

    Caller("vLLM", lambda: True).call(lambda: time.sleep(30), "the next decoding step", 0.3)


def silent_store(_: Job, __: Parent) -> None:
    from tasks.storage.s3_client import S3

    os.environ.update(AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x", AWS_REGION="us-east-1")
    S3("s3://bucket/runs", "http://127.0.0.1:9", deadline_s=0.1).etag("run.json")


def refused_request(_: Job, __: Parent) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from tasks.prefect_api import call

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"no such thing")

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    call(f"http://127.0.0.1:{server.server_port}", "/deployments", None, "GET")


def late_run(_: Job, __: Parent) -> None:
    from tasks.ci.announce import wait_for_run

    wait_for_run("http://127.0.0.1:9/api", "k", 0.0)


def lonely_rank(job: Job, _: Parent) -> None:
    from cures_core.jobs.rank import join

    os.environ.update(RANK="0", WORLD_SIZE="2", CURES_WAIT_TIMEOUT_S="1")
    join(job.scratch, 0.5)


def held_run(job: Job, _: Parent) -> None:
    from tasks.storage.lease import Lease
    from tasks.storage.local import LocalStore

    store = LocalStore(job.scratch / "store")
    leases = [Lease(store, "tiny-1", 60), Lease(store, "tiny-1", 60)]
    assert not leases


def taken_run(job: Job, __: Parent) -> None:
    from tasks.storage.fencing import encode, lease_key, parse
    from tasks.storage.lease import Lease
    from tasks.storage.local import LocalStore

    store = LocalStore(job.scratch / "store")
    lease = Lease(store, "tiny-1", 60)
    _, held = parse(store, "tiny-1")
    assert held is not None
    store.put(lease_key("tiny-1"), encode(held.model_copy(update={"token": lease.token + 1})))
    lease.check()


def asked_to_stop(_: Job, parent: Parent) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    parent.stop_if_asked("step 5")


def changing_prompts(job: Job, _: Parent) -> None:
    from cures_core.prompts.lines import Snapshot

    path = job.scratch / "set.jsonl"
    path.write_text("{}\n")
    seen = Snapshot.of(path)
    path.write_text("{}\n{}\n")
    seen.check()


def injected(job: Job, _: Parent) -> None:
    from cures_core.faults import arm, fault_point

    arm(["here=raise"], job.scratch / "faults")
    fault_point("here")


# Memory.


def python_memory(_: Job, __: Parent) -> None:
    bytearray(1 << 60)


def torch_memory(_: Job, __: Parent) -> None:
    import torch

    torch.empty(1 << 55)


def mapped_memory(_: Job, __: Parent) -> None:
    import mmap

    mmap.mmap(-1, 1 << 60)


def arrow_memory(job: Job, _: Parent) -> None:
    """A set that is whole, read with too little memory: it must not be called damaged."""
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())  # its usual one reserves a GiB of addresses
    from cures_core.prompts import PromptSet
    from cures_core.terms import Prompt

    small, large = job.scratch / "small.parquet", job.scratch / "set.parquet"
    for path, rows in ((small, 4), (large, 4000)):
        PromptSet.of([Prompt(f"{i:032x}", f"{i} " * 8000, "1") for i in range(rows)]).write_parquet(path)
    PromptSet.read_parquet(small)  # starts Arrow's threads, which take room as well
    with _little_memory(8):
        PromptSet.read_parquet(large)


def real_warm_start(job: Job, parent: Parent) -> None:
    """The job that this file stands in for, as it is, with too little memory for a policy of this width."""
    import importlib.util

    import cures_core.jobs

    path = Path(cures_core.jobs.__path__[0]) / "warm_start.py"
    spec = importlib.util.spec_from_file_location("real_warm_start", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import torch
    import transformers  # noqa: F401  (their libraries take room of their own)

    torch.ones(2, 2).matmul(torch.ones(2, 2))
    wide = job.config.policy.model_copy(update={"hidden_size": 4096})
    config = job.config.model_copy(update={"policy": wide})
    with _little_memory(700):
        module.run(job.model_copy(update={"config": config}), parent)


def kernel_killed(job: Job, _: Parent) -> None:
    """As the kernel does: it counts, then it kills."""
    (job.scratch.parent / "sys/fs/cgroup/memory.events").write_text("low 0\noom_kill 4\n")
    os.kill(os.getpid(), signal.SIGKILL)


# What the operating system refuses.


def full_disk(_: Job, __: Parent) -> None:
    with Path("/dev/full").open("wb", buffering=0) as device:
        device.write(b"x")


def no_permission(job: Job, _: Parent) -> None:
    folder = job.scratch / "locked"
    folder.mkdir(mode=0o500)
    if root := os.geteuid() == 0:
        folder.parent.chmod(0o755)
        os.seteuid(65534)
    try:
        (folder / "file").write_text("x")
    finally:
        if root:
            os.seteuid(0)


def read_only(job: Job, _: Parent) -> None:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(job.scratch / "file"))  # would take a mount of its own


def too_many_files(_: Job, __: Parent) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = [Path("/dev/null").open() for _ in range(100)]  # noqa: SIM115  (leaked, as files are)
    assert held


def too_large_a_file(job: Job, _: Parent) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
    (job.scratch / "large").write_bytes(bytes(1 << 21))


def no_room_for_threads(_job: Job, __: Parent) -> None:
    with _little_memory(1):
        for _ in range(64):  # the first ones may take the room of threads that are gone
            threading.Thread(target=time.sleep, args=(1,)).start()


def held_file(job: Job, _: Parent) -> None:
    import sqlite3

    held = [sqlite3.connect(job.scratch / "answers", timeout=0.1, isolation_level=None) for _ in range(2)]
    for one in held:
        one.execute("BEGIN EXCLUSIVE")


def vanished_file(job: Job, _: Parent) -> None:
    (job.scratch / "gone").read_bytes()


def failing_disk(_: Job, __: Parent) -> None:
    with Path("/proc/self/mem").open("rb") as f:
        f.read(1)  # nothing is mapped at address 0: EIO


def refused_connection(_: Job, __: Parent) -> None:
    import httpx

    httpx.get("http://127.0.0.1:9/api/health")


def unknown_host(_: Job, __: Parent) -> None:
    socket.getaddrinfo("no-such-host.invalid", 80)


def broken_collective(job: Job, _: Parent) -> None:
    """Rank 1 of 2 is there, and gone."""
    import torch
    from torch import distributed

    place = f"init_method='file://{job.scratch}/ranks', world_size=2"
    gone = f"import os; from torch.distributed import *; init_process_group('gloo', rank=1, {place}); os._exit(0)"
    with subprocess.Popen([sys.executable, "-c", gone]) as other:
        distributed.init_process_group("gloo", init_method=f"file://{job.scratch}/ranks", rank=0, world_size=2)
        other.wait()
        distributed.all_reduce(torch.zeros(1))


# Ends without a report.


def _die(number: signal.Signals) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    time.sleep(10)


def killed(_: Job, __: Parent) -> None:
    _die(signal.SIGKILL)


def killed_in_a_word(_: Job, parent: Parent) -> None:
    parent.events.write('{"event": "st')
    parent.events.flush()
    _die(signal.SIGKILL)


def crashed(_: Job, __: Parent) -> None:
    import ctypes

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ctypes.string_at(0)


def aborted(_: Job, __: Parent) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


def bus_error(_: Job, __: Parent) -> None:
    _die(signal.SIGBUS)


def wrong_processor(_: Job, __: Parent) -> None:
    _die(signal.SIGILL)


def stopped_unheard(_: Job, __: Parent) -> None:
    _die(signal.SIGTERM)


def hung_up(_: Job, __: Parent) -> None:
    _die(signal.SIGHUP)


def unwritten(job: Job, _: Parent) -> None:
    (job.scratch / "error.json" / "in-the-way").mkdir(parents=True)
    raise ValueError("cannot be written down")


def unknown_code(_: Job, __: Parent) -> None:
    os._exit(7)


def shell_code(_: Job, __: Parent) -> None:
    os._exit(128 + signal.SIGKILL)


def unknown_signal(_: Job, __: Parent) -> None:
    _die(signal.SIGUSR1)


# Faults of the program.


def gone_by_itself(_: Job, __: Parent) -> None:
    sys.exit(0)


def type_error(_: Job, __: Parent) -> None:
    sum(["x"])  # type: ignore[list-item]


def group(_: Job, __: Parent) -> None:
    raise ExceptionGroup("tasks", [KeyError("name")])


def unspeakable(_: Job, __: Parent) -> None:
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(b"/tmp/\xff"))
