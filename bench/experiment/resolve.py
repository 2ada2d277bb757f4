"""From a configuration to things that can run: the task, the device, and the arms with all their options spelled out."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from bench import registry
from bench.config import ArmConfig, Comparison, TrainingConfig
from bench.contracts import Task
from bench.engine.progress import learning_rate_curve
from bench.engine.step import StepSettings
from bench.errors import UserError
from bench.machine import look_at_driver, look_at_processor, run_program, usable_cores
from bench.store.provenance import is_own

PLACES = frozenset(
    [
        "class_file",
        "clip_weights",
        "data_path",
        "evaluation_index",
        "fidelity_weights",
        "grids_path",
        "guidance_weights",
        "perceptual_loss_weights",
        "test_class_file",
        "test_path",
        "weights",
    ]
)
"""Options of tasks and architectures that name a file or a folder."""


@dataclass(frozen=True)
class Arm:
    """One architecture with its options under one batch policy."""

    name: str
    """Unique in the comparison; names the folder."""
    policy: str
    config: ArmConfig
    """With the options of its preset filled in; ``config.name`` is the label that people read."""
    training: TrainingConfig

    @property
    def label(self) -> str:
        """Name without the batch policy."""
        return self.config.name

    def with_learning_rate(self, rate: float) -> Arm:
        """The arm with another base learning rate."""
        config = self.config.model_copy(update={"training": {**self.config.training, "learning_rate": rate}})
        return replace(self, config=config, training=self.training.model_copy(update={"learning_rate": rate}))

    def record(self, pretrained_parts: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
        """The arm as it stands in ``comparison.json``, with its parts that were trained elsewhere."""
        return {
            "name": self.name,
            "label": self.label,
            "architecture": self.config.architecture or self.config.factory,
            "options": self.config.options,
            "policy": self.policy,
            "pretrained": self.config.pretrained or bool(pretrained_parts),
            "pretrained_parts": list(pretrained_parts),
            "training": self.training.model_dump(mode="json"),
        }


def architecture_class(arm: ArmConfig) -> Any:
    """The class or factory that an arm names."""
    if arm.architecture is not None:
        return registry.load_object(registry.architecture(arm.architecture).target, "architecture")
    return registry.load_object(str(arm.factory), f"arms.{arm.name}.factory")


def build(arm: ArmConfig) -> nn.Module:
    """A fresh module of the arm's architecture.

    Raises:
        UserError: an option is unknown or wrong, or the factory does not give a module.
    """
    made = architecture_class(arm)
    where = f"arms.{arm.name}.options"
    if hasattr(made, "config_class"):
        options = registry.make_config(made, arm.options, where)
        try:
            module = made(options)
        except ValueError as error:  # what a design says of an option that shows its fault when it is built
            raise UserError(f"{where}: {error}") from error
    else:
        try:
            module = made(**arm.options)
        except TypeError as error:
            raise UserError(f"{where}: {arm.factory} does not take these options ({error})") from error
    if not isinstance(module, nn.Module):
        raise UserError(f"arms.{arm.name}.factory: {arm.factory} gave a {type(module).__name__}, not a torch.nn.Module")
    return module


def require_inputs(model: nn.Module, task: Task, arm: Arm) -> None:
    """Refuse a model whose forward does not take what the task gives, e.g. a mask that one of its options asks for.

    Raises:
        UserError: an input field that forward does not take.
    """
    if missing := _not_taken(model.forward, task.input_fields):
        raise UserError(
            f"arms.{arm.label}: forward of {type(model).__name__} does not take {', '.join(missing)}, which the task gives "
            f"with these options; add the argument, or leave out the option (see `isochron check`)"
        )


def require_data(arm: ArmConfig, where: str, task_class: Any, options: Mapping[str, Any]) -> None:
    """Refuse an architecture that does not read what the task gives with `options`, before anything is built.

    What a factory that is no class makes is not known before: see `require_inputs`.

    Raises:
        UserError: an input field that forward does not take; names the fields of both, and data that would fit.
    """
    inputs_of = getattr(getattr(task_class, "config_class", None), "inputs_of", {})
    given = inputs_of.get(options.get("data"), getattr(task_class, "input_fields", ()))
    forward = getattr(architecture_class(arm), "forward", None)
    if forward is None or not _not_taken(forward, given):
        return
    fitting = [f"set task.data: {data}" for data, fields in inputs_of.items() if not _not_taken(forward, fields)]
    _, *reads = inspect.signature(forward).parameters
    raise UserError(
        f"{where}: {arm.architecture or arm.factory} reads {', '.join(reads)}, but the task gives {', '.join(given)} "
        f"with these options; {' or '.join([*fitting[:1], 'take another architecture'])}"
    )


def _not_taken(forward: Any, fields: Sequence[str]) -> list[str]:
    """Those of `fields` that cannot be given to `forward` by name."""
    parameters = inspect.signature(forward).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [name for name in fields if name not in parameters]


def pretrained_parts(of: nn.Module | Task) -> Sequence[Mapping[str, Any]]:
    """What an architecture or a task says of its parts that were trained elsewhere."""
    told = getattr(of, "pretrained_parts", None)
    return told() if callable(told) else ()


def outside_sources(arms: Sequence[ArmConfig]) -> list[Path]:
    """Files that arms come from and that do not belong to the project (third-party factories), each once."""
    found: dict[Path, None] = {}
    for arm in arms:
        made = inspect.unwrap(architecture_class(arm))
        file = getattr(sys.modules.get(getattr(made, "__module__", "")), "__file__", None)
        if file is not None and not is_own(path := Path(file).resolve()) and path.is_file():
            found[path] = None
    return list(found)


def make_task(comparison: Comparison, cache_dir: Path) -> Task:
    """The comparison's task."""
    options = dict(comparison.task)
    made = registry.load_object(registry.task(options.pop("name")).target, "task")
    return made(registry.make_config(made, options, "task"), cache_dir)


def expand(comparison: Comparison) -> Comparison:
    """The comparison with every option of the task and of the architectures written out, presets and defaults alike.

    Raises:
        UserError: an option is unknown or wrong, or an architecture reads something else than the task gives.
    """
    name = comparison.task["name"]
    made = registry.load_object(registry.task(name).target, "task")
    given = {key: value for key, value in comparison.task.items() if key != "name"}
    task = {"name": name, **_written_out(made, comparison.preset, given, "task")}
    shared = shared_options(made, task)

    def written_out(arm: ArmConfig, where: str, of_task: Mapping[str, Any]) -> ArmConfig:
        require_data(arm, where, made, of_task)
        options = with_shared(architecture_class(arm), arm.options, shared, f"{where}.options")
        options = _written_out(architecture_class(arm), comparison.preset, options, f"{where}.options")
        return arm.model_copy(update={"options": options})

    arms = tuple(written_out(arm, f"arms.{arm.name}", task) for arm in comparison.arms)
    pretraining = comparison.pretraining
    if pretraining is not None:
        arm = written_out(pretraining.arm, "pretraining.arm", {**task, **pretraining.task})
        _written_out(
            made, comparison.preset, {**given, **pretraining.task}, "pretraining.task"
        )  # an error before any work
        pretraining = pretraining.model_copy(update={"arm": arm, "task": _absolute(pretraining.task)})
    return comparison.model_copy(update={"task": task, "arms": arms, "pretraining": pretraining})


def shared_options(task_class: Any, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the task's configuration says its architectures must be built for, such as ``patch_size``; empty for most."""
    if not hasattr(getattr(task_class, "config_class", None), "shared_options"):
        return {}
    given = {key: value for key, value in options.items() if key != "name"}
    shared: Mapping[str, Any] = registry.make_config(task_class, given, "task").shared_options()
    return shared


def _listed(value: Any) -> Any:
    """A tuple as a file holds it."""
    return list(value) if isinstance(value, tuple) else value


def with_shared(made: Any, given: Mapping[str, Any], shared: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options `given` with those that the architecture shares with the task, which need not be said twice.

    Raises:
        UserError: one is given another value than the task's.
    """
    known = {field.name for field in fields(made.config_class)} if hasattr(made, "config_class") else set()
    for name in known & shared.keys() & given.keys():
        if _listed(given[name]) != _listed(shared[name]):
            raise UserError(
                f"{where}.{name}: is {given[name]!r}, but the task's options make it {shared[name]!r}; leave it out, and change the "
                f"task for all arms alike"
            )
    return {**given, **{name: value for name, value in shared.items() if name in known}}


def _written_out(made: Any, preset: str, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The options `given` over those of the preset, over the defaults of the configuration's class if there is one."""
    options = _absolute({**registry.preset_options(made, preset), **given})
    return asdict(registry.make_config(made, options, where)) if hasattr(made, "config_class") else options


def _absolute(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with the places of data and weights spelled out, so that other working folders mean the same ones."""
    found = {}
    for key, value in options.items():
        if key in PLACES and isinstance(value, str) and value and Path(value).expanduser().exists():
            value = str(Path(value).expanduser().resolve())
        found[key] = _absolute(value) if isinstance(value, Mapping) else value
    return found


def missing_places(options: Mapping[str, Any], where: str = "") -> list[str]:
    """Those `PLACES` that are named and not there, at any depth, as ``task.data_path: place``."""
    found = []
    for key, value in options.items():
        if isinstance(value, Mapping):
            found += missing_places(value, f"{where}{key}.")
        elif key in PLACES and isinstance(value, str) and value and not Path(value).expanduser().exists():
            found.append(f"{where}{key}: {value}")
    return found


def expand_arms(comparison: Comparison) -> list[Arm]:
    """Every arm under every batch policy."""
    several = len(comparison.batch) > 1
    return [
        Arm(
            name=f"{arm.name}.{policy.replace(':', '-')}" if several else arm.name,
            policy=policy,
            config=arm,
            training=comparison.training_of(arm),
        )
        for policy in comparison.batch
        for arm in comparison.arms
    ]


def pick_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for here.

    Raises:
        UserError: the name is unknown, or there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if name.split(":")[0] == "cuda":
        if not torch.cuda.is_available():
            raise UserError(
                f"device: {name!r} is not available (torch {torch.__version__} sees no GPU); use --device cpu, see `isochron doctor`"
            )
        try:
            device = torch.device(name)
            torch.cuda.set_device(device.index or 0)  # events and synchronisation go to the current device
        except (RuntimeError, AssertionError) as error:
            raise UserError(
                f"device: {name!r} is no device of this machine ({torch.cuda.device_count()} GPUs)"
            ) from error
        return device
    raise UserError(f"device: {name!r} is unknown; use auto, cpu, cuda or cuda:N")


def pick_threads(threads: int | str) -> int:
    """Torch threads: as told, or as many as there are cores that nothing else is using now.

    Two spinning threads on one free core are many times slower than one, so a contested core is left alone.
    """
    cores = usable_cores()
    if threads == "auto":
        busy = psutil.cpu_percent(interval=0.5) / 100 * (psutil.cpu_count() or cores)
        return max(1, cores - round(busy))
    if not 1 <= int(threads) <= cores:
        raise UserError(f"threads: must be between 1 and {cores} (the usable cores), got {threads}")
    return int(threads)


def describe_device(device: torch.device, threads: int, memory_limit: int, load: bool = True) -> dict[str, Any]:
    """The device as results name it; with the machine's load right now unless `load` is False."""
    cpu = look_at_processor()
    record: dict[str, Any] = {
        "kind": device.type,
        "name": cpu.model,
        "cores": usable_cores(),
        "threads": threads,
        "memory_limit_bytes": memory_limit,
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        record |= {
            "name": torch.cuda.get_device_name(device),
            "driver": look_at_driver(run_program),
            "cuda": torch.version.cuda,
        }
    if load:
        record["load_at_start"] = cpu.load
    return record


def step_settings(training: TrainingConfig, batch: int) -> StepSettings:
    """Optimiser settings of a run with this optimiser batch: the learning rate follows it by the declared rule."""
    scale = math.sqrt(batch / training.reference_batch) if training.scaling == "sqrt" else 1.0
    return StepSettings(
        learning_rate=training.learning_rate * scale,
        optimizer=training.optimizer,
        betas=training.betas,
        weight_decay=training.weight_decay,
        gradient_clip=training.gradient_clip,
        gradient_skip=training.gradient_skip,
        precision=training.precision,
        ema_half_life=training.ema_half_life,
    )


def curve(training: TrainingConfig) -> Any:
    """Learning-rate factor as a function of progress."""
    return learning_rate_curve(training.curve, training.warmup, training.cooldown)
