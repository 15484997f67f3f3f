"""As much of torchrun as the stand-in needs: it starts the ranks of a node, and ends them."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nnodes", type=int, default=1)
    parser.add_argument("--nproc-per-node", type=int, default=1)
    parser.add_argument("--node-rank", type=int, default=0)
    parser.add_argument("--master-addr", default="127.0.0.1")
    parser.add_argument("--master-port", default="29500")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    world = asked.nnodes * asked.nproc_per_node
    ranks = []
    for local in range(asked.nproc_per_node):
        values = {
            "RANK": asked.node_rank * asked.nproc_per_node + local,
            "LOCAL_RANK": local,
            "WORLD_SIZE": world,
            "MASTER_ADDR": asked.master_addr,
            "MASTER_PORT": asked.master_port,
        }
        env = {**os.environ, **{name: str(value) for name, value in values.items()}}
        ranks.append(subprocess.Popen([sys.executable, *asked.command], env=env))
    while any(rank.poll() is None for rank in ranks):
        if any(rank.poll() for rank in ranks):
            for rank in ranks:
                rank.kill()
        time.sleep(0.05)
    return 1 if any(rank.returncode for rank in ranks) else 0


if __name__ == "__main__":
    sys.exit(main())
