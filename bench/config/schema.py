"""What a comparison says: its sections as types, with their defaults and their bounds."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from bench.config.units import Duration, Size, parse_duration
from bench.parse import first_mistake

_COUNT = re.compile(r"^\s*(\d+)\s*(steps|samples)\s*$")
_POLICY = re.compile(r"^(fill|knee|fixed:[1-9]\d*)$")


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


def with_recipe(training: Mapping[str, Any]) -> dict[str, Any]:
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
        return with_recipe(value) if isinstance(value, Mapping) else value


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
            return TrainingConfig.model_validate({**self.training.model_dump(), **with_recipe(arm.training)})
        except ValidationError as error:
            raise ValueError(first_mistake(error, f"arms.{arm.name}.training.")) from None
