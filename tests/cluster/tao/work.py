"""What TAO's scripts leave behind, by one rank: status.json in their format, checkpoints, files."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import sys
import time
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

Spec = dict[str, Any]

RANK, WORLD = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
FAULT = os.environ.get("TAO_FAULT")


class Status:
    """The status logger: rank 0 appends, and repeats the last KPIs on every line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "status.json"
        self.kpi: dict[str, object] = {}

    def write(self, status: str, message: str, **data: object) -> None:
        if RANK != 0:
            return
        now = datetime.now()
        line = {
            "date": f"{now.month}/{now.day}/{now.year}",
            "time": f"{now.hour}:{now.minute}:{now.second}",
            "status": status,
            "verbosity": "INFO",
            "message": message,
            **data,
            **({"kpi": self.kpi} if self.kpi else {}),
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def meet() -> None:
    """The rendezvous: rank 0 listens, waits for all others, and lets them go together."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    if RANK == 0:
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("", port))
            server.listen(WORLD)
            others = [server.accept()[0] for _ in range(WORLD - 1)]
        seen = sorted(struct.unpack("i", other.recv(4))[0] for other in others)
        assert seen == list(range(1, WORLD)), f"ranks {seen} have come"
        for other in others:
            other.send(b"!")
        return
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection((address, port), timeout=60) as own:
                own.send(struct.pack("i", RANK))
                assert own.recv(1) == b"!"
                return
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def devices() -> list[str]:
    """Lightning's devices: numbers among those that CUDA sees, or an error."""
    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    asked = [int(one) for one in os.environ["TAO_VISIBLE_DEVICES"].split(",")]
    if max(asked) >= len(visible):
        raise RuntimeError(f"You requested gpu: {asked} but your machine only has {len(visible)}")
    return [visible[number].strip() for number in asked]


def train(spec: Spec, folder: Path, status: Status) -> None:
    asked = spec["train"]
    if asked["num_nodes"] * len(devices()) != WORLD:
        raise RuntimeError(f"the world has {WORLD} ranks")
    resumed = asked.get("resume_training_checkpoint_path")
    resumed = resumed or next(map(str, folder.glob("*_latest.pth")), "")
    first = 0
    if resumed:
        named = re.search(r"epoch_(\d+)", os.path.realpath(resumed))
        assert named is not None, resumed
        first = int(named[1]) + 1
        status.write("RUNNING", f"Resuming training from checkpoint: {resumed}")
    status.write("STARTED", "Starting Training Loop.")
    for epoch in range(first, asked["num_epochs"]):
        time.sleep(0.2)
        if FAULT == "slow" and epoch == 2 and not first:
            time.sleep(600)
        if FAULT == "exception" and epoch == 1:
            raise AssertionError("something that TAO has no words for")
        if FAULT == "interrupt" and epoch == 1:
            os.kill(int(os.environ["TAO_ENTRY_PID"]), signal.SIGINT)
            raise KeyboardInterrupt
        if (epoch + 1) % asked["validation_interval"] == 0:
            score = 0.5 - 0.1 * epoch
            status.kpi = {"val_mAP": str(score), "val_mAP50": str(score + 0.1), "val_loss": 1.0}
            status.write("RUNNING", "Eval metrics generated.")
        counted = {"epoch": epoch - first + 2, "max_epoch": 120, "eta": "0:00:01.000001"}
        status.write("RUNNING", "Training loop in progress", **counted)
        status.kpi = {"train_loss": 1.0 / (epoch + 1)}
        status.write("RUNNING", "Train metrics generated.")
        if RANK == 0 and (epoch + 1) % asked["checkpoint_interval"] == 0:
            path = folder / f"model_epoch_{epoch:03d}.pth"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("archive/data.pkl", f"weights of epoch {epoch}")
            latest = folder / "rtdetr_model_latest.pth"
            latest.unlink(missing_ok=True)
            latest.symlink_to(path.name)


def evaluate(spec: Spec, folder: Path, status: Status) -> None:
    checkpoint = Path(spec["evaluate"]["checkpoint"])
    print(f"evaluates {checkpoint} on {devices()}", flush=True)
    status.kpi = {"test_mAP": "0.5", "test_mAP50": "0.6"}
    status.write("RUNNING", f"Test metrics of {checkpoint.name} generated.")


def export(spec: Spec, folder: Path, status: Status) -> None:
    Path(spec["export"]["onnx_file"]).write_text("an ONNX file")


def gen_trt_engine(spec: Spec, folder: Path, status: Status) -> None:
    asked = spec["gen_trt_engine"]
    assert Path(asked["onnx_file"]).read_text() == "an ONNX file"
    Path(asked["trt_engine"]).write_text(f"built on {os.environ['CUDA_VISIBLE_DEVICES']}")


def main() -> None:
    subtask = sys.argv[1]
    folder = sys.argv[sys.argv.index("--config-path") + 1]
    spec = yaml.safe_load(Path(folder, sys.argv[sys.argv.index("--config-name") + 1]).read_text())
    unknown = {"job", "automl"} & set(spec)
    assert not unknown, f"Key {unknown} is not in struct"
    results = Path(spec[subtask].get("results_dir") or Path(spec["results_dir"], subtask))
    results.mkdir(parents=True, exist_ok=True)
    (results / "experiment.yaml").write_text(yaml.dump(spec))
    leaked = sorted(name for name in os.environ if name.startswith(("SLURM_", "RTDETR_")))
    print(f"rank {RANK} of {WORLD} sees {os.environ['CUDA_VISIBLE_DEVICES']} {leaked}", flush=True)
    status = Status(results)
    if WORLD > 1:
        meet()
    mode = subtask.capitalize()
    try:
        status.write("STARTED", f"Starting RT-DETR {subtask}.")
        globals()[subtask](spec, results, status)
        status.write("RUNNING", f"{mode} finished successfully.")
    except KeyboardInterrupt:
        status.write("FAILURE", f"User/System interruption: {mode} was interrupted")
    except (ValueError, TypeError) as error:
        status.write("FAILURE", f"Parameter validation error: {error}")
        raise


if __name__ == "__main__":
    main()
