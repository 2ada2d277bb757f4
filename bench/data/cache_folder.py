"""What all folders of generated data share: one writer at a time, a manifest that shows tampering, room on the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bench.errors import UserError

Progress = Callable[[str, int, int], None]
"""`progress(label, done, total)`: called with what is done already first and with done = total last."""


@contextmanager
def sole_writer(folder: Path, work: str, progress: Progress | None = None) -> Iterator[None]:
    """Make `folder` and hold its lock, waiting for another process if need be. The system frees it when a process dies.

    Args:
        folder: the folder.
        work: what is done under the lock, for who waits: "renders train scenes".
        progress: told once if there is a wait.

    Raises:
        UserError: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {folder}: {error.strerror}; choose another cache folder") from error
    try:
        file: IO[bytes] = open(folder / ".lock", "ab")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"cannot write in {folder}: {error.strerror}; choose another cache folder") from error
    with file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress and not told:
                    progress(f"waiting for another process that {work}", 0, 1)
                    told = True
                time.sleep(0.1)
        yield


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the system says of a write to `path` into a `UserError` with its mend."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "no space left; free some or choose another cache folder, then run again: finished parts are kept"
        else:
            mend = f"{error.strerror or error}; choose a cache folder that can be written"
        raise UserError(f"cannot write {path}: {mend}") from error


def check_space(folder: Path, need: int, what: str) -> None:
    """Raise `UserError` if `need` bytes for `what` do not fit beside what is in `folder`."""
    free = shutil.disk_usage(folder).free
    if free < 1.02 * need + 2**20:
        raise UserError(
            f"{what} needs {need / 2**20:.0f} MiB in {folder}, but only {free / 2**20:.0f} MiB are free; "
            "free some or choose another cache folder"
        )


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The text of a manifest, with a digest of its content."""
    return json.dumps({**manifest, "digest": digest(manifest)}, indent=1).encode()


def unseal(path: Path, spec: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Read a manifest that `seal` wrote for `spec`, its field "spec".

    Raises:
        UserError: it cannot be read, was changed, or belongs to another spec; `what` begins the message.
    """
    mend = f"delete {path.parent} and run again"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        recorded, described = manifest.pop("digest"), manifest["spec"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{what}: {path} cannot be read ({type(error).__name__}); {mend}") from error
    if recorded != digest(manifest):
        raise UserError(f"{what}: {path} was changed after it was written; {mend}")
    if described != spec:
        raise UserError(f"{what}: {path} describes other {what} than was asked for; {mend}")
    return manifest


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of `content` as JSON, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
