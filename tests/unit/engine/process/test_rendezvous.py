"""What the launch says against what the spec asks for."""

from __future__ import annotations

import pytest
from engine_support import LAUNCH

from rtdetr_slurm.actions import ACTIONS
from rtdetr_slurm.engine.process.rendezvous import Rendezvous, read_rendezvous
from rtdetr_slurm.errors import SiteError
from rtdetr_slurm.spec import Topology

TRAIN = ACTIONS["train"]


class TestRendezvous:
    asked = Topology(2, 4, (0, 1, 2, 3))

    def test_of_a_launch(self) -> None:
        assert read_rendezvous(LAUNCH, TRAIN, self.asked) == Rendezvous(
            2, 1, 4, "node1", 29400, True
        )

    def test_rank_stands_in_for_node_rank(self) -> None:
        launch = {k: v for k, v in LAUNCH.items() if k != "NODE_RANK"} | {"RANK": "1"}
        assert read_rendezvous(launch, TRAIN, self.asked).node_rank == 1

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"WORLD_SIZE": "3"}, r"the launch has WORLD_SIZE=3, the spec has train\.num_nodes=2"),
            ({"NUM_GPU_PER_NODE": "8"}, r"NUM_GPU_PER_NODE=8, the spec has train\.num_gpus=4"),
            ({"NODE_RANK": "2"}, "NODE_RANK is 2; allowed is 0 to 1"),
            ({"NODE_RANK": "one"}, "NODE_RANK is 'one', which is not a whole number"),
            ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0; allowed is at least 1"),
            ({"MASTER_PORT": "80"}, "MASTER_PORT is 80; allowed is 1024 to 65535"),
            ({"MASTER_ADDR": None}, "MASTER_ADDR is not set"),
            ({"NODE_RANK": None}, "RANK is not: the launch is incomplete"),
            (
                {"NUM_GPU_PER_NODE": None, "CUDA_VISIBLE_DEVICES": "0,1"},
                r"NUM_GPU_PER_NODE \(not set, so all GPUs .*\)=2, the spec has train\.num_gpus=4",
            ),
            ({"WORLD_SIZE": None}, r"train\.num_nodes is 2, but WORLD_SIZE .* is not set"),
        ],
    )
    def test_what_does_not_agree(self, change: dict[str, str | None], message: str) -> None:
        launch = {k: v for k, v in (LAUNCH | change).items() if v is not None}
        with pytest.raises(SiteError, match=message):
            read_rendezvous(launch, TRAIN, self.asked)

    def test_what_a_launcher_leaves_out_has_taos_defaults(self) -> None:
        launch = {"WORLD_SIZE": "2", "NODE_RANK": "0", "MASTER_ADDR": "node1"}
        seen = {**launch, "CUDA_VISIBLE_DEVICES": "4,5,6,7"}
        assert read_rendezvous(seen, TRAIN, self.asked) == Rendezvous(2, 0, 4, "node1", 29500, True)
        on_cpu = {**launch, "RTDETR_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "0"}
        assert read_rendezvous(on_cpu, TRAIN, self.asked).processes_per_node == 4
        alone = read_rendezvous({"WORLD_SIZE": "1"}, TRAIN, Topology(1, 1, (0,)))
        assert (alone.node_rank, alone.master_addr) == (0, "127.0.0.1")

    def test_gpu_ids_count_within_what_is_visible_under_a_launcher(self) -> None:
        """Their devices are not the first ones, which the ranks would take."""
        asked = Topology(2, 2, (2, 3))
        launch = {**LAUNCH, "NUM_GPU_PER_NODE": "2", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
        with pytest.raises(SiteError, match=r"gpu_ids=\[2, 3\].*set CUDA_VISIBLE_DEVICES=2,3"):
            read_rendezvous(launch, TRAIN, asked)
        ours = {**launch, "CUDA_VISIBLE_DEVICES": "2,3", "RTDETR_CLAIM": "run:train"}
        assert read_rendezvous(ours, TRAIN, asked).processes_per_node == 2

    def test_names_the_section_that_the_user_wrote(self) -> None:
        """Distillation takes its nodes and GPUs from `train`; an export has one GPU, unasked."""
        with pytest.raises(SiteError, match=r"NUM_GPU_PER_NODE=4, the spec has train\.num_gpus=8"):
            read_rendezvous(LAUNCH, ACTIONS["distill"], Topology(2, 8, tuple(range(8))))
        with pytest.raises(SiteError, match="WORLD_SIZE=2, export runs on one GPU"):
            read_rendezvous(LAUNCH, ACTIONS["export"], Topology(1, 1, (0,)))

    def test_by_hand(self) -> None:
        rendezvous = read_rendezvous({}, TRAIN, Topology(1, 2, (0, 1)))
        assert (rendezvous.nodes, rendezvous.processes_per_node, rendezvous.launched) == (
            1,
            2,
            False,
        )
        assert rendezvous.master_addr == "127.0.0.1"
