"""A private Slurm: munge, MariaDB, slurmdbd, slurmctld and four slurmd on this one machine.

Everything it writes lies in a state folder of its own, the clients find it by SLURM_CONF, and a
Slurm, munge or MariaDB that the machine already runs stays untouched.
"""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import processes
from .machine import HarnessError, cache_dir, locked, run, timed
from .newer_slurm import newer_slurm, plugin_dir, suite
from .slurm_conf import (
    CLUSTER,
    NODES,
    TYPED_GPUS,
    Ports,
    address,
    gres_conf,
    mail_program,
    slurm_conf,
    slurmdbd_conf,
)

FIRST_PORT = 17000
HOSTS = Path("/etc/hosts")
START_LIMIT_S = 60
"""How long a daemon may take to answer."""
WORKER = "PYTEST_XDIST_WORKER"
JOBS_EACH = 3000
"""More than the tests send, and little enough that ports stay apart."""
SLURMDS = tuple(f"slurmd-{node}" for node in NODES)
DAEMONS = (*SLURMDS, "slurmctld", "slurmdbd", "mariadbd", "munged")
"""In the order in which they are stopped; they start the other way round."""


@dataclass(frozen=True)
class Slurm:
    """A running cluster, and what its clients hand to jobs besides their own environment.

    Attributes:
        prefix: of the newer Slurm that it is; None: the machine's own.
    """

    state: Path
    prefix: Path | None = None
    job_env: Mapping[str, str] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.state / "slurm.conf"

    def environment(self) -> dict[str, str]:
        """What a client command needs to find this cluster."""
        path = f"{self.prefix}/bin:{os.environ['PATH']}"
        newer = {} if self.prefix is None else {"PATH": path}
        return {"SLURM_CONF": str(self.conf), **newer, **self.job_env}

    def command(self, *words: str | Path, timeout: float = 120) -> str:
        """Run a Slurm client command; returns its stdout."""
        return run(words, env={**clean_environment(), **self.environment()}, timeout=timeout)


def clean_environment() -> dict[str, str]:
    """This process's environment without what an enclosing Slurm job would have set."""
    leaking = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_", "SCANCEL_", "SQUEUE_", "SINFO_")
    return {name: value for name, value in os.environ.items() if not name.startswith(leaking)}


def state_dir() -> Path:
    """Where the cluster of this machine lives, or the one with a newer Slurm; processes of pytest
    that share the tests have one each."""
    parts = ("slurm", suite(), os.environ.get(WORKER))
    return cache_dir() / "-".join(part for part in parts if part)


def _first_job() -> int:
    """Where the numbers of jobs begin, from which follow the ports that their ranks meet at: no
    cluster's are near another's on the same machine."""
    worker = os.environ.get(WORKER, "gw0").removeprefix("gw")
    return 1 + JOBS_EACH * int(worker)


def _cluster() -> Slurm:
    name = suite()
    return Slurm(state_dir(), newer_slurm(name) if name else None)


def _kept() -> Path:
    return state_dir() / "kept"


def is_up() -> bool:
    """Whether all daemons of an earlier `up` still run."""
    return all(processes.alive(name, state_dir()) for name in DAEMONS)


@contextmanager
def session() -> Iterator[Slurm]:
    """A running cluster for the body: one kept by hand is used and left, else a fresh one."""
    with locked(state_dir().name):
        if is_up() and _kept().exists():
            cluster = _cluster()
            cancel_all(cluster)
            yield cluster
            return
        cluster = up()
        try:
            yield cluster
        finally:
            down()


def keep() -> Slurm:
    """Start the cluster afresh, and let later sessions use it and leave it up."""
    with locked(state_dir().name):
        cluster = up()
        _kept().touch()
    return cluster


def end() -> None:
    """Take the cluster down, whoever started it; waits for a session that uses it."""
    with locked(state_dir().name):
        down()


def up() -> Slurm:
    """Start the cluster afresh; what an earlier one left is taken down first.

    Raises:
        HarnessError: a daemon did not become ready; the message carries the tail of its log.
    """
    down()
    state = state_dir()
    cluster = _cluster()
    # One after another: all write to the machine's table of hosts, and look names up in it.
    with locked("start"), timed("starting Slurm"):
        _prepare(cluster)
        try:
            _start_munge(state)
            _start_accounting(cluster)
            _start_slurm(cluster)
        except HarnessError as error:
            logs = _log_tails(state)
            down()
            raise HarnessError(f"{error}\n{logs}") from error
    return cluster


def down() -> None:
    """Cancel all jobs and stop all daemons; also after a run that crashed."""
    state = state_dir()
    if not state.exists():
        return
    if is_up():
        cancel_all(_cluster())
    processes.stop(DAEMONS, state, grace=10)
    processes.stop_job_steps(state)


# --- start ---------------------------------------------------------------------------------
def _prepare(cluster: Slurm) -> None:
    state = cluster.state
    shutil.rmtree(state, ignore_errors=True)
    for name in ("log", "pid", "munge", "ctld", "gpu", *NODES):
        (state / name).mkdir(parents=True)
    (state / "munge").chmod(0o755)
    host = socket.gethostname().split(".")[0]
    ports = _free_ports()
    plugins = None if cluster.prefix is None else plugin_dir(cluster.prefix)
    (state / "slurm.conf").write_text(slurm_conf(state, host, ports, _first_job(), plugins))
    (state / "gres.conf").write_text(gres_conf(state))
    (state / "slurmdbd.conf").touch(mode=0o600)
    (state / "slurmdbd.conf").write_text(slurmdbd_conf(state, ports, plugins))
    mail_program(state).write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >> "{state}/mail.log"\n')
    mail_program(state).chmod(0o755)
    for number in range(TYPED_GPUS):
        # The device of /dev/null: Slurm only looks whether it is a device.
        os.mknod(state / "gpu" / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    _name_nodes()


def _free_ports() -> Ports:
    # At random: another user's tests may look for theirs at the same moment.
    for first in random.sample(range(FIRST_PORT, FIRST_PORT + 1000, 10), 100):
        ports = Ports(first)
        if all(_is_free(port) for port in ports.all()):
            return ports
    raise HarnessError(f"no free ports between {FIRST_PORT} and {FIRST_PORT + 1000}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


def _name_nodes() -> None:
    """Let node1 … node4 resolve, as torchrun needs it; writes /etc/hosts at most once."""
    missing = []
    for node in NODES:
        try:
            found = socket.gethostbyname(node)
        except OSError:
            missing.append(f"{address(node)} {node}  # rtdetr-slurm test cluster\n")
            continue
        if found != address(node):
            raise HarnessError(
                f"{node} resolves to {found} here, the test cluster needs {address(node)}: "
                f"change that line of {HOSTS}"
            )
    if missing:
        text = HOSTS.read_text()
        HOSTS.write_text(text + ("" if text.endswith("\n") else "\n") + "".join(missing))


def _start_munge(state: Path) -> None:
    folder = state / "munge"
    run(["mungekey", "--create", "--keyfile", folder / "key"])
    command = ["munged", "--foreground", "--force", f"--key-file={folder}/key"]
    command += [f"--socket={folder}/socket", f"--pid-file={folder}/pid"]
    command += [f"--seed-file={folder}/seed", f"--log-file={state}/log/munged.log"]
    processes.start("munged", command, state, {})
    probe = ["munge", "--no-input", f"--socket={folder}/socket"]
    processes.wait_for("munged", probe, {}, seconds=START_LIMIT_S)


def _start_accounting(cluster: Slurm) -> None:
    state = cluster.state
    data = state / "mariadb"
    # No file of the machine's own database server, no network, small logs.
    options = ["--no-defaults", f"--datadir={data}", "--user=root", "--innodb-log-file-size=8M"]
    run(
        [
            "mariadb-install-db",
            *options,
            "--skip-test-db",
            "--auth-root-authentication-method=socket",
        ]
    )
    database = f"{state}/mariadb.socket"
    options += ["--skip-networking", f"--socket={database}", f"--pid-file={state}/mariadb.pid"]
    processes.start("mariadbd", ["mariadbd", *options, "--innodb-lock-wait-timeout=900"], state, {})
    ping = ["mariadb-admin", "--no-defaults", f"--socket={database}", "ping"]
    processes.wait_for("mariadbd", ping, {}, seconds=START_LIMIT_S)
    # slurmdbd has no setting for the socket; the client library takes it from here.
    where = {**cluster.environment(), "MYSQL_UNIX_PORT": database}
    processes.start("slurmdbd", ["slurmdbd", "-D"], state, where)
    add = ["sacctmgr", "-i", "add", "cluster", CLUSTER]
    processes.wait_for("slurmdbd", add, cluster.environment(), seconds=START_LIMIT_S)


def _start_slurm(cluster: Slurm) -> None:
    state, env = cluster.state, cluster.environment()
    processes.start("slurmctld", ["slurmctld", "-D", "-f", cluster.conf], state, env)
    for node in NODES:
        _start_node(cluster, node)
    processes.wait_for("slurmctld", ["scontrol", "ping"], env, seconds=START_LIMIT_S)
    deadline = time.monotonic() + START_LIMIT_S
    while set(node_states(cluster).values()) != {"idle"}:
        if time.monotonic() > deadline:
            raise HarnessError(f"nodes are not idle: {node_states(cluster)}")
        time.sleep(0.2)


def _start_node(cluster: Slurm, node: str) -> None:
    command = ["slurmd", "-D", "-N", node, "-f", str(cluster.conf)]
    if cluster.prefix is not None:
        command += ["-d", f"{cluster.prefix}/bin/slurmstepd"]
    processes.start(f"slurmd-{node}", command, cluster.state, cluster.environment())


@contextmanager
def failed_node(cluster: Slurm, node: str) -> Iterator[None]:
    """A node that is gone, with all that ran on it, for the length of the block; Slurm has noticed
    it."""
    processes.stop([f"slurmd-{node}"], cluster.state, grace=0)
    # Nothing is asked to stop when a node dies.
    processes.stop_job_steps(cluster.state, grace=0, node=node)
    change = ("scontrol", "update", f"NodeName={node}")
    cluster.command(*change, "State=DOWN", "Reason=test")
    try:
        yield
    finally:
        _start_node(cluster, node)
        cluster.command(*change, "State=RESUME")
        # Else slurmctld counts GPUs of the lost job as taken, and waits for them.
        cluster.command("scontrol", "reconfigure")


def node_states(cluster: Slurm) -> dict[str, str]:
    """State of each node as sinfo has it ("idle", "mixed", …)."""
    listed = cluster.command("sinfo", "--noheader", "--Node", "--format=%N %T")
    return dict(line.split() for line in listed.splitlines())


# --- stop ----------------------------------------------------------------------------------
def cancel_all(cluster: Slurm, seconds: float = 40) -> None:
    """Cancel every job, and wait for their processes to be gone while Slurm can still do it."""
    env = {**clean_environment(), **cluster.environment()}

    def answer(*words: str) -> str:
        done = subprocess.run(
            words, env=env, capture_output=True, text=True, check=False, timeout=30
        )
        return done.stdout.strip()

    jobs = answer("squeue", "--noheader", "--format=%A").split()
    if jobs:
        answer("scancel", *jobs)
    deadline = time.monotonic() + seconds
    while answer("squeue", "--noheader", "--format=%A") and time.monotonic() < deadline:
        time.sleep(0.2)


def _log_tails(state: Path) -> str:
    tails = []
    for path in sorted((state / "log").iterdir()):
        lines = path.read_text(errors="replace").splitlines()[-8:]
        if lines:
            tails.append("\n".join([f"--- {path.name}", *lines]))
    return "\n".join(tails)
