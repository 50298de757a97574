"""What the local stack can run beside Prefect: SeaweedFS as its S3, Postgres behind its server."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import httpx

from cures_core.config.base import Strict
from cures_core.errors import ConfigError
from cures_core.extras import missing_extra
from cures_core.files import canonical_json
from flows.local.processes import process_id, spawn, wait_until
from tasks.storage.values import decode_value, encode_value

BUCKET = "cures"
S3_NOTE, POSTGRES_NOTE = "s3-access.json", "postgres-access.json"
SEAWEED_WITHOUT = ("-s3.port.iceberg=0", "-s3.port.lance=0")
"""Services that it would begin on ports of its own choice, one machine having one of each."""
_SEAWEED_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
)


class S3Access(Strict):
    """Of a stack's SeaweedFS, on the loopback interface."""

    port: int
    id: str
    key: str


class PostgresAccess(Strict):
    """Of a stack's Postgres, on the loopback interface."""

    port: int
    password: str


A = TypeVar("A", S3Access, PostgresAccess)


def start_s3(folder: Path) -> str:
    """Start SeaweedFS on the loopback interface with keys of its own and the bucket `cures`; returns its address.

    Raises `MissingExtra` where it is not installed.
    """
    weed = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if weed is None:
        raise missing_extra("s3-server", "--s3", "no command weed")
    fresh = S3Access(port=_free_port(), id=secrets.token_hex(10), key=secrets.token_hex(20))
    access = chosen_once(folder / S3_NOTE, fresh)
    url = f"http://127.0.0.1:{access.port}"
    if process_id(folder, "s3") is None:
        identity = {
            "name": "cures",
            "credentials": [{"accessKey": access.id, "secretKey": access.key}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        write_private(folder / "s3-identities.json", canonical_json({"identities": [identity]}))
        data = folder / "s3-data"
        data.mkdir(parents=True, exist_ok=True)
        ports = [*(f"-{name}={_free_port()}" for name in _SEAWEED_PORTS), *SEAWEED_WITHOUT]
        options = ["-ip=127.0.0.1", f"-dir={data}", "-volume.max=50", f"-s3.port={access.port}"]
        config = f"-s3.config={folder / 's3-identities.json'}"
        spawn(folder, "s3", [weed, "server", "-s3", *options, *ports, config])
        wait_until(lambda: _answers(url), folder, "s3")
    _make_bucket(folder)
    return url


def start_postgres(folder: Path) -> str:
    """Start Postgres on the loopback interface, making its database first; returns its address without the password.

    Raises `ConfigError` naming the packages where it or its driver is not installed.
    """
    try:
        import asyncpg  # noqa: F401  (the server's driver)
    except ImportError as error:
        raise ConfigError("--postgres needs the driver: pip install asyncpg") from error
    initdb, postgres = _postgres_command("initdb"), _postgres_command("postgres")
    user = _postgres_user()
    access = chosen_once(folder / POSTGRES_NOTE, PostgresAccess(port=_free_port(), password=secrets.token_hex(16)))
    data = folder.absolute() / "postgres"
    if process_id(folder, "postgres") is None:
        if not (data / "PG_VERSION").exists():
            _make_database(initdb, data, access.password, user)
        options = ["-h", "127.0.0.1", "-p", str(access.port), "-c", f"unix_socket_directories={data}"]
        spawn(folder, "postgres", [postgres, "-D", str(data), *options], cwd=data, user=user)
        wait_until(lambda: _accepts_connections(access.port), folder, "postgres")
    return f"127.0.0.1:{access.port}"


def service_environment(folder: Path) -> dict[str, str]:
    """What server, worker and runs need to reach the services that this folder has been started with.

    Raises `CorruptArtifact` where the note of one is damaged.
    """
    env: dict[str, str] = {}
    if (folder / S3_NOTE).exists():
        s3 = _read(S3Access, folder / S3_NOTE)
        env |= {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}",
            "AWS_ACCESS_KEY_ID": s3.id,
            "AWS_SECRET_ACCESS_KEY": s3.key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
    if (folder / POSTGRES_NOTE).exists():
        pg = _read(PostgresAccess, folder / POSTGRES_NOTE)
        env["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = (
            f"postgresql+asyncpg://postgres:{pg.password}@127.0.0.1:{pg.port}/postgres"
        )
    return env


def chosen_once(path: Path, fresh: A) -> A:
    """Ports and keys are chosen once, so a stack that is started again finds its data."""
    if not path.exists():
        scratch = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        write_private(scratch, encode_value(fresh))
        with contextlib.suppress(FileExistsError):  # of two first starts at once, one chooses
            path.hardlink_to(scratch)
        scratch.unlink()
    return _read(type(fresh), path)


def _read(kind: type[A], path: Path) -> A:
    remedy = (
        "With it the keys of this stack's service are lost. Stop the stack with `cures down --dir "
        f"{shlex.quote(str(path.parent))}`, then move that folder away to start with a new one"
    )
    return decode_value(kind, path.read_bytes(), str(path), remedy)


def write_private(path: Path, data: bytes) -> None:
    """To a file that only its owner can read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(descriptor)


def _make_bucket(folder: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import ClientError

    env = service_environment(folder)
    client = boto3.client(
        "s3",
        endpoint_url=env["AWS_ENDPOINT_URL"],
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
        config=Config(retries={"total_max_attempts": 8, "mode": "standard"}),
    )
    try:
        client.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise ConfigError(f"s3: bucket {BUCKET} could not be made: {error.response['Error']['Code']}") from error


def _make_database(initdb: str, place: Path, password: str, user: str | None) -> None:
    """Elsewhere, then renamed: initdb writes PG_VERSION, by which a database is known, before it is done."""
    data = place.with_name(".postgres-new")
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    secret = data.parent / "postgres-password"
    write_private(secret, password.encode())
    if user is not None:
        shutil.chown(data, user)
        shutil.chown(secret, user)
    command = [initdb, "-D", str(data), "-U", "postgres", "--auth=scram-sha-256", f"--pwfile={secret}", "-E", "UTF8"]
    done = subprocess.run(command, cwd="/", user=user, capture_output=True, text=True, check=False)
    secret.unlink()
    if done.returncode != 0:
        shutil.rmtree(data)
        who = f" as user {user}, who must be able to enter {data.parent}" if user else ""
        raise ConfigError(f"initdb failed{who}: {done.stderr.strip()[-500:]}")
    data.rename(place)


def _postgres_command(name: str) -> str:
    places = [os.environ.get("PATH", ""), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))]
    found = shutil.which(name, path=os.pathsep.join(places))
    if found is None:
        raise ConfigError(f"--postgres needs {name}: apt-get install postgresql")
    return found


def _postgres_user() -> str | None:
    """Postgres refuses to run as root; its package brings a user for it."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError as error:
        raise ConfigError(
            "Postgres does not run as root, and there is no user postgres: use another account"
        ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _answers(url: str) -> bool:
    """Whatever it says: an S3 refuses those who do not sign."""
    try:
        httpx.get(url, timeout=2, trust_env=False)
    except httpx.TransportError:
        return False
    return True
