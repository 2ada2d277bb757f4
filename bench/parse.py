"""Files and values from outside: what is wrong with them, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from bench.errors import UserError

SHOWN = 80
"""Characters of a wrong value that a line has room for."""


def read_yaml(path: Path) -> Any:
    """Content of a YAML file.

    Raises:
        UserError: the file cannot be read, or is no UTF-8 or no YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is no UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise UserError(f"{path}{f':{mark.line + 1}' if mark else ''}: is no valid YAML; mend that line") from error


def first_mistake(error: ValidationError, prefix: str = "", mend: str = "") -> str:
    """The first mistake in a value: field, what is wrong with it, and the mend."""
    first = error.errors()[0]
    where = prefix + ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{where}: unknown key; remove it or mend its spelling"
    if first["type"] == "missing":
        return f"{where}: is missing; {mend or 'add it'}"
    message = first["msg"].removeprefix("Value error, ")
    value = repr(first["input"])
    shown = "" if first["type"] == "value_error" or len(value) > SHOWN else f", got {value}"
    return f"{where}{': ' if where else ''}{message[0].lower() + message[1:]}{shown}{f'; {mend}' if mend else ''}"


@contextmanager
def checking(where: object, mend: str = "") -> Iterator[None]:
    """What pydantic refuses within becomes a `UserError`: the first mistake, headed by `where`."""
    try:
        yield
    except ValidationError as error:
        raise UserError(f"{where}: {first_mistake(error, mend=mend)}") from None
