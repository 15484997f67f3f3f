"""Names and numbers that two or more parts of the system must agree on, spelled once.

Standard library only: this module is imported on the login node, by the node wrapper on a
compute node, and inside the container.
"""

from __future__ import annotations

import signal
from enum import Enum
from typing import Literal

# --- schema versions: each kind of file has its own, so that a change of one leaves the others
# readable ------------------------------------------------------------------------------------
RUN_VERSION = 2
"""run.json and summary.json"""
EVENT_VERSION = 1
"""The lines of an event file."""
STATUS_VERSION = 1
"""The lines of a status.json."""
CHECKPOINT_VERSION = 1
"""model_epoch_*.pth and interrupted checkpoints."""
ENCRYPTION_VERSION = 1
"""The layout of encrypted model files."""
METRICS_VERSION = 2
"""metrics.json and metrics_epoch_*.json: since 2 with thresholds, errors, confusion and curves."""
PREDICTIONS_VERSION = 1
"""images.json and predictions.json of an inference"""
EXPORT_VERSION = 1
"""export.json"""
QUANTIZE_VERSION = 1
"""quantize.json, and `quantization` in a quantized checkpoint"""
ENGINE_VERSION = 1
"""The record beside a TensorRT engine."""
REPRODUCTION_VERSION = 1
"""What `reproduce --json` prints."""
LINEAGE_VERSION = 1
"""What `verify --json` prints."""
PARITY_VERSION = 1
"""parity.json"""
SWEEP_VERSION = 1
"""sweep.json"""
BEST_VERSION = 1
"""best.json"""
STAGED_VERSION = 1
"""staged.json"""
CALIBRATION_VERSION = 1
"""Version of the file that keeps a calibration of INT8."""
LAUNCH_VERSION = 2
"""How jobs/controller.zip is called: since 2 with the number of the stage's first start."""
CLAIM_VERSION = 1
"""claim.json"""
MICRO_BATCH_VERSION = 1
"""Of micro_batch.json."""
PROGRESS_VERSION = 1
"""progress.json"""
EFFICIENCY_VERSION = 1
"""efficiency.json"""
MOVED_VERSION = 1
"""moved.json"""
CACHE_VERSION = 1
"""What lies in the cache beside what was brought there."""
SPEC_SCHEMA_VERSION = 1
"""The JSON Schemas of specs and their manifest."""


# --- exit codes ----------------------------------------------------------------------------
class ExitCode:
    """Process exit codes of `rtdetr-slurm`, `rtdetr`, the stage run and the node wrapper."""

    OK = 0
    FAILED = 1
    BAD_REQUEST = 2
    SITE_CANNOT = 3
    INTERRUPTED = 75
    """Interrupted after a full checkpoint was written, which a further start goes on from."""


END_SIGNALS = (signal.SIGUSR2, signal.SIGTERM)
"""What asks the stage run for an end: Slurm's warning, and whoever ends the job."""

STOP_SIGNAL = signal.SIGURG
"""What the stage run sends to every process of the step to have the training stop at the next
step boundary. It is a signal that whoever does not expect it ignores: Slurm signals all processes
of a step, and SIGUSR2 or SIGTERM would end the FUSE process that an unprivileged Apptainer serves
the image's files from, and with it the training."""


# --- environment of a launch ---------------------------------------------------------------
class Env:
    """Environment variables handed from the node wrapper to `rtdetr` in the container.

    WORLD_SIZE is the number of *nodes* here, as NVIDIA TAO's entry point defines it; torchrun
    gives its workers the usual meaning (number of processes) itself.
    """

    WORLD_SIZE = "WORLD_SIZE"
    NODE_RANK = "NODE_RANK"
    RANK = "RANK"
    MASTER_ADDR = "MASTER_ADDR"
    MASTER_PORT = "MASTER_PORT"
    NUM_GPU_PER_NODE = "NUM_GPU_PER_NODE"
    CUDA_VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
    ACCELERATOR = "RTDETR_ACCELERATOR"
    """`cuda` or `cpu`; unset means: cuda where torch sees a device, else cpu, said in one line."""
    CPUS = "RTDETR_CPUS"
    """CPU cores of this node that are the job's; unset: all that the process may run on."""
    RESUME = "RTDETR_RESUME"
    """`1` when this start continues an interrupted one in the same results folder."""
    CLAIM = "RTDETR_CLAIM"
    """Id of the claim on the results folder (claim.json) under which this start writes there; unset
    when `rtdetr` is started by hand, and claims the folder itself."""
    RESTART = "RTDETR_RESTART"
    """Number of this start under that claim: how often the job came back to the queue before."""

    LAUNCHED = "RTDETR_LAUNCHED"
    """When the launch began to start this (seconds since 1970): what the container takes."""
    ENTERED = "RTDETR_ENTERED"
    """When `rtdetr` itself began; it tells its ranks."""
    STARTED = "RTDETR_STARTED"
    """File that `rtdetr` makes when it begins, for the launch; unset: none."""
    HANG_MINUTES = "RTDETR_HANG_MINUTES"
    """Minutes without a step after which a rank has hung, 0 for never; unset: the spec's."""
    ENCRYPTION_KEY = "RTDETR_ENCRYPTION_KEY"
    """What model files are encrypted with, or `file:///…` with it in there; unset: nothing is."""
    NODE = "RTDETR_NODE"
    """This node as the scheduler calls it; unset: its host name."""

    SITE = "RTDETR_SLURM_SITE"
    """Path of the site profile (login side)."""
    WARNED = "RTDETR_SLURM_WARNED"
    """File in which the batch script notes the signals that it gets, by name, a line each."""
    LOCAL_JOB_ID = "RTDETR_SLURM_LOCAL_JOB_ID"
    """Id of a job of the local site: what the chain runner tells the stages that it starts."""
    LOCAL_TASK = "RTDETR_SLURM_LOCAL_TASK"
    """Index of an array task of the local site; unset outside arrays."""


ENGINE_SECTION = "engine"
"""The section of a spec that our engine is given and TAO's images are not."""


# --- files of a run ------------------------------------------------------------------------
RUN_JSON = "run.json"
SPEC_YAML = "spec.yaml"
EVENTS_DIR = "events"
SUMMARY_JSON = "summary.json"
JOBS_DIR = "jobs"
CONTROLLER_ZIP = "controller.zip"
"""In jobs/: the launch code of the version that submitted the run; python runs it as it is."""
BATCH_SCRIPT = "job.sh"
"""In a stage's folder of jobs/: the batch script as it was sent."""
CACHE_DIR = ".cache"
"""In run_root: what was fetched and unpacked, for all runs."""
SECRETS_PATTERN = ".secrets-{uid}/{run}.json"
"""In run_root, while a run has not ended: what its jobs need and no record holds, readable by its
owner only."""
RESULTS_DIR = "results"

STAGED_JSON = "staged.json"
MOVED_JSON = "moved.json"
"""In a copy of a run folder: where the run was."""
EXPERIMENT_YAML = "experiment.yaml"
STATUS_JSON = "status.json"
CLAIM_JSON = "claim.json"
METRICS_JSON = "metrics.json"
METRICS_PATTERN = "metrics_epoch_{epoch:03d}.json"
"""What metrics.json was after an epoch, beside the epoch's checkpoint."""
MICRO_BATCH_JSON = "micro_batch.json"
"""The size of micro-batches that fit the GPU's memory, and what that was found for."""
EXPORT_JSON = "export.json"
"""What an ONNX file holds, and how far it is from its checkpoint."""
QUANTIZE_JSON = "quantize.json"
"""What was quantized how, what that costs in accuracy, and which layers are to blame."""
PARITY_JSON = "parity.json"
"""What an engine is worth beside the checkpoint and the ONNX file that it was made of, and how long
each takes."""
SWEEP_JSON = "sweep.json"
"""What a checkpoint is worth at several sizes, and how long each takes."""
BEST_JSON = "best.json"
"""Which checkpoint of which trial a search has chosen."""
WANDB_JSON = "wandb.json"
"""Which run at Weights & Biases a training logs to."""
REPORT_HTML = "report.html"
PREDICTIONS_JSON = "predictions.json"
IMAGES_JSON = "images.json"
"""Of an inference: what the ids of images in predictions.json mean, and the files of each."""
PROGRESS_JSON = "progress.json"
"""What rank 0 does at this moment, and what the time of all starts went into."""
EFFICIENCY_JSON = "efficiency.json"
"""What the time of an action that has ended went into."""
ANNOTATED_IMAGE = "annotated.jpg"
CHECKPOINT_PATTERN = "model_epoch_{epoch:03d}.pth"
QUANTIZED_PATTERN = "quantized_model_{backend}"
"""What `quantize` leaves, as TAO calls it: .pth follows, or nothing after modelopt.onnx."""
CHECKPOINT_GLOB = "model_epoch_*.pth"
ONNX_SUFFIX = ".onnx"
ENGINE_RECORD_SUFFIX = ".json"
ENGINE_LOG_SUFFIX = ".log"
"""How the names go on, after the engine file's, of the record of an engine and of the log of its
build; the ONNX file that it was built from ends in ONNX_SUFFIX likewise."""
STEP_PATTERN = "model_epoch_{epoch:03d}_step_{step:06d}.pth"
"""Full training state after so many steps of an epoch, where checkpoints are written by steps."""
INTERRUPTED_PATTERN = "interrupted_epoch_{epoch:03d}_step_{step:06d}.pth"
"""Full training state after so many steps of an epoch: of a training that was stopped, or that has
the epoch still to validate. Gone once superseded. Its name says how far it is, so that no reader
needs torch to compare."""


HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
HUGGING_FACE_CONFIG = "config.json"
HUGGING_FACE_PROCESSOR = "preprocessor_config.json"
"""What Hugging Face's folders hold: the weights, and beside them what detector they are of, and how
its images are prepared."""

CHECKPOINT_CHOICE = r"best|last|latest|epoch:[0-9]{1,9}"
"""How one checkpoint of a training is asked for; epochs count from 0, as in the files' names."""
LATEST_SUFFIX = "_latest.pth"
"""How the name ends of the link that TAO keeps to the file it has written last."""


RUNTIMES = ("tensorrt", "tensorrt_rtx", "onnxruntime")
"""What runs a deployed detector, by the name of its Python module."""
COMPUTE_CAPABILITY = r"^[1-9][0-9]?\.[0-9]$", "major and minor number as text, such as '8.9'"
"""How a GPU's is written, and that in words."""


class Infer:
    """TAO's inference functions: what fills a field of the spec that is left empty."""

    OUTPUT_DIR = "output_dir"
    PARENT_MODEL = "parent_model"
    PARENT_MODEL_FOLDER = "parent_model_folder"
    RESUME_MODEL = "resume_model"
    PTM_IF_NO_RESUME_MODEL = "ptm_if_no_resume_model"
    CREATE_ONNX_FILE = "create_onnx_file"
    CREATE_ENGINE_FILE = "create_engine_file"
    CREATE_CAL_CACHE = "create_cal_cache"
    KEY = "key"
    FETCH = "fetch"
    """Ours: the file behind an address."""


MODEL_FILES = {
    Infer.CREATE_ONNX_FILE: "rtdetr.onnx",
    Infer.CREATE_ENGINE_FILE: "rtdetr.engine",
    Infer.CREATE_CAL_CACHE: "rtdetr.cal",
}
"""By the function that makes up its path: the name of a file in the stage's results folder."""


# --- searches for hyper-parameters ---------------------------------------------------------
Algorithm = Literal[
    "bayesian", "random", "grid", "qmc", "hyperband", "asha", "bohb", "hyperband_es", "pbt", "dehb"
]
Direction = Literal["maximize", "minimize"]
Retention = Literal["best", "topk", "all"]
"""Whose checkpoints are left when a search is over."""
AUTOML_DIR = "automl"
"""In a results folder: what belongs to a search, and is not one of the later stages'."""


BAD_IMAGES = "--bad-images"
"""The program's flag that says whether it goes on without images that cannot be used."""


# --- KPI names (as in TAO's status.json) ---------------------------------------------------
class Kpi:
    TRAIN_LOSS = "train_loss"
    VAL_LOSS = "val_loss"
    VAL_MAP = "val_mAP"
    VAL_MAP50 = "val_mAP50"
    TEST_MAP = "test_mAP"
    TEST_MAP50 = "test_mAP50"
    PARAMETERS = "parameters"
    LATENCY_MS = "latency_ms"


TRAINING_KPIS = (Kpi.VAL_MAP, Kpi.VAL_MAP50, Kpi.VAL_LOSS, Kpi.TRAIN_LOSS)
"""What a training can be judged by as it goes."""
HIGHER_IS_BETTER = (Kpi.VAL_MAP, Kpi.VAL_MAP50)
COSTS = (Kpi.PARAMETERS, Kpi.LATENCY_MS)
"""KPIs of what a detector costs whoever runs it, for who asks for them (`--costs`)."""


class Status(str, Enum):
    """Values of `status` in a status.json line: TAO's, and PREEMPTED."""

    STARTED = "STARTED"
    RUNNING = "RUNNING"
    SKIPPED = "SKIPPED"
    SUCCESS = "SUCCESS"
    FAILURE = "FAILURE"
    PREEMPTED = "PREEMPTED"


class FailureClass(str, Enum):
    """Why a job ended without success; only INFRA and PREEMPTED are ever retried by themselves."""

    INFRA = "infra"
    PREEMPTED = "preempted"
    TIMEOUT = "timeout"
    OOM_HOST = "oom_host"
    OOM_GPU = "oom_gpu"
    CONFIG = "config"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"
