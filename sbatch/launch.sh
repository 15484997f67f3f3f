# shellcheck shell=bash
# What the templates of this folder share: run a program of the image on every node of a job.
#
# A template sets the variables below, reads this file, and calls
#
#   launch PROGRAM ACTION [key=value ...]
#
# which does not return: it ends the job, or puts it back into the queue.
#
#   KIT              the folder of this file; every node must see it
#   SPEC             the experiment YAML; what it says at the job's first start holds for all starts
#   WORK             folder of the job's own files; every node must see it
#   RESULTS          folder of the results (the spec, or a key=value, must say the same)
#   PARENTS          FIELD=FOLDER …: fields that are filled with a checkpoint from a folder
#   CHECKPOINT       which one: best, last, latest or epoch:N; empty: the best, else the last
#   IMAGE            the SIF; empty: no container, but the environment of PYTHON
#   PYTHON           bin/python of an environment with rtdetr-slurm[engine], where there is no IMAGE
#   APPTAINER        the program; APPTAINER_FLAGS: further flags of `apptainer exec`
#   BINDS            what the container sees besides WORK and RESULTS, as values of --mount
#   CONTAINER_ENV    NAME (the host's value) or NAME=value: what it sees of the environment
#   SCRATCH          node-local folder for temporary files; $VAR is filled in on the node
#   ACCELERATOR      cuda or cpu
#   GPUS             processes on each node, one for each GPU
#   MAX_REQUEUES     so often an interrupted job goes back to the queue by itself
#
# It never guesses: what is missing or does not fit ends the job with a line that says so.

say() { printf 'launch: %s\n' "$*" >&2; }
die() { say "$*"; exit 3; }

# --- on the first node ---------------------------------------------------------------------------
launch() {
    set -eo pipefail
    [[ -n ${SLURM_JOB_ID:-} ]] || die "not inside a job: hand the template to sbatch"
    [[ -f $KIT/launch.sh ]] || die "KIT=$KIT holds no launch.sh: set KIT to the folder that does"
    [[ -f $SPEC ]] || die "SPEC=$SPEC is not there: sbatch TEMPLATE SPEC"
    [[ -z $IMAGE || -e $IMAGE ]] || die "IMAGE=$IMAGE is not there"
    [[ -n $IMAGE || -x $PYTHON ]] || die "neither IMAGE nor PYTHON names what the job runs in"
    local folder
    for folder in "$WORK" "$RESULTS"; do
        [[ $folder == /* ]] || die "WORK and RESULTS must be absolute, not $folder"
        mkdir -p "$folder" || die "$folder cannot be made"
    done
    restart=${SLURM_RESTART_COUNT:-0}
    # Of an array, the task: a bare SLURM_JOB_ID may mean all of them.
    job=$SLURM_JOB_ID
    [[ -z ${SLURM_ARRAY_JOB_ID:-} ]] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
    if ((restart == 0)) || [[ ! -e $WORK/spec.yaml ]]; then
        cp -- "$SPEC" "$WORK/spec.yaml"
    fi
    container_environment
    local program=$1 action=$2 arguments=("${@:3}") one found
    for one in "${PARENTS[@]}"; do
        folder=${one#*=}
        BINDS+=("$(mount_of "$folder" "$folder"),ro")
        found=$(checkpoint_in "$folder") || exit
        arguments+=("${one%%=*}=\"$found\"")
    done
    rendezvous
    if [[ -z $stop ]]; then
        say "starts $program $action on $SLURM_JOB_NUM_NODES node(s), $MASTER_ADDR:$MASTER_PORT"
        # One task per node: torchrun's work, starting a process per GPU, is the program's own.
        srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 \
            ${SLURM_CPUS_PER_TASK:+"--cpus-per-task=$SLURM_CPUS_PER_TASK"} \
            --export=ALL --kill-on-bad-exit=1 --mpi=none \
            bash "$KIT/launch.sh" node "$(quoted "${APPTAINER_FLAGS[@]}")" \
            "$(quoted "${BINDS[@]}")" "$program" "$action" -e spec.yaml "${arguments[@]}" &
        step=$!
        # A signal ends a wait; one more tells how the step itself ended.
        while kill -0 "$step" 2> /dev/null; do wait "$step" || :; done
        code=0
        wait "$step" || code=$?
    else
        code=75
    fi
    finish "$code"
}

# USR2 is Slurm's warning (--signal=B:USR2@…): the training writes a full checkpoint at its next step
# and ends with 75. URG is what it listens to: Slurm signals all processes of a step, and USR2 would
# end the one that serves the image's files. A TERM (scancel, preemption without a warning) has
# reached the training already, and Slurm itself knows whether the job comes back.
stop=${stop:-}
step=
job=
warned() {
    stop=1
    [[ -n $step ]] || return 0
    say "asks the training to stop"
    while kill -0 "$step" 2> /dev/null; do
        scancel --signal=URG "$job" || :
        sleep 5
    done &
}
trap warned USR2
trap : TERM

finish() {
    if (($1 == 0)); then exit 0; fi
    # srun reports the highest code of all nodes: a killed neighbour's hides a 75.
    if [[ -n $stop ]] && (($1 == 75 || $1 > 128)); then
        if ((restart < MAX_REQUEUES)); then
            say "goes back to the queue"
            scontrol requeue "$job" || die "the requeue was refused"
            exit 75
        fi
        say "has come back $restart times already and stays down (MAX_REQUEUES)"
    fi
    exit "$1"
}

# An address that every node can reach, for a name may not resolve inside the container; and a port
# that no other job on these nodes has: from the job id and the number of the start.
rendezvous() {
    local first
    first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    MASTER_ADDR=$(getent ahostsv4 "$first" | awk 'NR == 1 { print $1 }')
    [[ -n $MASTER_ADDR ]] || die "the name of the first node, $first, does not resolve"
    MASTER_PORT=$((20000 + (SLURM_JOB_ID + 4001 * restart) % 12768))
    export MASTER_ADDR MASTER_PORT KIT WORK RESULTS IMAGE PYTHON APPTAINER SCRATCH ACCELERATOR GPUS
    export LAUNCH_RESUME=
    if ((restart > 0)); then LAUNCH_RESUME=1; fi
}

# The container sees these and nothing else of the host's environment. A user's own APPTAINER_BIND
# and the like would change what runs without a trace.
container_environment() {
    local name one
    for name in $(compgen -e); do
        case $name in
            APPTAINER | APPTAINER_CACHEDIR | APPTAINER_TMPDIR | APPTAINER_CONFIGDIR) ;;
            APPTAINER* | SINGULARITY*) unset "$name" ;;
        esac
    done
    for one in "${CONTAINER_ENV[@]}"; do
        if [[ $one != *=* ]]; then
            [[ -n ${!one+x} ]] || continue
            one=$one=${!one}
        fi
        inside "${one%%=*}" "${one#*=}"
    done
    return 0
}

inside() {
    if [[ -n $IMAGE ]]; then export "APPTAINERENV_$1=$2"; else export "$1=$2"; fi
}

# A checkpoint that has been read to its end: by the package's own rule, in the container.
checkpoint_in() {
    local found
    SCRATCH='' container "$WORK" "$(quoted "${APPTAINER_FLAGS[@]}")" "$(quoted "${BINDS[@]}")"
    found=$("${argv[@]}" python -c '
import sys
from pathlib import Path
from rtdetr_slurm.errors import UserError
from rtdetr_slurm.runs.choice import best_or_last, checkpoint_of
folder, choice = Path(sys.argv[1]), sys.argv[2]
try:
    print((checkpoint_of(folder, choice) if choice else best_or_last(folder)).path)
except UserError as error:
    sys.exit(f"launch: {error}")' "$1" "$CHECKPOINT") || exit 3
    say "takes $found"
    printf '%s' "$found"
}

quoted() { if (($#)); then printf '%q ' "$@"; fi; }

# --- on every node -------------------------------------------------------------------------------
# argv: what runs a command in the container, in a folder; flags and binds are quoted lists.
container() {
    local flags=() mounts=() one
    eval "flags=($2) mounts=($3)"
    if [[ -z $IMAGE ]]; then
        cd "$1"
        PATH=$(dirname "$PYTHON"):$PATH
        argv=(env)
        return 0
    fi
    argv=("$APPTAINER" --quiet exec --cleanenv --no-eval --no-home --no-mount "home,cwd")
    argv+=(--pwd "$1" "${flags[@]}")
    if [[ $ACCELERATOR == cuda ]]; then argv+=(--nv); fi
    for one in "$WORK" "$RESULTS" ${SCRATCH:+"$SCRATCH"}; do mounts+=("$(mount_of "$one" "$one")"); done
    for one in "${mounts[@]}"; do argv+=(--mount "$one"); done
    argv+=("$IMAGE")
}

# Fields of --mount are CSV, so that a path may hold ',' and ':'.
mount_of() { printf 'type=bind,"source=%s","destination=%s"' "${1//\"/\"\"}" "${2//\"/\"\"}"; }

# The rank of a node is only right inside its own task: in the batch script SLURM_NODEID is 0, and
# srun would hand that to every node.
node() {
    set -eo pipefail
    local rank=$SLURM_NODEID folder name
    [[ $SLURM_PROCID == "$rank" && $SLURM_STEP_NUM_TASKS == "$SLURM_STEP_NUM_NODES" ]] ||
        die "task $SLURM_PROCID on node $rank: exactly one task per node, in their order, is needed"
    if [[ $ACCELERATOR == cuda ]]; then check_gpus; fi
    SCRATCH=$(filled_in "$SCRATCH")
    folder=$WORK/node-$rank
    mkdir -p "$folder"
    cp -- "$WORK/spec.yaml" "$folder/spec.yaml" # a program may rewrite its spec: each has its own
    inside WORLD_SIZE "$SLURM_STEP_NUM_NODES" # of nodes, as NVIDIA TAO has it
    inside NODE_RANK "$rank"
    inside RANK "$rank"
    inside MASTER_ADDR "$MASTER_ADDR"
    inside MASTER_PORT "$MASTER_PORT"
    inside NUM_GPU_PER_NODE "$GPUS"
    inside RTDETR_ACCELERATOR "$ACCELERATOR"
    if [[ -n $LAUNCH_RESUME ]]; then inside RTDETR_RESUME 1; fi
    if [[ -n ${CUDA_VISIBLE_DEVICES:-} ]]; then inside CUDA_VISIBLE_DEVICES "$CUDA_VISIBLE_DEVICES"; fi
    if [[ -n ${SLURM_CPUS_PER_TASK:-} ]]; then inside RTDETR_CPUS "$SLURM_CPUS_PER_TASK"; fi
    if [[ -n $SCRATCH ]]; then inside TMPDIR "$SCRATCH"; fi
    inside PYTHONNOUSERSITE 1
    inside PYTHONUNBUFFERED 1
    if [[ -z $IMAGE ]]; then # what the ranks of a library may take for their own
        for name in $(compgen -e SLURM_) $(compgen -e PMI); do unset "$name"; done
    fi
    container "$folder" "$1" "$2"
    exec "${argv[@]}" "${@:3}"
}

# The GPUs that Slurm gave to this node, never others.
check_gpus() {
    local ids
    IFS=, read -r -a ids <<< "${CUDA_VISIBLE_DEVICES:-}"
    ((${#ids[@]} == GPUS)) ||
        die "the allocation has ${#ids[@]} GPUs on $(hostname) (${CUDA_VISIBLE_DEVICES:-none}), GPUS=$GPUS"
    [[ "${ids[*]}" =~ ^[0-9\ ]+$ ]] || die "$CUDA_VISIBLE_DEVICES: MIG slices are not supported"
}

# $NAME and ${NAME} of a text, and nothing else of a shell.
filled_in() {
    local text=$1 done=
    while [[ $text =~ ^([^$]*)\$\{?([A-Za-z_][A-Za-z0-9_]*)\}?(.*)$ ]]; do
        [[ -n ${!BASH_REMATCH[2]} ]] || die "SCRATCH=$1: ${BASH_REMATCH[2]} is not set on this node"
        done+=${BASH_REMATCH[1]}${!BASH_REMATCH[2]}
        text=${BASH_REMATCH[3]}
    done
    printf '%s' "$done$text"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    [[ ${1:-} == node ]] || die "this file is read by the templates beside it"
    node "${@:2}"
fi
