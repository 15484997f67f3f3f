"""`doctor` and `site init` on a real cluster."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .harness.cli import JOB_LIMIT_S, Cli
from .harness.image import Image
from .harness.site import write_site
from .harness.slurm import Slurm
from .harness.slurm_conf import TENSORRT, TRAIN

pytestmark = pytest.mark.cluster

# What no profile can say of this cluster's own accord: its GPUs are only device files, Apptainer
# runs as root, and jobs are to run the working tree's package.
ODD = ("image", "binds", "apptainer", "apptainer_flags", "accelerator")
CONTAINER = "container"
PREEMPTION = "slurm.preemption"
"""Jobs of this cluster are preempted without a signal before: always a warning here."""


def outcomes(document: dict[str, Any], where: str = TRAIN) -> dict[str, str]:
    return {one["id"]: one["outcome"] for one in document["findings"] if one["where"] == where}


def bad(document: dict[str, Any]) -> list[str]:
    """What is not in order, but for a container that started when it was tried again: without
    privileges, Apptainer fails once in some thousand starts on a machine that is busy."""
    return [
        one["id"]
        for one in document["findings"]
        if one["outcome"] == "failure" or (one["outcome"] == "warning" and one["id"] != CONTAINER)
    ]


def test_the_drafted_profile_is_right(
    cli: Cli, site: Path, image: Image, tmp_path: Path, run_root: Path
) -> None:
    """Drafted, completed, examined: one node's ranks and two nodes' add up a tensor."""
    drafted = tmp_path / "drafted.yaml"
    said = cli("site", "init", "--output", drafted).stderr
    assert "could not be found out: the image" in said
    profile = yaml.safe_load(drafted.read_text())
    assert profile["partition"] == TRAIN
    assert profile["roles"] == {"tensorrt": {"partition": TENSORRT}}
    known = yaml.safe_load(site.read_text())
    text = drafted.read_text() + yaml.safe_dump({key: known[key] for key in ODD})
    text += yaml.safe_dump({"network_interface": "nosuch0"})
    drafted.write_text(text.replace(profile["run_root"], str(run_root)))
    env = {name: value for name, value in cli.env.items() if name != "RTDETR_SLURM_SITE"}
    own = Cli(env, cli.folder)
    document = own.json("doctor", "--site", drafted, "--partition", TRAIN, "--keep")
    # The network that the profile names is not there; what works instead is found and kept.
    assert bad(document) == [PREEMPTION, "allreduce.one_node", "allreduce.two_nodes"]
    assert document["outcome"] == "warning"
    assert list(document["settings"]) == ["GLOO_SOCKET_IFNAME"]
    kept = yaml.safe_load(drafted.read_text())["env"]
    assert kept == [document["settings"]]
    assert (tmp_path / "drafted.yaml.bak-1").read_text() != drafted.read_text()
    found = outcomes(document)
    assert found["probe.options"] == found["node.apptainer"] == "ok"
    assert found[CONTAINER] in ("ok", "warning")
    assert list(run_root.glob(".doctor-*")) == []
    cli("site", "init", "--output", drafted, code=2)


def test_a_run_root_that_nodes_do_not_see(
    cli: Cli, cluster: Slurm, image: Image, tmp_path: Path
) -> None:
    """Here it is a file system that only the login shell has mounted."""
    root = tmp_path / "here only"
    root.mkdir()
    profile = write_site(tmp_path / "site.yaml", image, root)
    hidden = (
        'mount -t tmpfs none "$1" && exec rtdetr-slurm doctor --json --site "$2" --partition "$3"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", hidden, "sh", root, profile, TRAIN],
        env=cli.env,
        capture_output=True,
        text=True,
        timeout=JOB_LIMIT_S,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    document = json.loads(done.stdout)
    assert bad(document) == [PREEMPTION, "probe.job"]
    [job] = [one for one in document["findings"] if one["id"] == "probe.job"]
    assert f"run_root {root} is another folder on node1" in job["found"]
    assert cluster.command("squeue", "--noheader", "--states=PD,R", "--name=rtdetr-doctor") == ""
