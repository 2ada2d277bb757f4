"""How the arms were set, in lines for the caption: learning rates, training, options of the architectures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.report import text
from bench.report.summary import ArmSummary, Summary

RULES = {"sqrt": "times the square root of optimizer batch / {reference_batch}", "none": "whatever the batch"}
ELSEWHERE = frozenset({"learning_rate", "reference_batch", "scaling", "tune"})
"""Keys of the training settings that stand in lines and checks of their own."""


def learning_rate_lines(summary: Summary) -> list[str]:
    """Base rate, reference batch and rule; arm by arm where they differ. The table holds the peaks that follow."""
    found = []
    for arm in summary.arms:
        rate = arm.measured.learning_rate
        if rate is not None:
            rule = RULES.get(rate.rule, f"rule {rate.rule}").format(reference_batch=rate.reference_batch)
            found.append((arm, f"{rate.base:g} at batch {rate.reference_batch}, {rule}"))
    if len(found) == len(summary.arms) and len({line for _, line in found}) == 1:
        return [f"Peak learning rate, all arms: {found[0][1]}."]
    return [f"Peak learning rate, {name}: {line}." for name, line in _by_arm(found).items()]


def training_lines(summary: Summary) -> list[str]:
    """The settings that all arms share in one line, then a line an arm with those that differ."""
    settings = [
        (arm, {key: value for key, value in arm.arm.training.items() if key not in ELSEWHERE})
        for arm in summary.arms
        if arm.arm.training is not None
    ]
    if not settings:
        return []
    shared = {}
    if len(settings) == len(summary.arms):
        first = settings[0][1]
        shared = {key: value for key, value in first.items() if all(_has(one, key, value) for _, one in settings)}
    own = [(arm, _listed({key: value for key, value in one.items() if key not in shared})) for arm, one in settings]
    lines = [f"Training, all arms: {_listed(shared)}."] if shared else []
    return lines + [f"Training, {name}: {line}." for name, line in _by_arm(own).items() if line]


def option_lines(summary: Summary) -> list[str]:
    """The options of each architecture, one line an arm; batch policies share them."""
    arms: dict[str, ArmSummary] = {arm.arm.label: arm for arm in reversed(summary.arms)}
    return [
        f"Options, {label}: {_listed(arms[label].arm.options)}."
        for label in dict.fromkeys(arm.arm.label for arm in summary.arms)
        if arms[label].arm.options
    ]


def _by_arm(lines: Sequence[tuple[ArmSummary, str]]) -> dict[str, str]:
    """Name -> line, one a label where all its batch policies say the same."""
    said: dict[str, set[str]] = {}
    for arm, line in lines:
        said.setdefault(arm.arm.label, set()).add(line)
    return {arm.arm.label if len(said[arm.arm.label]) == 1 else arm.title: line for arm, line in lines}


def _has(settings: Mapping[str, Any], key: str, value: Any) -> bool:
    return key in settings and settings[key] == value


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in settings.items())


def _value(value: Any) -> str:
    if value is None:
        return "not set"  # not "off": of a list of layers null may mean all of them
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return f"({', '.join(_value(item) for item in value)})"
    if isinstance(value, dict):
        return f"({_listed(value)})" if value else text.NOTHING
    return str(value)
