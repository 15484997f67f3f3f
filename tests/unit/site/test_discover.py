"""Which site profiles are found, how they merge, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.site.discover import FoundSite, find_site
from rtdetr_slurm.site.profile import Site


class Machine:
    """A login node: its home folder, its /etc, and what is on PATH."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.admin = root / "etc" / "site.yaml"
        self.env = {"HOME": str(root / "home"), "PATH": str(root / "bin")}
        (root / "bin").mkdir()

    def install_slurm(self) -> None:
        sbatch = self.root / "bin" / "sbatch"
        sbatch.write_text("#!/bin/sh\n")
        sbatch.chmod(0o755)

    def write(self, where: str, text: str) -> Path:
        path = self.root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def write_user(self, text: str) -> Path:
        return self.write("home/.config/rtdetr-slurm/site.yaml", text)

    def write_admin(self, text: str) -> Path:
        return self.write("etc/site.yaml", text)

    def find(self, option: str | Path | None = None) -> FoundSite:
        return find_site(None if option is None else str(option), self.env, admin=self.admin)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_without_slurm_and_profile_this_machine_is_the_site(machine: Machine) -> None:
    found = machine.find()
    assert found.site.scheduler == "local"
    assert found.site.accelerator is None
    assert found.site.gpu.request == "none"
    [note] = found.notes
    assert "no sbatch on PATH" in note


def test_slurm_without_a_profile_is_an_error_that_says_what_to_write(machine: Machine) -> None:
    machine.install_slurm()
    with pytest.raises(SiteError) as error:
        machine.find()
    message = str(error.value)
    assert error.value.exit_code == 3
    assert str(machine.root / "home/.config/rtdetr-slurm/site.yaml") in message
    assert "specs/site-gpu-cluster.yaml" in message
    assert "docs/site.md" in message


def test_local_can_be_asked_for_where_there_is_slurm(machine: Machine) -> None:
    machine.install_slurm()
    machine.write_user("name: cluster\n")
    assert machine.find("local").site.scheduler == "local"
    machine.env["RTDETR_SLURM_SITE"] = "local"
    assert machine.find().site.scheduler == "local"


def test_files_merge_per_key_and_the_nearest_wins(machine: Machine) -> None:
    option = machine.write("a.yaml", "account: a\npartitions: {train: pa}\n")
    machine.env["RTDETR_SLURM_SITE"] = str(
        machine.write("b.yaml", "account: b\nqos: b\npartitions: {train: pb, cpu: pb}\n")
    )
    machine.write_user("qos: c\nconstraint: c\npartitions: {tensorrt: pc}\n")
    machine.write_admin("account: d\ntime: 60\nname: d\n")
    found = machine.find(option)
    site = found.site
    assert (site.account, site.qos, site.constraint, site.time) == ("a", "b", "c", 60)
    assert site.name == "d"
    assert site.partitions.model_dump() == {"train": "pa", "cpu": "pb", "tensorrt": "pc"}
    assert [path.name for path in found.sources] == ["a.yaml", "b.yaml", "site.yaml", "site.yaml"]


def test_null_takes_back_what_a_farther_file_says(machine: Machine) -> None:
    machine.write_user("account: null\n")
    machine.write_admin("account: shared\n")
    assert machine.find().site.account is None


def test_limits_of_the_administrator_can_be_tightened_and_not_widened(machine: Machine) -> None:
    machine.write_user(
        "limits: {max_nodes: 64, max_time: 30, partitions: [gpu, secret], max_gpus_per_node: 2}\n"
    )
    machine.write_admin("limits: {max_nodes: 4, max_time: 60, partitions: [gpu, cpu]}\n")
    limits = machine.find().site.limits
    assert limits.max_nodes == 4
    assert limits.max_time == 30
    assert limits.partitions == ["gpu"]
    assert limits.max_gpus_per_node == 2


def test_null_does_not_lift_an_administrators_limit(machine: Machine) -> None:
    machine.write_user("limits: null\n")
    machine.write_admin("limits: {max_nodes: 4}\n")
    assert machine.find().site.limits.max_nodes == 4


def test_a_slurm_site_computes_with_cuda_unless_it_says_otherwise(machine: Machine) -> None:
    machine.write_user("name: x\n")
    assert machine.find().site.accelerator == "cuda"
    machine.write_user("accelerator: cpu\n")
    assert machine.find().site.accelerator == "cpu"


def test_short_and_long_forms(machine: Machine) -> None:
    machine.env["DATA"] = "/big/data"
    machine.write_user(
        "images: {train: ~/train.sif, tensorrt: {path: /t.sif, sha256: 'sha256:"
        + "a" * 64
        + "'}}\n"
        "binds: ['/a', '/b:/c', '$DATA:/d:ro', {source: '/e:f', read_only: true}]\n"
        "time: 1-12:00:00\n"
        "run_root: $DATA/runs\n"
        "scratch: $TMPDIR\n"
    )
    site = machine.find().site
    assert site.images.train is not None
    assert site.images.train.path == str(Path.home() / "train.sif")
    assert site.images.tensorrt is not None
    assert site.images.tensorrt.sha256 == "a" * 64
    assert [(b.source, b.target, b.read_only) for b in site.binds] == [
        ("/a", None, False),
        ("/b", "/c", False),
        ("/big/data", "/d", True),
        ("/e:f", None, True),
    ]
    assert site.time == 36 * 60
    assert site.run_root == "/big/data/runs"
    assert site.scratch == "$TMPDIR", "scratch is filled in on the node, not here"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("partition: gpu\n", "{file}:1:1: partition: unknown key; did you mean 'partitions'?"),
        ("time: soon\n", "{file}:1:7: time: found 'soon'; allowed: minutes, hours:minutes:seconds"),
        ("time: 12:30\n", "so write 12:30:00"),
        ("gpu: {request: gpus}\n", "{file}:1:16: gpu.request: found 'gpus'; allowed: "),
        ("signal_lead_s: 5\n", "{file}:1:16: signal_lead_s: found 5; allowed: ≥ 10"),
        ("env: ['A=1']\n", "{file}:1:7: env[0]: found 'A=1'; allowed: the name of an environment"),
        ("binds: ['/a:/b:xx']\n", "{file}:1:9: binds[0]: found '/a:/b:xx'; allowed: 'source'"),
        ('module_lines: ["a\\nb"]\n', "module_lines[0]: found 'a\\nb'; allowed: one line of text"),
        ("images: {train: {path: /x, sha256: abc}}\n", "allowed: 64 hexadecimal digits"),
        ("images: {train: x.sif}\n", "{file}: images.train: 'x.sif' must be an absolute path"),
        ("run_root: $NOPE/runs\n", "names $NOPE, which is not set"),
        ("mem_gb: lots\n", "{file}:1:9: mem_gb: found 'lots' (text); allowed: a number"),
        ("a: [\n", "not valid YAML"),
    ],
)
def test_a_wrong_profile_is_named_with_its_place(machine: Machine, text: str, message: str) -> None:
    path = machine.write_user(text)
    with pytest.raises(SiteError) as error:
        machine.find()
    assert message.format(file=path) in str(error.value).replace("{file}", str(path))


def test_a_named_profile_must_exist(machine: Machine) -> None:
    with pytest.raises(SiteError, match="--site: there is no file"):
        machine.find("/nowhere/site.yaml")
    machine.env["RTDETR_SLURM_SITE"] = "/nowhere/site.yaml"
    with pytest.raises(SiteError, match=r"\$RTDETR_SLURM_SITE: there is no file"):
        machine.find()


def test_the_example_profile_is_valid(machine: Machine) -> None:
    machine.env["HTTPS_PROXY"] = ""
    example = Path(__file__).parents[3] / "specs" / "site-gpu-cluster.yaml"
    site = machine.find(example).site
    assert site.partitions.train == "gpu"
    assert site.time == 24 * 60
    assert site.limits.max_time == 3 * 24 * 60


def test_every_key_is_described_and_documented() -> None:
    documented = (Path(__file__).parents[3] / "docs" / "site.md").read_text()
    for name in Site.model_fields:
        assert f"`{name}`" in documented, name
