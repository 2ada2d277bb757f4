"""Reads the curves of ``bench/curves``, and any other YAML file that describes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.errors import UserError
from bench.parse import checking, read_yaml
from bench.store.scaling import CostCurve, QualityCurve

CURVES = Path(__file__).parents[2] / "curves"
KINDS: dict[Any, type[CostCurve | QualityCurve]] = {"cost": CostCurve, "quality": QualityCurve}


def shipped() -> dict[str, Path]:
    """Name -> file."""
    return {path.stem: path for path in sorted(CURVES.glob("*.yaml"))}


def curve_titles() -> dict[str, str]:
    """Shipped curves: name -> title, and whether it is run where none is named."""
    curves = [read_curve(path) for path in shipped().values()]
    return {curve.name: f"{curve.title} ({curve.kind}{', default' if curve.default else ''})" for curve in curves}


def read_curves(names: Sequence[str] = ()) -> tuple[CostCurve | QualityCurve, ...]:
    """The curves of these names or files; without any those that are shipped as the default, costs first.

    Raises:
        UserError: an unknown name, one that is given twice, or a mistake in a file; one line that names the field.
    """
    files = shipped()
    if not names:
        curves = [read_curve(path) for path in files.values()]
        return tuple(sorted((curve for curve in curves if curve.default), key=lambda curve: curve.kind))
    paths = []
    for name in names:
        if Path(name).suffix in (".yaml", ".yml"):
            paths.append(Path(name))
        elif name in files:
            paths.append(files[name])
        else:
            raise UserError(f"curve {name!r} is unknown; known: {', '.join(files)}; or give the path of a .yaml file")
    curves = [read_curve(path) for path in paths]
    found = [curve.name for curve in curves]
    if len(set(found)) < len(found):
        raise UserError(f"curves: names must differ, got {', '.join(found)}; leave one out")
    return tuple(curves)


def read_curve(path: Path) -> CostCurve | QualityCurve:
    """One file.

    Raises:
        UserError: it cannot be read, or the first mistake in it.
    """
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of keys, see the curves under bench/curves")
    kind = content.get("kind")
    if kind not in KINDS:
        raise UserError(f"{path.name}: kind: must be {' or '.join(KINDS)}, got {kind!r}")
    with checking(path.name):
        return KINDS[kind].model_validate({"name": path.stem, **content})
