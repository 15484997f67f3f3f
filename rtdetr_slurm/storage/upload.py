"""Files to places of objects: in pieces, going on where an earlier attempt has ended, and not at
all where the same is there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rtdetr_slurm.errors import ActionError, RequestError, refusals_explained
from rtdetr_slurm.files import replace_with, sha256_of
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.records import open_file
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.storage.address import bucket_and_key, local_path, scheme_of
from rtdetr_slurm.storage.base import PATIENT, patiently
from rtdetr_slurm.storage.s3 import called, client_of

_PART_BYTES, _MOST_PARTS = 16 << 20, 10_000
_THREADS = 4
_BLOCK_BYTES = 1 << 20

OnBytes = Callable[[int], object]


@refusals_explained()
def put_file(path: Path, uri: str, store: Store, *, on_progress: OnBytes | None = None) -> None:
    """Have a file's content at an address: `s3://…`, `file:///…` or a path.

    Args:
        on_progress: is told how many more bytes are there, of those that were there already too.

    Raises:
        RequestError: the address is no such, or may not be written to.
        Unreachable: its place does not answer, or breaks off again and again; what has come there
            so far counts the next time.
        ActionError: the file was changed meanwhile.
        SiteError: the file cannot be read.
    """
    tell = on_progress or (lambda _: None)
    scheme = scheme_of(uri)
    if scheme == "file":
        _copy(path, local_path(uri), tell)
    elif scheme == "s3":
        _Upload(path, uri, store, tell).send()
    else:
        raise RequestError(f"{shown_uri(uri)}: files go to s3://bucket/prefix or a folder")


def _copy(path: Path, target: Path, tell: OnBytes) -> None:
    size = path.stat().st_size
    same = target.is_file() and target.stat().st_size == size
    if not same or sha256_of(target) != sha256_of(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_file(path) as source:
            blocks = iter(partial(source.read, _BLOCK_BYTES), b"")
            replace_with(target, lambda out: [out.write(block) for block in blocks])
    tell(size)


@dataclass(frozen=True)
class _Digests:
    """Of a file, and of its pieces.

    Attributes:
        parts: MD5 of each, in hexadecimal; S3 makes its ETags of them.
    """

    sha256: str
    parts: tuple[str, ...]

    @property
    def etag(self) -> str:
        """That S3 gives to a file that was sent in these pieces."""
        if len(self.parts) == 1:
            return self.parts[0]
        together = b"".join(map(bytes.fromhex, self.parts))
        return f"{_md5(together)}-{len(self.parts)}"


class _Upload:
    def __init__(self, path: Path, uri: str, store: Store, tell: OnBytes) -> None:
        self._path, self._uri, self._tell = path, uri, tell
        bucket, key = bucket_and_key(uri)
        if not key or key.endswith("/"):
            raise RequestError(f"{uri} names no object; expected s3://bucket/key")
        self._client, self._at = client_of(store), {"Bucket": bucket, "Key": key}
        self._size = path.stat().st_size
        self._part = max(_PART_BYTES, -(-self._size // _MOST_PARTS))
        self._digests = self._read_digests()

    def send(self) -> None:
        if self._is_there():
            self._tell(self._size)
        elif len(self._digests.parts) == 1:
            content = self._content(1)
            self._ask(self._client.put_object, Body=content, Metadata=self._metadata())
            self._tell(len(content))
        else:
            self._send_parts()

    def _send_parts(self) -> None:
        upload, there = self._begun() or (self._begin(), {})
        for number in there:
            self._tell(self._length(number))
        with ThreadPoolExecutor(_THREADS) as pool:
            missing = [n for n in range(1, len(self._digests.parts) + 1) if n not in there]
            sent = {pool.submit(self._send_part, upload, number): number for number in missing}
            try:
                for one in as_completed(sent):
                    there[sent[one]] = one.result()
                    self._tell(self._length(sent[one]))
            finally:
                pool.shutdown(cancel_futures=True)
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(there.items())]
        complete = self._client.complete_multipart_upload
        self._ask(complete, UploadId=upload, MultipartUpload={"Parts": parts})

    def _send_part(self, upload: str, number: int) -> str:
        content = self._content(number)
        ask = self._client.upload_part
        found = self._ask(ask, UploadId=upload, PartNumber=number, Body=content)
        return str(found["ETag"])

    def _is_there(self) -> bool:
        try:
            found = self._ask(self._client.head_object)
        except RequestError:
            return False  # whoever may write need not be allowed to look
        if found["ContentLength"] != self._size:
            return False
        if str(found.get("ServerSideEncryption", "")).startswith("aws:kms"):
            # Then ETags are no digests; and no sending is gone on with, so that this one is right.
            return bool(found["Metadata"].get("sha256") == self._digests.sha256)
        return str(found["ETag"]).strip('"') == self._digests.etag

    def _begin(self) -> str:
        create = self._client.create_multipart_upload
        return str(self._ask(create, Metadata=self._metadata())["UploadId"])

    def _begun(self) -> tuple[str, dict[int, str]] | None:
        """An earlier attempt to send this very content: its id, and the ETags of the pieces that
        have come; None where there is none."""
        bucket, key = self._at["Bucket"], self._at["Key"]
        with suppress(RequestError):  # whoever may write need not be allowed to list
            page = patiently(
                self._uri,
                partial(
                    called,
                    self._uri,
                    partial(self._client.list_multipart_uploads, Bucket=bucket, Prefix=key),
                ),
                PATIENT,
            )
            for one in page.get("Uploads", ()):
                if one["Key"] == key:
                    upload = str(one["UploadId"])
                    there = {part["PartNumber"]: part for part in self._parts_of(upload)}
                    if there and all(map(self._is_same, there.values())):
                        return upload, {number: part["ETag"] for number, part in there.items()}
                    self._ask(self._client.abort_multipart_upload, UploadId=upload)
        return None

    def _parts_of(self, upload: str) -> Iterator[Any]:
        marker = 0
        while True:
            ask = self._client.list_parts
            page = self._ask(ask, UploadId=upload, PartNumberMarker=marker)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            marker = page["NextPartNumberMarker"]

    def _is_same(self, part: Any) -> bool:
        number = int(part["PartNumber"])
        if not 1 <= number <= len(self._digests.parts) or part["Size"] != self._length(number):
            return False
        etag = str(part["ETag"]).strip('"')
        return etag == self._digests.parts[number - 1]

    def _ask(self, ask: Callable[..., Any], **arguments: Any) -> Any:
        call = partial(ask, **self._at, **arguments)
        return patiently(self._uri, partial(called, self._uri, call), PATIENT)

    def _metadata(self) -> dict[str, str]:
        return {"sha256": self._digests.sha256}

    # --- the file ------------------------------------------------------------------------------
    def _length(self, number: int) -> int:
        return min(self._part, self._size - (number - 1) * self._part)

    def _content(self, number: int) -> bytes:
        """Of a piece; they count from 1."""
        with open_file(self._path) as stream:
            content = os.pread(stream.fileno(), self._length(number), (number - 1) * self._part)
        if _md5(content) != self._digests.parts[number - 1]:
            raise self._changed()
        return content

    def _read_digests(self) -> _Digests:
        whole, size = hashlib.sha256(), 0
        parts: list[str] = []
        with open_file(self._path) as stream:
            while (content := stream.read(self._part)) or not parts:
                whole.update(content)
                parts.append(_md5(content))
                size += len(content)
        if size != self._size:
            raise self._changed()
        return _Digests(whole.hexdigest(), tuple(parts))

    def _changed(self) -> ActionError:
        return ActionError(f"{self._path} was changed while it was sent to {self._uri}; try again")


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
