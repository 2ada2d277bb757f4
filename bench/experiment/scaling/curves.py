"""Reads the curves of ``bench/curves``, and any other YAML file that describes one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.store.scaling import CostCurve, Curve, QualityCurve

CURVES = Path(__file__).parents[2] / "curves"
_CHECK: TypeAdapter[CostCurve | QualityCurve] = TypeAdapter(Curve)


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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f':{mark.line + 1}' if mark else ''}: is no valid YAML; mend that line") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a mapping of keys, see the curves under bench/curves")
    try:
        return _CHECK.validate_python({"name": path.stem, **content})
    except ValidationError as error:
        raise UserError(f"{path.name}: {_one_line(error)}") from None


def _one_line(error: ValidationError) -> str:
    """The first mistake: field, value and mend."""
    first = error.errors()[0]
    place = first["loc"][1:] if first["loc"] and first["loc"][0] in ("cost", "quality") else first["loc"]
    where = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or mend its spelling"
    if first["type"] == "missing":
        return f"{where}: is missing; add it"
    if first["type"].startswith("union_tag"):
        return f"kind: must be cost or quality, got {_given(first['input'])}"
    message = first["msg"].removeprefix("Value error, ")
    shown = "" if first["type"] == "value_error" else f", got {first['input']!r}"
    return f"{where}{': ' if where else ''}{message[0].lower() + message[1:]}{shown}"


def _given(content: Any) -> str:
    return repr(content.get("kind")) if isinstance(content, dict) else repr(content)
