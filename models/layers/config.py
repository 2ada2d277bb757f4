"""Checks that the configurations of the architectures share."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, TypeVar

Config = TypeVar("Config")


def require_positive(config: object, *names: str) -> None:
    """Raise ValueError unless each named field of ``config`` is an integer above zero."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an integer >= 1, got {value!r}")


def require_count(config: object, *names: str) -> None:
    """Raise ValueError unless each named field of ``config`` is an integer of zero or more."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ValueError(f"{name} must be an integer >= 0, got {value!r}")


def require_choice(config: object, name: str, choices: Collection[str]) -> None:
    """Raise ValueError unless the named field of ``config`` is one of ``choices``."""
    value = getattr(config, name)
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def require_bool(config: object, *names: str) -> None:
    """Raise ValueError unless each named field of ``config`` is true or false."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, bool):
            raise ValueError(f"{name} must be true or false, got {value!r}")


def require_heads(width: int, head_dim: int) -> None:
    """Raise ValueError unless ``width`` divides into heads of ``head_dim`` channels."""
    if width % head_dim:
        raise ValueError(
            f"width must be a multiple of head_dim {head_dim}, got {width}: "
            f"try {max(1, round(width / head_dim)) * head_dim}, or another head_dim"
        )


def require_nested(config: object, name: str, config_class: type) -> None:
    """Turn the named field of ``config`` from a mapping into ``config_class``; raise ValueError unless it is one, or None."""
    value = getattr(config, name)
    if isinstance(value, Mapping):
        object.__setattr__(config, name, build_config(config_class, value))
    elif value is not None and not isinstance(value, config_class):
        raise ValueError(f"{name} must be a mapping of options or null, got {value!r}")


def build_config(config_class: type[Config], options: Mapping[str, Any]) -> Config:
    """Build a configuration dataclass from options by name.

    Raises:
        ValueError: an option that the architecture does not have (named), or a value that it refuses.
    """
    known = [field.name for field in fields(config_class)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            raise ValueError(f"unknown option {name!r} (value {options[name]!r}): use one of {', '.join(known)}")
    return config_class(**options)
