"""Fixtures of the real cluster: Slurm and Apptainer come up once per session, and go again.

`machine_ready` skips where the harness cannot work (the suite's own conftest makes a skip a
failure in CI). `cli_env` is the environment to run `rtdetr-slurm` with: it brings up the cluster,
the image and the site profile. `dataset` is what to train on, `few` what to train on without end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import yaml
from _pytest.capture import CaptureManager

from rtdetr_slurm.data.sample import write_sample

from .harness import apptainer, machine, slurm
from .harness.cli import Cli
from .harness.data import Dataset, prepare_dataset
from .harness.image import Image, tensorrt_image
from .harness.image import image as build_image
from .harness.install import install_packages
from .harness.site import write_site
from .harness.slurm_conf import FEATURE, GPU_TYPE


def _visible(request: pytest.FixtureRequest) -> AbstractContextManager[None]:
    """Let progress lines through pytest's capture: a first build takes minutes."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    assert isinstance(capture, CaptureManager)
    return capture.global_and_fixture_disabled()


@pytest.fixture(scope="session")
def machine_ready(request: pytest.FixtureRequest) -> None:
    """Debian packages and Apptainer are there; skips with the reason where they cannot be."""
    reason = machine.why_not()
    if reason:
        pytest.skip(reason)
    with _visible(request):
        install_packages()
        apptainer.apptainer()


@pytest.fixture(scope="session")
def cluster(machine_ready: None, request: pytest.FixtureRequest) -> Iterator[slurm.Slurm]:
    """A running cluster; one that `python -m tests.cluster.harness up` started is used and left."""
    with slurm.session() as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def nothing_left_over(cluster: slurm.Slurm) -> Iterator[None]:
    """What the tests of a module have left running, as after a failure, is not in the next one's
    way."""
    yield
    slurm.cancel_all(cluster)


@pytest.fixture(scope="session")
def image(machine_ready: None, request: pytest.FixtureRequest) -> Image:
    """The training image, built once per machine."""
    with _visible(request):
        return build_image()


@pytest.fixture(scope="session")
def run_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the session's run folders are made."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def site(image: Image, run_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of the test cluster's site profile."""
    return write_site(tmp_path_factory.mktemp("site") / "site.yaml", image, run_root)


@pytest.fixture(scope="session")
def deploy_site(image: Image, site: Path, request: pytest.FixtureRequest) -> Path:
    """The profile of a site that deploys on two kinds of GPU, of which one node has both."""
    with _visible(request):
        deploy = tensorrt_image(image)
    profile = yaml.safe_load(site.read_text())
    profile["roles"]["tensorrt"] |= {
        "image": str(deploy.path),
        "targets": [
            {"name": "l4", "gpu": {"type": GPU_TYPE}, "compute_capability": "8.9"},
            {"name": "a10", "constraint": FEATURE, "compute_capability": "8.6"},
        ],
    }
    path = site.with_name("deploy.yaml")
    path.write_text(yaml.safe_dump(profile, sort_keys=False))
    return path


@pytest.fixture(scope="session")
def cli_env(cluster: slurm.Slurm, site: Path) -> dict[str, str]:
    """Environment in which `rtdetr-slurm` finds the cluster, the profile and Apptainer."""
    env = {**slurm.clean_environment(), **cluster.environment()}
    path = env["PATH"]
    return {
        **env,
        **apptainer.environment(),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), path)),
        "RTDETR_SLURM_SITE": str(site),
    }


@pytest.fixture(scope="session")
def dataset(machine_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Real images where this machine has them, else generated ones."""
    return prepare_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture(scope="session")
def few(machine_ready: None, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """So few images that an epoch takes a second."""
    root = tmp_path_factory.mktemp("few")
    write_sample(root, train=24, val=4, size=64)
    (root / "test").symlink_to("val")
    return Dataset(root, real=False)


@pytest.fixture
def cli(cli_env: dict[str, str], tmp_path: Path) -> Cli:
    return Cli(cli_env, tmp_path)
