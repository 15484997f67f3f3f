"""The image that Apptainerfile makes."""

from __future__ import annotations

import json

import pytest

import rtdetr_slurm

from .harness.apptainer import apptainer_run
from .harness.image import Image
from .harness.machine import REPO

pytestmark = pytest.mark.cluster


def test_labels_name_the_package_and_its_version(image: Image) -> None:
    found = json.loads(apptainer_run("inspect", "--json", image.path))
    labels = found["data"]["attributes"]["labels"]
    assert labels["org.opencontainers.image.title"] == "rtdetr-slurm"
    assert labels["org.opencontainers.image.version"] == rtdetr_slurm.__version__
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_its_own_test_passes(image: Image) -> None:
    tree = f"type=bind,source={REPO / 'rtdetr_slurm'},destination={image.package_dir},ro"
    assert "torch " in apptainer_run("test", "--mount", tree, image.path)


def test_nothing_of_the_build_stays_inside(image: Image) -> None:
    folders = ("/mnt", "/opt", "/root")
    left = apptainer_run("exec", "--cleanenv", "--no-home", image.path, "ls", "-A", *folders)
    assert left.split() == ["/mnt:", "/opt:", "rtdetr", "/root:", ".bashrc", ".profile"]


def test_environment_does_not_see_the_users_packages(image: Image) -> None:
    code = "import site, sys; print(site.ENABLE_USER_SITE, sys.prefix)"
    said = apptainer_run("exec", "--cleanenv", image.path, "python", "-c", code)
    assert said.split() == ["False", "/opt/rtdetr"]
