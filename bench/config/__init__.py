"""Typed, validated configuration: YAML in, a `Comparison` out, and one clear line for every mistake."""

from __future__ import annotations

from bench.config.read import CONFIGS, comparison_names, dump, from_text, load, merge, parse_overrides, validate
from bench.config.schema import ArmConfig, BudgetConfig, Comparison, PretrainingConfig, TrainingConfig
from bench.config.units import parse_duration, parse_size

__all__ = [
    "CONFIGS",
    "ArmConfig",
    "BudgetConfig",
    "Comparison",
    "PretrainingConfig",
    "TrainingConfig",
    "comparison_names",
    "dump",
    "from_text",
    "load",
    "merge",
    "parse_duration",
    "parse_overrides",
    "parse_size",
    "validate",
]
