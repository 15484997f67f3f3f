"""S3, and what speaks like it, through boto3: credentials, profiles and regions are as its users
expect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.plan.staging import Store
from rtdetr_slurm.storage.address import bucket_and_key, name_of
from rtdetr_slurm.storage.base import (
    AGAIN,
    CONNECT_S,
    PATIENT,
    QUICK,
    SILENT_S,
    Changed,
    ObjectInfo,
    Transient,
    patiently,
    whole,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

_CONNECTIONS = 32
_MOST_SAID = 200
_CREDENTIALS = (
    "Credentials are found as boto3 finds them: AWS_* variables, profiles, roles; the region too"
)
_AGAIN_CODES = frozenset({"SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable"})


@cache
def client_of(store: Store) -> S3Client:
    """Of this process, for all its threads.

    Raises:
        RequestError: there is no such profile, or the endpoint is no address.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    config = Config(
        # Tried again is a whole piece, here, and not the request for it.
        retries={"total_max_attempts": 1},
        connect_timeout=CONNECT_S,
        read_timeout=SILENT_S,
        max_pool_connections=_CONNECTIONS,
        signature_version=UNSIGNED if store.anonymous else None,
    )
    try:
        session = boto3.Session(profile_name=store.profile, region_name=store.region)
        return session.client("s3", endpoint_url=store.endpoint_url, config=config)
    except (BotoCoreError, ValueError) as error:
        raise RequestError(f"object store: {error}") from error


def head(uri: str, store: Store) -> ObjectInfo:
    """Raises RequestError, Unreachable."""
    bucket, key = bucket_and_key(uri)
    name = name_of(uri)

    def ask() -> ObjectInfo:
        found = called(uri, lambda: client_of(store).head_object(Bucket=bucket, Key=key))
        return ObjectInfo(uri, found["ContentLength"], found.get("ETag", "").strip('"'), name)

    try:
        return patiently(uri, ask, QUICK)
    except _Unexplained as refused:  # the answer to HEAD has no text
        _ask_in_words(uri, bucket, store)
        if refused.status == 404:
            raise _not_there(uri, "key") from None
    return patiently(uri, ask, QUICK)  # by now boto3 may have learned the bucket's region


def listed(uri: str, store: Store) -> Iterator[ObjectInfo]:
    """Raises RequestError, Unreachable."""
    bucket, prefix = bucket_and_key(uri)
    prefix = prefix.rstrip("/") + "/" if prefix else ""
    token: str | None = ""
    while token is not None:
        more: dict[str, Any] = {"ContinuationToken": token} if token else {}
        ask = partial(client_of(store).list_objects_v2, Bucket=bucket, Prefix=prefix, **more)
        page = patiently(uri, partial(called, uri, ask), PATIENT)
        for one in page.get("Contents", ()):
            name = one["Key"][len(prefix) :]
            if name and not name.endswith("/"):  # what consoles make for a folder
                etag = one.get("ETag", "").strip('"')
                yield ObjectInfo(f"s3://{bucket}/{one['Key']}", one["Size"], etag, name)
        token = page.get("NextContinuationToken")


class S3Reader:
    """An object, piece by piece."""

    ranged = True

    def __init__(self, info: ObjectInfo, store: Store) -> None:
        self._info, self._client = info, client_of(store)
        self._bucket, self._key = bucket_and_key(info.uri)

    def read_range(self, start: int, length: int) -> bytes:
        if not length:
            return b""
        return patiently(self._info.uri, lambda: self._read(start, length), PATIENT)

    def _read(self, start: int, length: int) -> bytes:
        info = self._info
        match: dict[str, Any] = {"IfMatch": f'"{info.etag}"'} if info.etag else {}

        def get() -> bytes:
            found = self._client.get_object(
                Bucket=self._bucket,
                Key=self._key,
                Range=f"bytes={start}-{start + length - 1}",
                **match,
            )
            with found["Body"] as body:
                etag = found.get("ETag", "").strip('"')
                if info.etag and etag != info.etag:  # a store that knows no If-Match
                    raise Changed(info, f"and its ETag is now {etag or '(none)'}")
                return body.read()

        return whole(called(info.uri, get, info), length)

    def close(self) -> None:
        pass


class _Unexplained(RequestError):
    """A refusal without a word."""

    def __init__(self, uri: str, status: int) -> None:
        super().__init__(f"{uri}: the store refuses: {status}. {_CREDENTIALS}")
        self.status = status


def called(uri: str, call: Callable[[], T], info: ObjectInfo | None = None) -> T:
    """What a call to boto3 returns.

    Args:
        info: of an object that must still be the same.

    Raises:
        Transient: it may be made again.
        Changed, RequestError: it may not.
    """
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        IncompleteReadError,
    )
    from urllib3.exceptions import HTTPError

    try:
        return call()
    except ClientError as error:
        raise _of_answer(uri, error.response, info) from None
    except (ConnectionError, HTTPClientError, IncompleteReadError, HTTPError, OSError) as error:
        said = str(error).splitlines()[0][:_MOST_SAID] if str(error) else ""
        raise Transient(f"the connection failed: {type(error).__name__}: {said}") from error
    except BotoCoreError as error:
        raise _of_boto(uri, error) from error


def _of_answer(uri: str, answer: Mapping[str, Any], info: ObjectInfo | None) -> Exception:
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code, said = (str(answer.get("Error", {}).get(key, "")) for key in ("Code", "Message"))
    if status in AGAIN or code in _AGAIN_CODES:
        return Transient(f"the store answers {status} {code}".rstrip())
    if info is not None and status in (412, 416):
        return Changed(info, "and is another one now")
    if code in ("NoSuchBucket", "NoSuchKey"):
        return _not_there(uri, "bucket" if code == "NoSuchBucket" else "key")
    if code.isdecimal() or not code:
        return _Unexplained(uri, status)
    return _refused(uri, code, said)


def _of_boto(uri: str, error: Exception) -> RequestError:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return RequestError(
            f"{uri}: no credentials were found for it; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or in the site profile s3: {profile: NAME}, or "
            "s3: {anonymous: true} for a public bucket"
        )
    return RequestError(f"{uri}: {error}")


def _ask_in_words(uri: str, bucket: str, store: Store) -> None:
    """Ask for something that a store answers to with its reasons.

    Raises:
        RequestError, Unreachable: what it says.
    """
    ask = partial(client_of(store).list_objects_v2, Bucket=bucket, MaxKeys=1)
    patiently(uri, partial(called, uri, ask), QUICK)


def _not_there(uri: str, what: Literal["bucket", "key"]) -> RequestError:
    name = bucket_and_key(uri)[0]
    if what == "key":
        return RequestError(f"{uri} does not exist; bucket {name!r} does")
    return RequestError(
        f"{uri}: there is no bucket {name!r} in this store (endpoint, region and account decide "
        "which store is asked)"
    )


def _refused(uri: str, code: str, said: str) -> RequestError:
    return RequestError(f"{uri}: the store refuses: {code}: {said.rstrip('.')}. {_CREDENTIALS}")
