"""YAML in, a `Comparison` out: presets, bases and overrides laid over one another, and one clear line for every mistake."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from bench.config.schema import Comparison, with_recipe
from bench.errors import UserError
from bench.parse import checking, read_yaml

CONFIGS = Path(__file__).parents[1] / "configs"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""libyaml's where it is there: several times as fast, and a comparison is written many times in a run."""


def _layer(content: Mapping[str, Any]) -> dict[str, Any]:
    """A layer of configuration with its recipe spelled out, so that it overrides what lies below it, key by key."""
    training = content.get("training")
    return {**content, "training": with_recipe(training)} if isinstance(training, Mapping) else dict(content)


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
    return {path.stem: str(_read(path).get("description", "")) for path in sorted(CONFIGS.glob("*.yaml"))}


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
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
    content = _read(path)
    base = content.pop("base", None)
    if base is None:
        return [(path.name, content)]
    found = path.parent / base if str(base).endswith((".yaml", ".yml")) else _find(str(base))
    below = _read(found)
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
    with checking(where):
        return Comparison.model_validate(content)


def from_text(text: str) -> Comparison:
    """Inverse of `dump`."""
    return validate(yaml.safe_load(text), "comparison")


def dump(comparison: Comparison) -> str:
    """The comparison as YAML that `load` reads back to the same value."""
    return yaml.dump(comparison.model_dump(mode="json"), Dumper=DUMPER, sort_keys=False, width=100)
