"""How clusters are set up, in the words of real Slurms (22.05), shortened."""

from __future__ import annotations

from rtdetr_slurm.slurm.configuration import (
    Cluster,
    parse_associations,
    parse_config,
    parse_nodes,
    parse_partitions,
)

CONFIG = """\
Configuration data as of 2026-11-26T02:42:26
AccountingStorageEnforce = none
AccountingStorageType   = accounting_storage/slurmdbd
AccountingStoreFlags    = (null)
AuthInfo                = socket=/run/munge/socket,cred_expire=10
ClusterName             = alpha
EnforcePartLimits       = ALL
JobRequeue              = 1
JobSubmitPlugins        = (null)
KillWait                = 20 sec
MaxArraySize            = 1001
MaxJobCount             = 10000
MinJobAge               = 600 sec
PowerPlugin             =
PreemptMode             = OFF
PreemptType             = preempt/none
SelectType              = select/cons_tres
SlurmctldHost[0]        = head(127.0.0.1)
SlurmctldParameters     = (null)
SLURM_VERSION           = 22.05.8
TrackWCKey              = No

Cgroup Support Configuration:
ConstrainDevices        = yes

Slurmctld(primary) at head is UP
"""
PARTITIONS = """\
PartitionName=train AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL Default=YES QoS=N/A \
DefaultTime=00:10:00 GraceTime=0 MaxNodes=UNLIMITED MaxTime=1-00:00:00 MinNodes=0 \
Nodes=node[1-3] PreemptMode=OFF State=UP TotalCPUs=12 TotalNodes=3
PartitionName=infer AllowAccounts=vision,video AllowQos=normal Default=NO DefaultTime=NONE \
GraceTime=60 MaxNodes=1 MaxTime=UNLIMITED Nodes=node4 PreemptMode=REQUEUE State=DOWN
"""
NODES = """\
NodeName=node1 Arch=x86_64 CPUAlloc=0 CPUEfctv=30 CPUTot=32 Gres=gpu:a100:4(S:0-1) \
OS=Linux 6.1 #1 SMP Debian RealMemory=512000 State=MIXED Partitions=train CfgTRES=cpu=32
NodeName=node2 CPUTot=32 Gres=gpu:a100:4(S:0-1) RealMemory=512000 State=IDLE+DRAIN Partitions=train
NodeName=node3 CPUTot=32 Gres=gpu:a100:4(S:0-1) RealMemory=512000 State=DOWN* Partitions=train
NodeName=node4 CPUTot=16 Gres=gpu:l4:2 RealMemory=128000 State=IDLE Partitions=infer,all
"""
ASSOCIATIONS = """\
vision||normal,high
video|train|normal
"""


def cluster(
    config: str = "", partitions: str = PARTITIONS, nodes: str = NODES, *, asked: bool = True
) -> Cluster:
    """A cluster with some settings of its own: lines that come after the others win.

    Args:
        asked: whether sacctmgr answers.
    """
    return Cluster(
        parse_config(CONFIG + config),
        parse_partitions(partitions),
        parse_nodes(nodes),
        parse_associations(ASSOCIATIONS) if asked else None,
        "vision" if asked else None,
    )
