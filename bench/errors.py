"""The one exception that the command turns into a single line."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class UserError(Exception):
    """Something the user can mend. The message names the field, the value and the mend, in one line."""


@contextmanager
def naming(meant: Mapping[str, str]) -> Iterator[None]:
    """Errors within name the options that the user set: instead of each key of `meant`, such as ``task.length``, its value.

    A key stands for a whole option: ``task.data`` leaves ``task.data_path``, ``other.task.data`` and file names alone.
    """
    try:
        yield
    except UserError as error:
        if meant:
            keys = "|".join(map(re.escape, meant))
            error.args = (re.sub(rf"(?<![\w./-])({keys})(?![\w/-]|\.\w)", lambda found: meant[found[0]], str(error)),)
        raise
