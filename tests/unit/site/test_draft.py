"""`site init`: a profile from what a cluster says about itself, which its own reader takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster_support import NODES, PARTITIONS, cluster

from rtdetr_slurm.site.draft import Draft, Folder, Surroundings, draft_profile
from rtdetr_slurm.site.load import load_site
from rtdetr_slurm.site.profile import Site
from rtdetr_slurm.site.surroundings import file_system, mounted
from rtdetr_slurm.slurm.configuration import Cluster

GIB = 2**30
LUSTRE = Folder("/lustre/me", "lustre", 900 * GIB)
AROUND = Surroundings(
    folders=(Folder("/home/me", "ext4", 2000 * GIB), Folder("/nfs", "nfs4", 50 * GIB), LUSTRE),
    apptainer="/opt/apptainer/bin/apptainer",
    modules=("gcc/12", "apptainer/1.3.1"),
    proxies=("HTTPS_PROXY",),
)
MORE_PARTITIONS = PARTITIONS.replace("State=DOWN", "State=UP") + (
    "PartitionName=batch Default=NO MaxTime=UNLIMITED State=UP PreemptMode=OFF\n"
)
MORE_NODES = NODES + "NodeName=cpu1 CPUTot=64 RealMemory=256000 State=IDLE Partitions=batch\n"


def read(draft: Draft, folder: Path) -> Site:
    path = folder / "site.yaml"
    path.write_text(draft.text)
    return load_site([path], None, {})


def drafted(alpha: Cluster, folder: Path, around: Surroundings = AROUND) -> tuple[Site, Draft]:
    draft = draft_profile(alpha, around)
    return read(draft, folder), draft


def test_a_profile_of_a_gpu_cluster(tmp_path: Path) -> None:
    site, draft = drafted(cluster(partitions=MORE_PARTITIONS, nodes=MORE_NODES), tmp_path)
    assert (site.name, site.partition, site.account, site.time) == (
        "alpha",
        "train",
        "vision",
        1440,
    )
    assert (site.accelerator, site.gpu.request, site.gpu.type) == ("cuda", "gpus-per-node", None)
    assert site.cpus_per_gpu == 7  # of the 30 that Slurm gives to jobs
    assert site.roles.tensorrt.partition == "infer"
    assert site.roles.cpu.partition == "batch"
    assert site.run_root == "/lustre/me/rtdetr-runs"
    assert site.apptainer == "/opt/apptainer/bin/apptainer"
    assert site.module_lines == ["module load apptainer/1.3.1"]
    assert site.env == {"HTTPS_PROXY": None}
    assert [one.split(":")[0] for one in draft.unknown] == ["the image"]
    assert "also yours: video" in draft.text


def test_every_key_says_where_it_comes_from(tmp_path: Path) -> None:
    _, draft = drafted(cluster(), tmp_path)
    keys = [line for line in draft.text.splitlines() if line and line[0].isalpha()]
    assert keys
    assert [line for line in keys if "#" not in line and line != "roles:"] == []


def test_what_is_not_known_is_told_in_the_file_too(tmp_path: Path) -> None:
    little = Surroundings(folders=(Folder("/home/me", "ext4", GIB),))
    alone = cluster(partitions=PARTITIONS.splitlines()[0], asked=False)
    site, draft = drafted(alone, tmp_path, little)
    assert site.account is None
    for word in ("account", "the image", "apptainer", "TensorRT", "whether compute nodes see"):
        assert [one for one in draft.unknown if word in one], word
    for one in draft.unknown:
        assert f"#   - {one}" in draft.text


@pytest.mark.parametrize(
    ("config", "nodes", "gpu"),
    [
        ("SelectType = select/cons_res\n", NODES, ("gres", None)),
        (
            "",
            NODES + "NodeName=n5 CPUTot=8 Gres=gpu:h100:8 State=IDLE Partitions=train\n",
            ("gpus-per-node", "a100"),
        ),
        ("", "NodeName=n1 CPUTot=8 State=IDLE Partitions=train\n", ("none", None)),
        ("", "", ("none", None)),
    ],
)
def test_how_gpus_are_asked_for(
    tmp_path: Path, config: str, nodes: str, gpu: tuple[str, str | None]
) -> None:
    site, _ = drafted(cluster(config, nodes=nodes), tmp_path)
    assert (site.gpu.request, site.gpu.type) == gpu
    assert site.accelerator == ("cpu" if gpu[0] == "none" else "cuda")


def test_a_cluster_that_shows_nothing_still_gives_a_profile(tmp_path: Path) -> None:
    _, draft = drafted(Cluster({}, (), ()), tmp_path, Surroundings(folders=()))
    assert "# partition: NAME" in draft.text
    assert "# run_root:" in draft.text


def test_file_systems() -> None:
    mounts = mounted("/dev/vda / ext4 rw 0 0\nsrv:/x /my\\040data nfs4 rw 0 0\nnone\n")
    assert file_system(Path("/my data/runs"), mounts) == "nfs4"
    assert file_system(Path("/my"), mounts) == "ext4"
