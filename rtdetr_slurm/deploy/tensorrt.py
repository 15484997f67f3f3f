"""TensorRT's Python modules behind one face: tensorrt 10.x and 11.x, and tensorrt_rtx.

Networks are strongly typed, which is all that TensorRT 11 has: what computes in which precision is
written in the ONNX graph. TensorRT-RTX builds without a GPU, for the compute capability that it is
told; TensorRT builds for the GPU that it finds. Nobody else imports one of the modules.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from rtdetr_slurm.contract import FailureClass
from rtdetr_slurm.deploy.record import Builder, EngineRecord, Profile
from rtdetr_slurm.errors import ActionError, RequestError, SiteError
from rtdetr_slurm.vision.batching import in_batches
from rtdetr_slurm.vision.onnx_metadata import BOXES, INPUT, LOGITS

_SHOWN_ERRORS = 3
_MEGABYTE = 2**20
_NO_MEMORY = ("out of memory", "OutOfMemory", "cudaErrorMemoryAllocation")


@dataclass(frozen=True)
class Request:
    """What is to be built.

    Attributes:
        profile: of the batch; None: the graph has a fixed one.
        size: (height, width) of the images.
        workspace_mb: scratch memory that a kernel may take, in MB of 2^20 bytes.
        capability: compute capability of the GPU to build for.
        timing_cache: what an earlier build has left; None: no cache is wanted.
        verbose: log everything.
    """

    profile: Profile | None
    size: tuple[int, int]
    workspace_mb: int
    capability: str
    timing_cache: bytes | None = None
    verbose: bool = False


@dataclass(frozen=True)
class Built:
    """An engine.

    Attributes:
        plan: the engine file's content, as a buffer.
        timing_cache: for the next build; None: none was wanted, or the one that was given is of
            another GPU or version.
        log: what TensorRT has said, line by line.
    """

    plan: Any
    timing_cache: bytes | None
    log: str


class Log:
    """What TensorRT says, and what of it was an error."""

    def __init__(self, say: Callable[[str], None] | None = None) -> None:
        self.lines: list[str] = []
        self.errors: list[str] = []
        self._say = say

    def add(self, severity: str, message: str) -> None:
        self.lines.append(f"{severity}: {message}")
        if severity.endswith("ERROR"):
            self.errors.append(message)
        if self._say is not None:
            self._say(self.lines[-1])

    def failure(self, what: str) -> ActionError:
        """The error of a call that has failed."""
        said = "; ".join(self.errors[-_SHOWN_ERRORS:]) or "it does not say why"
        if any(sign in said for sign in _NO_MEMORY):
            return ActionError(f"{what}: {said}", FailureClass.OOM_GPU)
        return ActionError(f"{what}: {said}")


@dataclass(frozen=True)
class TensorRt:
    """One of the modules.

    Attributes:
        version: of the library; engines run in the one that has built them.
    """

    name: Builder
    version: str
    _module: Any

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @property
    def capabilities(self) -> tuple[str, ...] | None:
        """Compute capabilities that it builds for, wherever it runs; None: that of its GPU."""
        if self.name == "tensorrt":
            return None
        members = self._module.ComputeCapability.__members__
        found = [name.removeprefix("SM") for name in members if name.startswith("SM")]
        return tuple(f"{digits[:-1]}.{digits[-1]}" for digits in sorted(found, key=int))

    def logger(self, log: Log, verbose: bool = False) -> Any:
        """A logger of the module's own kind that writes to `log`."""
        trt = self._module

        class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                name = str(severity).rpartition(".")[2]
                if verbose or name != "VERBOSE":
                    log.add(name, message)

        return Logger()

    def _started(self, kind: Callable[[Any], Any], logger: Any, log: Log) -> Any:
        """A builder or a runtime.

        Raises:
            ActionError: the driver, or the GPU, is none that this TensorRT can work with.
        """
        try:
            return kind(logger)
        except TypeError:  # what its binding makes of a null pointer
            raise log.failure(f"{self} cannot start") from None

    def build(self, onnx: Path | bytes, request: Request, log: Log) -> Built:
        """An engine of an ONNX graph in which all precision is written.

        Args:
            onnx: the file, or its content.

        Raises:
            RequestError: the graph has what TensorRT does not know; names the nodes.
            ActionError: TensorRT cannot build it.
        """
        trt = self._module
        logger = self.logger(log, request.verbose)
        builder = self._started(trt.Builder, logger, log)
        typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        network = builder.create_network(typed)
        parser = trt.OnnxParser(network, logger)
        parsed = parser.parse_from_file(str(onnx)) if isinstance(onnx, Path) else parser.parse(onnx)
        if not parsed:
            problems = [parser.get_error(index) for index in range(parser.num_errors)]
            said = "; ".join(
                f"{one.desc()} (node {one.node_name()}, operator {one.node_operator()})"
                for one in problems[:_SHOWN_ERRORS]
            )
            raise RequestError(f"{self} cannot read the ONNX graph: {said}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_mb * _MEGABYTE)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
        config.clear_flag(trt.BuilderFlag.TF32)  # FP32 is what the checkpoint was compared with
        if request.profile is not None:
            profile = builder.create_optimization_profile()
            batches = (request.profile.min, request.profile.opt, request.profile.max)
            profile.set_shape(INPUT, *((batch, 3, *request.size) for batch in batches))
            config.add_optimization_profile(profile)
        if self.capabilities is not None:
            config.num_compute_capabilities = 1
            name = f"SM{request.capability.replace('.', '')}"
            config.set_compute_capability(getattr(trt.ComputeCapability, name), 0)
        cached = False
        if request.timing_cache is not None and self.times_kernels:
            cache = config.create_timing_cache(request.timing_cache)
            cached = cache is not None and config.set_timing_cache(cache, False)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise log.failure(f"{self} cannot build the engine")
        kept = bytes(config.get_timing_cache().serialize()) if cached else None
        return Built(plan, kept, "\n".join(log.lines) + "\n")

    @property
    def times_kernels(self) -> bool:
        """Whether it has a timing cache; TensorRT-RTX measures nothing when it builds."""
        return self.name == "tensorrt"

    def open(self, plan: bytes, record: EngineRecord, device: torch.device) -> RunningEngine:
        """An engine on a GPU.

        Raises:
            RequestError: the file is no engine that this TensorRT can load, or not the one that its
                record is of.
        """
        log = Log()
        with torch.cuda.device(device):
            runtime = self._started(self._module.Runtime, self.logger(log), log)
            engine = runtime.deserialize_cuda_engine(plan)
            if engine is None:
                raise log.failure(f"{self} cannot load the engine")
            found = {
                name: (tuple(engine.get_tensor_shape(name))[1:], engine.get_tensor_dtype(name))
                for name in map(engine.get_tensor_name, range(engine.num_io_tensors))
            }
            float32 = self._module.DataType.FLOAT
            expected = {
                INPUT: ((3, *record.size), float32),
                LOGITS: ((record.num_queries, record.num_classes), float32),
                BOXES: ((record.num_queries, 4), float32),
            }
            if found != expected:
                raise RequestError(
                    f"the engine's inputs and outputs are {_described(found)}, and its record says "
                    f"{_described(expected)}: build it again with gen_trt_engine"
                )
            context = engine.create_execution_context()
            if context is None:
                raise log.failure(f"{self} cannot run the engine")
            # Of its own: TensorRT waits for all others on the default one.
            stream = torch.cuda.Stream(device)
        return RunningEngine(record, device, log, (runtime, engine), context, stream)


@dataclass(frozen=True)
class RunningEngine:
    """An engine on a GPU: a `Predict`."""

    record: EngineRecord
    device: torch.device
    _log: Log
    _kept: Any
    """What has to live as long as the context."""
    _context: Any
    _stream: Any

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """[B, 3, height, width] to `pred_logits` and `pred_boxes`, on the device of the images.

        Any number of images is cut into batches of the profile.

        Raises:
            RequestError: the images have another size.
            ActionError: the GPU cannot do it.
        """
        record = self.record
        if tuple(images.shape[1:]) != (3, *record.size):
            raise RequestError(
                f"the engine takes images of 3x{record.height}x{record.width}, got "
                f"{'x'.join(map(str, images.shape[1:]))}"
            )
        there = images.to(self.device, torch.float32)
        with torch.cuda.device(self.device):
            outputs = in_batches(self._run, there, record.profile.min, record.profile.max)
        logits, boxes = (one.to(images.device) for one in outputs)
        return {LOGITS: logits, BOXES: boxes}

    def _run(self, images: Tensor) -> list[Tensor]:
        images, count = images.contiguous(), len(images)
        logits = images.new_empty(count, self.record.num_queries, self.record.num_classes)
        boxes = images.new_empty(count, self.record.num_queries, 4)
        context, caller = self._context, torch.cuda.current_stream(self.device)
        done = context.set_input_shape(INPUT, tuple(images.shape))
        for name, tensor in ((INPUT, images), (LOGITS, logits), (BOXES, boxes)):
            done = done and context.set_tensor_address(name, tensor.data_ptr())
        self._stream.wait_stream(caller)
        done = done and context.execute_async_v3(self._stream.cuda_stream)
        caller.wait_stream(self._stream)
        if not done:
            raise self._log.failure(f"the engine does not run on a batch of {count}")
        return [logits, boxes]


def _described(tensors: Mapping[str, tuple[tuple[int, ...], Any]]) -> str:
    return ", ".join(f"{name} {list(shape)} {kind}" for name, (shape, kind) in tensors.items())


def open_tensorrt(name: str | None) -> TensorRt:
    """The module of that name; None: the one that is installed, TensorRT before TensorRT-RTX.

    Raises:
        SiteError: it is not installed, or cannot be loaded.
    """
    names = get_args(Builder) if name is None else (name,)
    problems = []
    for one in names:
        try:
            module = importlib.import_module(one)
        except (ImportError, OSError) as error:  # OSError: a library that it needs
            problems.append(f"{one} ({error})")
            continue
        return TensorRt(one, module.__version__, module)
    raise SiteError(
        f"Python has no module {' and no module '.join(problems)}: engines are built and run in "
        "the TensorRT image (role tensorrt of the site profile), or where tensorrt-rtx is installed"
    )
