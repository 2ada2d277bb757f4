"""Writing files so that a crash at any byte leaves the old file or the new one, never half of one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench import PROTOCOL
from bench.errors import UserError

MANIFEST = "manifest.json"
DISK_FULL = (
    "the disk is full; free some space and go on: `isochron resume` on a comparison, the same command on other folders"
)


def disk_error(path: Path, error: OSError) -> UserError:
    """The one line that a failed write becomes."""
    if error.errno == errno.ENOSPC:
        return UserError(f"{path}: {DISK_FULL}")
    return UserError(f"{path}: cannot be written ({error.strerror})")


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, all or nothing, on disk when it returns.

    Raises:
        UserError: the disk is full or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as readable JSON; NaN is refused, it is no JSON."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """JSON of `path`.

    Raises:
        UserError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: is missing; the folder is incomplete") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); the file is damaged") from error


def require_version(where: object, raw: Any, schema: int) -> None:
    """Refuse what another schema or protocol (major or minor number) wrote.

    Raises:
        UserError: `raw` is no object, or names another one.
    """
    if not isinstance(raw, Mapping):
        raise UserError(f"{where}: must hold an object, holds {type(raw).__name__}; restore the file")
    if raw.get("schema") != schema:
        raise UserError(
            f"{where}: schema is {raw.get('schema')}, this version reads {schema}; use the Isochron that wrote it"
        )
    protocol = str(raw.get("protocol"))
    if protocol.split(".")[:2] != PROTOCOL.split(".")[:2]:
        raise UserError(
            f"{where}: protocol is {protocol}, this version's is {PROTOCOL}, and the two are never put in one table; "
            "use the Isochron that wrote it"
        )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Records of a ``.jsonl`` file; a torn last line is left out, an earlier one is an error."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            records.append(json.loads(line))
        except ValueError as error:
            if number == len(lines):  # no newline behind it: the writer was stopped in the middle
                break
            raise UserError(f"{path}:{number}: is damaged ({error}); the run cannot be trusted") from error
    return records


class LineFile:
    """Appends JSON lines; each is handed to the system whole, so that a killed process loses at most the last."""

    def __init__(self, path: Path, keep: Iterable[Mapping[str, Any]] | None = None) -> None:
        """Append to `path`, after replacing its content by `keep` where that is given."""
        self._path = path
        if keep is not None:
            write_bytes(path, "".join(_line(record) for record in keep).encode())
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if (content := path.read_bytes()) and not content.endswith(b"\n"):  # an earlier writer's torn last line
            self._file.truncate(content.rfind(b"\n") + 1)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add one record.

        Raises:
            UserError: the disk is full.
        """
        line = _line(record).encode()
        try:
            if self._file.write(line) < len(line):  # what fitted was written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            raise disk_error(self._path, error) from error

    def close(self) -> None:
        """Flush to disk and close."""
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()


def _line(record: Mapping[str, Any]) -> str:
    return json.dumps(_finite(record), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """`value` with NaN and infinities as text, which JSON has no numbers for."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, (list, tuple)) else value


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, exclude: Iterable[str] = ()) -> None:
    """Write the SHA-256 sums of all files under `folder` but those whose name is in `exclude`."""
    left_out = {MANIFEST, *exclude}
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in left_out and not path.name.startswith(".")
    )
    write_json(folder / MANIFEST, {"sha256": {path.relative_to(folder).as_posix(): sha256(path) for path in files}})
