"""What pins a container image."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.runs import images
from rtdetr_slurm.runs.images import check_unchanged, record_image, record_weights

NO_APPTAINER = "/nowhere/apptainer"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "train.sif"
    path.write_bytes(b"SIF" + bytes(200_000))
    return path


def test_the_digest_is_the_files(image: Path, tmp_path: Path) -> None:
    record = record_image(image, None, NO_APPTAINER, tmp_path / "cache.json", print)
    assert record.sha256 == hashlib.sha256(image.read_bytes()).hexdigest()
    assert record.size == 200_003
    assert record.version is None


def test_the_digest_is_computed_once(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "deep" / "cache.json"
    first = record_image(image, None, NO_APPTAINER, cache, print)
    monkeypatch.setattr(images, "sha256_of", lambda path: pytest.fail("computed again"))
    assert record_image(image, None, NO_APPTAINER, cache, print) == first


def test_a_replaced_image_gets_its_own_digest(image: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    first = record_image(image, None, NO_APPTAINER, cache, print)
    image.write_bytes(b"SIG" + bytes(200_000))
    assert record_image(image, None, NO_APPTAINER, cache, print).sha256 != first.sha256


def test_a_damaged_cache_is_made_anew(image: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    cache.write_text("{")
    assert record_image(image, None, NO_APPTAINER, cache, print).sha256
    assert len(json.loads(cache.read_text())) == 1


def test_the_digest_of_the_profile_is_demanded(image: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache.json"
    digest = record_image(image, None, NO_APPTAINER, cache, print).sha256
    assert record_image(image, digest, NO_APPTAINER, cache, print).sha256 == digest
    with pytest.raises(
        SiteError, match=f"has sha256 {digest}; the site profile demands {'0' * 64}"
    ):
        record_image(image, "0" * 64, NO_APPTAINER, cache, print)


def test_the_version_comes_from_the_images_label(image: Path, tmp_path: Path) -> None:
    apptainer = tmp_path / "apptainer"
    labels = {"org.opencontainers.image.version": "1.2.3"}
    answer = json.dumps({"data": {"attributes": {"labels": labels}}})
    apptainer.write_text(f"#!/bin/sh\necho '{answer}'\n")
    apptainer.chmod(0o755)
    record = record_image(image, None, str(apptainer), tmp_path / "cache.json", print)
    assert record.version == "1.2.3"


def test_an_image_that_is_missing_or_another_is_refused(image: Path, tmp_path: Path) -> None:
    record = record_image(image, None, NO_APPTAINER, tmp_path / "cache.json", print)
    check_unchanged(record)
    with image.open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(SiteError, match=r"not the one.*submitted with \(size 200007, was 200003\)"):
        check_unchanged(record)
    image.unlink()
    with pytest.raises(SiteError, match="No such file or directory; build it"):
        check_unchanged(record)


def test_a_sandbox_folder_is_accepted_unless_a_digest_is_demanded(tmp_path: Path) -> None:
    record = record_image(tmp_path, None, NO_APPTAINER, tmp_path / "cache.json", print)
    assert record.sha256 is None
    check_unchanged(record)
    with pytest.raises(SiteError, match="is a folder"):
        record_image(tmp_path, "0" * 64, NO_APPTAINER, tmp_path / "cache.json", print)


def test_weights_are_not_called_an_image(tmp_path: Path) -> None:
    gone = tmp_path / "weights.pth"
    said = f"models.resnet_50 of the site profile, {gone}: No such file or directory; it must be on"
    with pytest.raises(SiteError, match=said):
        record_weights(gone, "resnet_50", None, print)
