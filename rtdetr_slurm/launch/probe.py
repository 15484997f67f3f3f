"""A probe job of `doctor` on node 0: every node tells about itself, then ranks add up a tensor.

It goes the way of every job: batch script, this archive, srun, node wrapper, container. On the
site `local` the same happens on this machine, without a queue.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rtdetr_slurm.contract import Env, ExitCode
from rtdetr_slurm.errors import SiteError, UserError, explained
from rtdetr_slurm.launch.attempts import Settings, all_trials, attempts
from rtdetr_slurm.launch.log import say
from rtdetr_slurm.launch.rendezvous import MASTER_HOST, reserve_port, resolve
from rtdetr_slurm.launch.slurm_allocation import srun_prefix
from rtdetr_slurm.launch.step import this_code
from rtdetr_slurm.lifetime import ends_with_me
from rtdetr_slurm.records import exists
from rtdetr_slurm.runs.failures import classify
from rtdetr_slurm.runs.logs import tail
from rtdetr_slurm.runs.probe import (
    ANSWER,
    END,
    HELLO,
    MEETING,
    Answer,
    End,
    Hello,
    Reduced,
    Request,
    Trial,
    read_nodes,
    read_record,
    read_request,
    write_record,
)
from rtdetr_slurm.slurm.commands import Slurm
from rtdetr_slurm.slurm.environment import job_environment
from rtdetr_slurm.slurm.job_ids import own_job_id

PROBE, PROBE_NODE = "probe", "probe-node"
"""Words of the command line; FACTS and REDUCE say what a node is to do."""
FACTS, REDUCE = "facts", "reduce"

ANSWER_WAIT_S = 75.0
"""NFS may show a file of another machine as late as a minute after it was written."""
_GAVE_UP = "Timeout ("
"""How Python begins to tell where a rank stands that has waited for too long."""
_FACTS_LIMIT_S = 120.0
_STARTING_S = 180.0
"""For a large image on a cold file system to be opened, and for torch to be imported."""
_ENDING_S = 30.0
_TOTAL_S = 9 * 60.0
"""After that no further attempt is begun: the last one must end before the job's time limit."""


def run_probe(arguments: Sequence[str]) -> int:
    """Examine the nodes of this job; returns the exit code.

    Args:
        arguments: the folder of the probe.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the batch script has it ignored
    folder = Path(arguments[0])
    try:
        _Probe(folder, read_request(folder), os.environ).run()
    except (UserError, OSError) as error:
        problem = explained(error)
        say(str(problem))
        with suppress(OSError):
            end: End = {"seen_after_s": None, "trials": [], "problem": str(problem)}
            write_record(folder, END, end)
        return problem.exit_code
    return ExitCode.OK


class _Probe:
    def __init__(self, folder: Path, request: Request, environ: Mapping[str, str]) -> None:
        self.folder, self.request, self._environ = folder, request, environ
        self.stage = request.stage
        self._slurm = self.stage.launch.scheduler == "slurm"
        self._client = Slurm(job_environment(environ))
        self._job_id = own_job_id(environ) if self._slurm else str(os.getpid())
        self._host = "127.0.0.1"
        if self._slurm:
            [self._host, *_] = self._client.hostnames(environ["SLURM_JOB_NODELIST"])
        self._restart = int(environ.get("SLURM_RESTART_COUNT") or 0)
        self._steps = 0
        self._no_more = time.monotonic() + _TOTAL_S

    def run(self) -> None:
        write_record(self.folder, HELLO, self._hello())
        seen_after = self._wait_for_answer() if self._slurm else 0.0
        nodes = self.stage.resources.nodes
        problem = self._facts()
        lacks = any(node["problems"] for node in read_nodes(self.folder))
        enters = self.request.enters and not problem and not lacks
        trials = self._trials(nodes) if enters else []
        end: End = {"seen_after_s": seen_after, "trials": trials, "problem": problem}
        write_record(self.folder, END, end)

    def _hello(self) -> Hello:
        requeue, comment = None, ""
        if self._slurm:
            with suppress(SiteError):
                kept = self._client.as_kept(self._job_id)
                requeue, comment = kept.requeue, kept.comment
        return {
            "time": time.time(),
            "host": socket.gethostname(),
            "python": this_code()[0],
            "requeue": requeue,
            "comment": comment,
        }

    def _wait_for_answer(self) -> float | None:
        """How long after it was written a file of the login node is seen here; None: not at all."""
        give_up = time.monotonic() + ANSWER_WAIT_S
        while time.monotonic() < give_up:
            if exists(self.folder / ANSWER):
                answer = read_record(Answer, self.folder, ANSWER)
                return time.time() - answer["time"] if answer is not None else None
            time.sleep(0.2)
        return None

    def _facts(self) -> str:
        """Have every node leave its record; returns what went wrong."""
        log = self.folder / "facts.log"
        code = self._step(self.stage.resources.nodes, [FACTS], log, _FACTS_LIMIT_S)
        if code == ExitCode.OK:
            return ""
        return evidence_of(code, tail(log))

    # --- the ranks ---------------------------------------------------------------------------
    def _trials(self, nodes: int) -> list[Trial]:
        """All attempts, on one node where it has several ranks, then on all."""
        ranks = max(1, self.stage.resources.gpus_per_node)
        accelerator, interfaces = self.stage.launch.accelerator, self._interfaces()
        found: list[Trial] = []
        for count in dict.fromkeys(([1] if ranks > 1 or nodes == 1 else []) + [nodes]):
            tried = attempts(count, accelerator, interfaces)
            if not all_trials(count, tried, found, self._reduce, self._is_late):
                break
        return found

    def _is_late(self) -> bool:
        return time.monotonic() > self._no_more

    def _interfaces(self) -> list[str | None]:
        return [node["interface"] for node in read_nodes(self.folder)]

    def _reduce(self, nodes: int, settings: Settings) -> Trial:
        """One attempt."""
        name = f"reduce-{self._steps}"
        log = self.folder / f"{name}.log"
        began = time.monotonic()
        words = [REDUCE, f"{name}.json", str(nodes), json.dumps(settings)]
        code = self._step(nodes, words, log, _STARTING_S + 2 * self.request.limit_s)
        lines, reduced = tail(log), None
        if code == ExitCode.OK:
            reduced = read_record(Reduced, self.folder, f"{name}.json")
        trial: Trial = {
            "nodes": nodes,
            "settings": dict(settings),
            "met": any(MEETING in line for line in lines),
            "seconds": time.monotonic() - began,
            "evidence": "" if reduced is not None else evidence_of(code, lines),
            "reduced": reduced,
        }
        say(f"all-reduce on {nodes} nodes with {dict(settings)}: {trial['evidence'] or 'works'}")
        return trial

    # --- steps -------------------------------------------------------------------------------
    def _step(self, nodes: int, words: Sequence[str], log: Path, limit_s: float) -> int | None:
        """Run node wrappers; returns their exit code, None where they had to be killed."""
        argv = [*self._prefix(nodes), *this_code(), PROBE_NODE, str(self.folder), *words]
        self._steps += 1
        say(f"starts {' '.join(argv)}")
        with (
            reserve_port(self._job_id, self._restart, self._steps) as reserved,
            log.open("wb") as stream,
            subprocess.Popen(
                argv,
                env=self._environment(reserved.getsockname()[1]),
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ends_with_me(),
            ) as process,
        ):
            try:
                return process.wait(limit_s)
            except subprocess.TimeoutExpired:
                self._kill(process)
                return None

    def _prefix(self, nodes: int) -> list[str]:
        if not self._slurm:
            return []
        prefix = srun_prefix(replace(self.stage.resources, nodes=nodes))
        return prefix if nodes == self.stage.resources.nodes else [*prefix, "-w", self._host]

    def _environment(self, port: int) -> dict[str, str]:
        return {
            **self._environ,
            Env.MASTER_ADDR: resolve(self._host),
            Env.MASTER_PORT: str(port),
            MASTER_HOST: socket.gethostname(),
        }

    def _kill(self, process: subprocess.Popen[bytes]) -> None:
        if self._slurm:
            with suppress(SiteError):
                self._client.signal_steps(self._job_id, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_ENDING_S)
                return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def evidence_of(code: int | None, lines: Sequence[str]) -> str:
    """Why a step failed, from its exit code (None: it was killed) and its log."""
    if code is None:
        said = next((line for line in reversed(lines) if line.strip()), "nothing")
        return f"no end in sight, so it was killed; the last line of its log: {said}"
    if any(line.startswith(_GAVE_UP) for line in lines):
        return "the ranks met, and then one of them never came back from adding up"
    return classify(exit_code=code, log_tail=lines).evidence.removeprefix("log: ")
