"""The store on S3: conditional writes for values, and folders of objects that count once their manifest is there."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

from cures_core.errors import ConfigError, CorruptArtifact, CuresError
from cures_core.files import canonical_json, digest_file
from cures_core.manifest import MANIFEST, write_manifest
from cures_core.names import check_key, inside
from tasks.storage.folders import Listed, check_folder, check_sizes, parse_manifest
from tasks.storage.local import LocalStore
from tasks.storage.s3_client import S3, AnswerError

_STAMPS = ".etags.json"
"""Beside the manifest: ETags of the files when their bytes were last read. Another ETag is another object."""


class S3Store:
    """See `Store`. `url` is `s3://bucket/prefix`; `cache` is a local folder for fetched files.

    Needs a server with conditional writes (`check_conditional_writes`). Credentials come from the environment.
    """

    def __init__(self, url: str, cache: str | Path, endpoint_url: str | None = None, deadline_s: float = 60.0) -> None:
        self._s3 = S3(url, endpoint_url, deadline_s)
        place = f"{self._s3.bucket}/{self._s3.prefix}".rstrip("/")
        self._cache = LocalStore(inside(Path(cache), place, "store.url"))

    def get(self, key: str) -> bytes | None:
        found = self._find(check_key(key))
        return None if found is None else found[0]

    def put(self, key: str, data: bytes) -> None:
        self._s3.call("put_object", check_key(key), Body=data)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return self._write(check_key(key), data, IfNoneMatch="*")

    def compare_and_swap(self, key: str, expected: bytes | None, data: bytes) -> bool:
        if expected is None:
            return self.put_if_absent(key, data)
        found = self._find(check_key(key))
        return found is not None and found[0] == expected and self._write(key, data, IfMatch=found[1])

    def delete(self, prefix: str) -> None:
        names = sorted(self._s3.sizes(check_key(prefix)))
        # Manifests go first: what is left of an interrupted deletion is incomplete, not wrong.
        names.sort(key=lambda name: not name.endswith(f"/{MANIFEST}"))
        for name in [*names, prefix]:
            self._s3.call("delete_object", name)
        self._cache.delete(prefix)

    def list(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in self._s3.sizes(check_key(prefix)) if "/." not in key)

    def publish_files(self, prefix: str, folder: Path) -> str:
        check_key(prefix)
        check_folder(folder)
        digest = write_manifest(folder)
        data = (folder / MANIFEST).read_bytes()
        if self._holds(prefix, digest):
            return digest
        self.delete(prefix)
        self._s3.abort_stale_uploads(prefix.partition("/")[0])  # a whole bucket is others' as well
        listed = parse_manifest(data, str(folder))
        for name in sorted(listed):
            self._s3.upload(f"{prefix}/{name}", folder / name)
        etags = self._etags(prefix, listed)
        self.put(f"{prefix}/{MANIFEST}", data)
        self._s3.call("put_object", f"{prefix}/{_STAMPS}", Body=etags)
        self._cache.publish_files(prefix, folder)  # who made the files is likely to read them
        return digest

    def verify_files(self, prefix: str, manifest: str | None = None, *, deep: bool = True) -> None:
        listed = self._manifest(check_key(prefix), manifest)
        etags = self._etags(prefix, listed)
        noted = self._find(f"{prefix}/{_STAMPS}")
        if not deep and noted is not None and etags == noted[0]:
            return
        for name, (_, sha256) in sorted(listed.items()):
            if self._s3.sha256(f"{prefix}/{name}") != sha256:
                raise CorruptArtifact(f"{self._s3.url(f'{prefix}/{name}')}: bytes do not match the manifest")
        if noted is None or etags != noted[0]:
            with contextlib.suppress(CuresError):  # best effort: a store that can only be read can be read
                self._s3.call("put_object", f"{prefix}/{_STAMPS}", Body=etags)

    def local_path(self, prefix: str) -> Path:
        listed = self._manifest(check_key(prefix), None)
        if not self._is_cached(prefix, listed):
            self._fetch(prefix, listed)
        return self._cache.local_path(prefix)

    def check_conditional_writes(self) -> None:
        """Raise `ConfigError` if the server writes where it was told not to: leases and commits would not hold."""
        key = f"probes/{uuid.uuid4().hex}"
        self.put(key, b"1")
        try:
            honest = not self.put_if_absent(key, b"2") and not self._write(key, b"3", IfMatch='"0"')
        finally:
            self._s3.call("delete_object", key)
        if not honest:
            raise ConfigError(
                f"{self._s3.url('')}: this S3 server ignores conditional writes (If-None-Match, If-Match), so two "
                f"processes could both commit. Use one that has them, such as Amazon S3, SeaweedFS, MinIO or Ceph"
            )

    def _find(self, key: str) -> tuple[bytes, str] | None:
        try:
            return self._s3.read(key)
        except AnswerError:
            return None

    def _write(self, key: str, data: bytes, **condition: str) -> bool:
        try:
            self._s3.call("put_object", key, judged=(404, 412), Body=data, **condition)
        except AnswerError as answer:
            if not answer.repeated:
                return False
            # An earlier attempt, whose answer was lost, may be what stands in the way: then it holds our bytes.
            found = self._find(key)
            return found is not None and found[0] == data
        return True

    def _holds(self, prefix: str, digest: str) -> bool:
        try:
            self.verify_files(prefix, digest, deep=False)
        except CorruptArtifact:
            return False
        return True

    def _manifest(self, prefix: str, digest: str | None) -> Listed:
        key = f"{prefix}/{MANIFEST}"
        return parse_manifest(self.get(key), self._s3.url(key), digest)

    def _etags(self, prefix: str, listed: Listed) -> bytes:
        """ETags of the listed files, as they are noted. Raises `CorruptArtifact` where one is gone or of other size."""
        found = {key.removeprefix(f"{prefix}/"): entry for key, entry in self._s3.listing(prefix).items()}
        check_sizes(listed, {name: size for name, (size, _) in found.items()}, self._s3.url(prefix))
        return canonical_json({name: found[name][1] for name in listed})

    def _is_cached(self, prefix: str, listed: Listed) -> bool:
        try:
            self._cache.verify_files(prefix, deep=False)
            place = self._cache.local_path(prefix)
            return parse_manifest((place / MANIFEST).read_bytes(), str(place)) == listed
        except CorruptArtifact:
            return False

    def _fetch(self, prefix: str, listed: Listed) -> None:
        with self._cache.scratch_folder(sum(size for size, _ in listed.values())) as folder:
            for name, (_, sha256) in sorted(listed.items()):
                path = inside(folder, name, self._s3.url(prefix), CorruptArtifact)
                path.parent.mkdir(parents=True, exist_ok=True)
                try:
                    self._s3.download(f"{prefix}/{name}", path)
                except AnswerError as error:
                    raise CorruptArtifact(f"{self._s3.url(f'{prefix}/{name}')}: listed, but gone") from error
                if digest_file(path) != sha256:
                    raise CorruptArtifact(f"{self._s3.url(f'{prefix}/{name}')}: bytes do not match the manifest")
            self._cache.publish_files(prefix, folder)
