"""Typed, validated configuration: YAML in, a `Comparison` out, and one clear line for every mistake."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.errors import UserError

CONFIGS = Path(__file__).parent / "configs"

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)\s*$")
_SECONDS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB|TiB|kB|MB|GB|TB)\s*$")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_COUNT = re.compile(r"^\s*(\d+)\s*(steps|samples)\s*$")
_POLICY = re.compile(r"^(fill|knee|fixed:[1-9]\d*)$")


def parse_duration(text: str | float) -> float:
    """Seconds from ``45s``, ``10m``, ``24h``, ``250ms`` (a bare number is seconds).

    Raises:
        ValueError: the text is no duration > 0.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        seconds = float(text)
    else:
        match = _DURATION.match(str(text))
        if match is None:
            raise ValueError(f"{text!r} is no duration; write it as 45s, 10m or 24h")
        seconds = float(match[1]) * _SECONDS[match[2]]
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"must be > 0 seconds, got {text!r}")
    return seconds


def parse_size(text: str | int) -> int:
    """Bytes from ``512MiB``, ``2GiB``, ``1.5GB`` (a bare number is bytes).

    Raises:
        ValueError: the text is no size > 0.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        size = text
    else:
        match = _SIZE.match(str(text))
        if match is None:
            raise ValueError(f"{text!r} is no size; write it as 512MiB or 2GiB")
        size = int(float(match[1]) * _BYTES[match[2]])
    if size <= 0:
        raise ValueError(f"must be > 0 bytes, got {text!r}")
    return size


Duration = Annotated[float, BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]


class BudgetConfig(BaseModel):
    """What each run may spend."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    amount: float = Field(gt=0)
    unit: Literal["seconds", "steps", "samples"] = "seconds"

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            return value
        if isinstance(value, str) and (match := _COUNT.match(value)):
            return {"amount": float(match[1]), "unit": match[2]}
        try:
            return {"amount": parse_duration(value)}
        except ValueError as error:
            raise ValueError(f"{error} (or, for exact runs, as '200 steps' or '5000 samples')") from None


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Momentum = Annotated[float, Field(ge=0, lt=1)]


class TuneConfig(_Section):
    """Learning-rate search: the same candidates and the same charged seconds for every arm."""

    candidates: tuple[float, ...] = ()
    """Base learning rates to try; empty: no search."""
    budget: Duration = 10.0
    """Charged seconds of each candidate's run."""

    @field_validator("candidates")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(rate <= 0 for rate in value):
            raise ValueError(f"must all be > 0, got {list(value)}")
        return value


_LVSM_FAMILY = {
    "optimizer": "adamw",
    "learning_rate": 4e-4,
    "reference_batch": 512,
    "betas": (0.9, 0.95),
    "weight_decay": 0.05,
    "warmup": 0.03,  # 3,000 of 100,000 steps
}
RECIPES: dict[str, dict[str, Any]] = {
    "lvsm": {**_LVSM_FAMILY, "gradient_clip": 1.0, "gradient_skip": 5.0, "curve": "cosine"},
    "efficient-lvsm": {**_LVSM_FAMILY, "gradient_clip": 5.0, "gradient_skip": 50.0, "curve": "trapezoid"},
    "mae": {
        "optimizer": "adamw",
        "learning_rate": 2.4e-3,
        "reference_batch": 4096,
        "betas": (0.9, 0.95),
        "weight_decay": 0.05,
        "gradient_clip": 0.0,
        "warmup": 0.05,
        "curve": "cosine",
    },
}
"""Training of the published code (optimiser, clipping, steps skipped at five and ten times the clip). The published
Efficient-LVSM never lets its rate decay; the protocol wants 0 at the end, so the last fifth of the run does. MAE: 1.5e-4 for each 256
samples of a batch, which it scales in proportion, and here by the square root."""


def _with_recipe(training: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings with those of the recipe that they name beneath them."""
    recipe = training.get("recipe")
    return {**(RECIPES.get(recipe, {}) if isinstance(recipe, str) else {}), **training}


class TrainingConfig(_Section):
    """How an arm is optimised. An arm may override any of it under ``arms[i].training``."""

    recipe: Literal["lvsm", "efficient-lvsm", "mae"] | None = None
    """A published recipe that the settings below start from (`RECIPES`); what stands beside it overrides it."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(1e-3, gt=0)
    """Peak rate at `reference_batch`."""
    reference_batch: int = Field(16, ge=1)
    scaling: Literal["sqrt", "none"] = "sqrt"
    """How the rate follows the optimiser batch: ``sqrt(batch / reference_batch)`` or not at all."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.95)
    weight_decay: float = Field(0.05, ge=0)
    gradient_clip: float = Field(1.0, ge=0)
    gradient_skip: float = Field(0.0, ge=0)
    """Leave the weights alone in a step whose gradient norm before clipping is above this, or not finite; 0: never."""
    warmup: float = Field(0.05, ge=0, lt=1)
    """Share of the budget over which the rate rises from 0."""
    curve: Literal["cosine", "linear", "trapezoid"] = "cosine"
    cooldown: float = Field(0.2, gt=0, le=1)
    """Share of the budget (after warm-up) over which ``trapezoid`` falls to 0."""
    ema_half_life: float | None = Field(None, gt=0)
    """Half-life of averaged weights as a share of the budget; null: off."""
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    charge_compilation: bool = False
    """True is the protocol's cold mode."""
    tune: TuneConfig = TuneConfig()

    @model_validator(mode="before")
    @classmethod
    def _from_recipe(cls, value: Any) -> Any:
        return _with_recipe(value) if isinstance(value, Mapping) else value


class ArmConfig(_Section):
    """One architecture with its options."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    architecture: str | None = None
    """A registered name."""
    factory: str | None = None
    """Any importable factory, ``my_pkg.my_file:MyNet``, called with the options."""
    options: dict[str, Any] = {}
    training: dict[str, Any] = {}
    """What differs from the comparison's ``training``."""
    pretrained: bool = False
    """Whether the arm starts from weights trained elsewhere; the fairness checklist reads it."""

    @model_validator(mode="before")
    @classmethod
    def _name_from_architecture(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {"architecture": value}
        if isinstance(value, Mapping) and "name" not in value and value.get("architecture"):
            value = {**value, "name": value["architecture"]}
        return value

    @model_validator(mode="after")
    def _one_source(self) -> ArmConfig:
        if (self.architecture is None) == (self.factory is None):
            raise ValueError(
                "give either 'architecture' (a registered name) or 'factory' (pkg.file:Name), not both or neither"
            )
        return self


class PretrainingConfig(_Section):
    """Training that all arms start from: their weights of the same name and shape. Its seconds are charged to none."""

    arm: ArmConfig
    """What is trained; its ``training`` may differ from the comparison's."""
    steps: int = Field(ge=1)
    batch: int = Field(16, ge=1)
    task: dict[str, Any] = {}
    """Options of the task that differ meanwhile, such as shorter clips."""
    seed: int = Field(10**6 + 1, ge=0)
    """Of weights and samples; apart from every seed that counts."""


class SentinelConfig(_Section):
    """The fixed kernel that watches the machine's speed."""

    seconds: float = Field(1.0, ge=0)
    """Length of one measurement; 0 switches it off."""
    interval: Duration = 60.0
    """Between rounds, measure again after this many seconds."""


class Comparison(_Section):
    """One task, its arms, one budget, several seeds."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    description: str = ""
    preset: str = "tiny"
    task: dict[str, Any]
    """``name`` of a registered task, and its options (those of the preset where left out)."""
    arms: tuple[ArmConfig, ...] = Field(min_length=1)
    reference: str = ""
    """Arm that the others are compared with; default: the first."""
    budget: BudgetConfig
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    batch: tuple[str, ...] = Field(("fill",), min_length=1)
    """Batch policies; every arm is run under each."""
    training: TrainingConfig = TrainingConfig()
    pretraining: PretrainingConfig | None = None
    """What all arms start from; null: each from its own seed."""
    cpu_memory: Size = 2**30
    """Declared budget of what training may add to the resident set, where the device is a CPU."""
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    """Torch threads of every arm on a CPU; auto: the cores that nothing else is using when the comparison starts."""
    deterministic: bool = False
    """On CUDA: deterministic kernels, for replay to the bit."""
    eval_fractions: tuple[float, ...] = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    slice: float = Field(0.05, gt=0, le=1)
    """Slice length as a share of the budget."""
    checkpoint_interval: Duration = 60.0
    sentinel: SentinelConfig = SentinelConfig()
    caption: str = ""
    """What was chosen for this comparison and why; stands under its table."""

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool):
            if value < 1:
                raise ValueError(f"must be at least 1, got {value}")
            return tuple(range(value))
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) != len(value) or min(value) < 0:
            raise ValueError(f"must be different integers >= 0, got {list(value)}")
        return value

    @field_validator("batch", mode="before")
    @classmethod
    def _policies(cls, value: Any) -> Any:
        policies = list(value) if isinstance(value, (list, tuple)) else [value]
        for policy in policies:
            if not _POLICY.match(str(policy)):
                raise ValueError(f"{policy!r} is no batch policy; known: fill, knee, fixed:N (N >= 1)")
        if len(set(policies)) != len(policies):
            raise ValueError(f"names a policy twice: {policies}")
        return tuple(policies)

    @field_validator("eval_fractions")
    @classmethod
    def _ends_at_one(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or value[-1] != 1.0 or list(value) != sorted(set(value)) or value[0] < 0:
            raise ValueError(f"must ascend within [0, 1] and end with 1.0, got {list(value)}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Comparison:
        names = [arm.name for arm in self.arms]
        if len(set(names)) != len(names):
            raise ValueError(f"arms: names must differ, got {names}; give one of them a 'name'")
        if self.reference and self.reference not in names:
            raise ValueError(f"reference: {self.reference!r} is none of the arms {names}")
        if "name" not in self.task:
            raise ValueError("task: 'name' is missing; see `isochron list tasks`")
        for arm in (*self.arms, *([self.pretraining.arm] if self.pretraining else [])):
            if "tune" in arm.training:
                raise ValueError(
                    f"arms.{arm.name}.training.tune: the search is the same for all arms; set training.tune"
                )
            self.training_of(arm)
        return self

    @property
    def reference_arm(self) -> str:
        """Name of the arm that the others are compared with."""
        return self.reference or self.arms[0].name

    def training_of(self, arm: ArmConfig) -> TrainingConfig:
        """The comparison's training with the arm's own changes."""
        try:
            return TrainingConfig.model_validate({**self.training.model_dump(), **_with_recipe(arm.training)})
        except ValidationError as error:
            raise ValueError(_one_line(error, f"arms.{arm.name}.training.")) from None


def _one_line(error: ValidationError, prefix: str = "") -> str:
    """The first mistake as one line: field, message, value."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return f"{prefix}{where}: unknown key; remove it or mend its spelling"
    if first["type"] == "missing":
        return f"{prefix}{where}: is missing; add it"
    shown = "" if first["type"] in ("value_error", "missing") else f", got {first['input']!r}"
    return f"{prefix}{where}{': ' if prefix + where else ''}{message[0].lower() + message[1:]}{shown}"


def _layer(content: Mapping[str, Any]) -> dict[str, Any]:
    """A layer of configuration with its recipe spelled out, so that it overrides what lies below it, key by key."""
    training = content.get("training")
    return {**content, "training": _with_recipe(training)} if isinstance(training, Mapping) else dict(content)


def merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `change` laid over it, mappings merged key by key."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(value, Mapping) and isinstance(old, Mapping) else value
    return merged


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Nested mapping from ``a.b=c`` strings; values are read as YAML.

    Raises:
        UserError: a string has no ``=`` or an empty key.
    """
    result: dict[str, Any] = {}
    for text in overrides:
        path, separator, value = text.partition("=")
        keys = path.strip().split(".")
        if not separator or not all(keys):
            raise UserError(f"--set {text!r}: write it as key.subkey=value")
        try:
            parsed = yaml.safe_load(value)
        except yaml.YAMLError:
            parsed = value
        for key in reversed(keys):
            parsed = {key: parsed}
        result = merge(result, parsed)
    return result


def comparison_names() -> dict[str, str]:
    """Shipped comparisons: name -> description."""
    return {path.stem: str(_read_yaml(path).get("description", "")) for path in sorted(CONFIGS.glob("*.yaml"))}


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f':{mark.line + 1}' if mark else ''}: is no valid YAML; mend that line") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of keys, see the comparisons under bench/configs")
    return content


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """`value`, where a section may also be left empty."""
    if not isinstance(value, dict | None):
        raise UserError(f"{where}: must be a mapping of keys, got {value!r}")
    return value or {}


def _find(source: str) -> Path:
    """File of a shipped comparison's name, or the file itself."""
    if Path(source).suffix in (".yaml", ".yml"):
        return Path(source)
    path = CONFIGS / f"{source}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(item.stem for item in CONFIGS.glob("*.yaml")))
        raise UserError(f"comparison {source!r} is unknown; known: {known}; or give the path of a .yaml file")
    return path


def _read_with_base(path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Name and mapping of the file, behind those of the comparison that it names as its ``base``."""
    content = _read_yaml(path)
    base = content.pop("base", None)
    if base is None:
        return [(path.name, content)]
    found = path.parent / base if str(base).endswith((".yaml", ".yml")) else _find(str(base))
    below = _read_yaml(found)
    if "base" in below:
        raise UserError(f"{path.name}: base: {base!r} has a base itself; name that one ({below['base']!r}) instead")
    return [(found.name, below), (path.name, content)]


def load(source: str | Path, *, preset: str | None = None, overrides: Mapping[str, Any] | None = None) -> Comparison:
    """Comparison from a shipped name or a YAML file: what it stands on, itself, and `overrides`, each laid over the last.

    Of the file and of its base, the chosen preset's section lies over the rest of the same file.

    Raises:
        UserError: no such comparison or preset, or a field is wrong; one line that names it.
    """
    path = _find(str(source))
    files = _read_with_base(path)
    presets = [_mapping(content.pop("presets", None), f"{name}: presets") for name, content in files]
    known = list(dict.fromkeys(name for section in presets for name in section))
    own = next((content["preset"] for _, content in reversed(files) if "preset" in content), None)
    chosen = str(preset or (overrides or {}).get("preset") or own or "tiny")
    if known and chosen not in known:
        raise UserError(f"preset {chosen!r} is unknown to {path.name}; it has: {', '.join(known)}")
    if not known and preset and preset != own:
        raise UserError(f"preset {preset!r}: {path.name} has no presets; leave the preset out")
    merged: dict[str, Any] = {}
    for (name, content), section in zip(files, presets, strict=True):
        merged = merge(merged, _layer(content))
        merged = merge(merged, _layer(_mapping(section.get(chosen), f"{name}: presets.{chosen}")))
    return validate({**merge(merged, _layer(overrides or {})), "preset": chosen}, path.name)


def validate(content: Mapping[str, Any], where: str) -> Comparison:
    """Comparison from a complete mapping.

    Raises:
        UserError: the first mistake in one line, headed by `where`.
    """
    try:
        return Comparison.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: {_one_line(error)}") from None


def from_text(text: str) -> Comparison:
    """Inverse of `dump`."""
    return validate(yaml.safe_load(text), "comparison")


def dump(comparison: Comparison) -> str:
    """The comparison as YAML that `load` reads back to the same value."""
    return yaml.safe_dump(comparison.model_dump(mode="json"), sort_keys=False, width=100)
