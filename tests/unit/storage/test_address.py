"""Addresses: what is one, what is shown of it, and what tells two apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_slurm.errors import RequestError
from rtdetr_slurm.resolved_spec import shown_uri
from rtdetr_slurm.storage.address import (
    bucket_and_key,
    identity,
    local_path,
    name_of,
    scheme_of,
)

SIGNED = "https://h.example/a/b.tar?X-Amz-Signature=SECRET&X-Amz-Credential=WHO"


@pytest.mark.parametrize(
    ("uri", "scheme"),
    [
        ("s3://bucket/key@2", "s3"),
        ("HTTPS://h/x", "https"),
        ("/data/x", "file"),
        ("file:///data/x", "file"),
    ],
)
def test_the_scheme_of_an_address(uri: str, scheme: str) -> None:
    assert scheme_of(uri) == scheme


@pytest.mark.parametrize("uri", ["gs://b/k", "data/x.tar", "ftp://h/x", ""])
def test_no_address(uri: str) -> None:
    with pytest.raises(RequestError, match="address"):
        scheme_of(uri)


def test_a_password_is_refused_and_not_shown() -> None:
    with pytest.raises(RequestError, match="no user and no password") as error:
        scheme_of("https://me:SECRET@h.example/x")
    assert "SECRET" not in str(error.value)
    assert shown_uri("https://me:SECRET@h.example/x?sig=SECRET#SECRET") == "https://h.example/x"


def test_a_signature_is_neither_shown_nor_part_of_what_an_object_is() -> None:
    assert shown_uri(SIGNED) == identity(SIGNED) == "https://h.example/a/b.tar"
    first, second = (identity(f"https://h/get?id={number}&token=SECRET") for number in (1, 2))
    assert first != second
    assert "SECRET" not in first
    assert first == identity("https://h/get?token=OTHER&id=1")


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        (SIGNED, "b.tar"),
        ("https://h/a%20b.tar", "a b.tar"),
        ("s3://bucket/data/train/", "train"),
        ("/data/images.zip", "images.zip"),
    ],
)
def test_the_name_of_an_object(uri: str, name: str) -> None:
    assert name_of(uri) == name


@pytest.mark.parametrize(
    "uri", ["https://h/", "https://h/..%2f..%2fetc", "s3://bucket", "https://h/%00"]
)
def test_no_name_of_a_file(uri: str) -> None:
    with pytest.raises(RequestError, match="no name"):
        name_of(uri)


def test_buckets_and_files() -> None:
    assert bucket_and_key("s3://my.bucket/a/b?c") == ("my.bucket", "a/b?c")
    assert local_path("file:///a%20b") == Path("/a b")
    with pytest.raises(RequestError, match="no bucket's name"):
        bucket_and_key("s3:///key")
    with pytest.raises(RequestError, match="another machine"):
        local_path("file://host/x")
