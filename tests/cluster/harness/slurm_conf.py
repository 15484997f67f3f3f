"""The configuration files of the private cluster, as text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CLUSTER = "rtdetrtest"
NODES = ("node1", "node2", "node3", "node4")
GPUS_PER_NODE = 2
GPU_TYPE, TYPED_GPUS = "l4", 4
"""What the last node has instead: GPUs of a type, enough for two jobs with two of them each."""
FEATURE = "ampere"
"""Of the last node, too."""
CPUS_PER_NODE = 4
TRAIN = "train"
TENSORRT = "tensorrt"
URGENT = "urgent"
"""A partition of the training nodes whose jobs preempt those of TRAIN."""
REQUEUE_WAIT_SECONDS = 5
"""A requeued job must wait for its old credential to expire: Slurm's default is 120 s."""


@dataclass(frozen=True)
class Ports:
    """TCP ports of the daemons: `first` is slurmctld's, then slurmdbd's, then one per node."""

    first: int

    @property
    def slurmdbd(self) -> int:
        return self.first + 1

    def slurmd(self, node: str) -> int:
        return self.first + 2 + NODES.index(node)

    def all(self) -> range:
        return range(self.first, self.first + 2 + len(NODES))


def address(node: str) -> str:
    """The loopback address of a node: each has one of its own, as on a cluster."""
    return f"127.0.1.{NODES.index(node) + 1}"


def mail_program(state: Path) -> Path:
    """What Slurm sends mail with: a script that keeps a line of each in mail.log beside it."""
    return state / "mail"


def slurm_conf(
    state: Path, host: str, ports: Ports, first_job: int, plugins: Path | None = None
) -> str:
    """Text of slurm.conf: four nodes on one host, GPUs that are only device files.

    Args:
        first_job: number of the first job.
        plugins: folder of a Slurm's plugins that are not where it looks by itself.
    """
    plain = f"gpu:{GPUS_PER_NODE}"
    of_last = f"gpu:{GPU_TYPE}:{TYPED_GPUS} Features={FEATURE}"
    gres = {**dict.fromkeys(NODES, plain), NODES[-1]: of_last}
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={host} NodeAddr={address(node)} Port={ports.slurmd(node)}"
        f" CPUs={CPUS_PER_NODE} RealMemory=16000 Gres={gres[node]} State=UNKNOWN"
        for node in NODES
    )
    return f"""\
ClusterName={CLUSTER}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports.first}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={state}/munge/socket,cred_expire={REQUEUE_WAIT_SECONDS}
StateSaveLocation={state}/ctld
FirstJobId={first_job}
SlurmctldPidFile={state}/ctld/pid
SlurmctldLogFile={state}/log/slurmctld.log
SlurmdSpoolDir={state}/%n
SlurmdPidFile={state}/%n/pid
SlurmdLogFile={state}/log/slurmd-%n.log
# Nodes may claim more CPUs and memory than the one host behind them has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
MailProg={mail_program(state)}
ReturnToService=2
JobRequeue=1
KillWait=20
MinJobAge=600
SlurmdTimeout=300
EnforcePartLimits=ALL
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# Else the start of each job waits for others, up to 3 s.
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
JobAcctGatherType=jobacct_gather/linux
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={ports.slurmdbd}
# Towards slurmdbd this is no password but the socket of munge.
AccountingStoragePass={state}/munge/socket
AccountingStorageTRES=gres/gpu
GresTypes=gpu
{_plugin_dir(plugins)}{nodes}
PartitionName={TRAIN} Nodes={",".join(NODES[:3])} Default=YES DefaultTime=10 MaxTime=1-00:00:00
PartitionName={URGENT} Nodes={",".join(NODES[:3])} PriorityTier=10 DefaultTime=10
PartitionName={TENSORRT} Nodes={NODES[3]} DefaultTime=10 MaxTime=1-00:00:00
"""


def gres_conf(state: Path) -> str:
    """Text of gres.conf."""
    *plain, typed = NODES
    files = f"File={state}/gpu/gpu"
    return (
        f"NodeName={','.join(plain)} Name=gpu {files}[0-{GPUS_PER_NODE - 1}]\n"
        f"NodeName={typed} Name=gpu Type={GPU_TYPE} {files}[0-{TYPED_GPUS - 1}]\n"
    )


def slurmdbd_conf(state: Path, ports: Ports, plugins: Path | None = None) -> str:
    """Text of slurmdbd.conf; the file must be readable by its owner only."""
    return f"""\
AuthType=auth/munge
AuthInfo=socket={state}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports.slurmdbd}
SlurmUser=root
PidFile={state}/dbd.pid
LogFile={state}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm
{_plugin_dir(plugins)}"""


def _plugin_dir(plugins: Path | None) -> str:
    return "" if plugins is None else f"PluginDir={plugins}\n"
