"""Files of the cache: one `.npy` per field and shard, written atomically, read through memory maps."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import disk_errors
from bench.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` so that `path` is either as before or complete, whatever happens in between.

    Raises `UserError` on a full disk or a folder that cannot be written; nothing half-written is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with disk_errors(path):
        try:
            with open(temporary, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_array(path: Path, array: NDArray[Any]) -> dict[str, Any]:
    """Write `array` as `.npy` and return its manifest entry: name, size in bytes, SHA-256."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    data = buffer.getvalue()
    write_atomically(path, data)
    return {"name": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_shard(folder: Path, number: int, rows: Mapping[str, Sequence[NDArray[Any]]]) -> dict[str, Any]:
    """Write the rows of each field of a shard as one array; return its manifest entries by field."""
    return {
        field: write_array(folder / f"shard-{number:04d}-{field}.npy", np.stack(values))
        for field, values in rows.items()
    }


def refuse_damage(folder: Path, entries: Mapping[str, Any], what: str, verb: str, *, checksum: bool) -> None:
    """Raise `UserError` if a file is not as its manifest entry says; `checksum=False` looks at sizes only.

    Args:
        folder: where the files lie.
        entries: what the manifest says of each.
        what: begins the message: "scenes".
        verb: how files are made: "render".
        checksum: compare SHA-256 sums, too.
    """
    for entry in entries.values():
        path = folder / entry["name"]
        if damage := _find_damage(path, entry, checksum):
            raise UserError(f"{what}: {damage}; delete {path} and run again to {verb} it anew")


def _find_damage(path: Path, entry: Mapping[str, Any], checksum: bool) -> str | None:
    if not path.is_file():
        return f"{path} is missing"
    size = path.stat().st_size
    if size != entry["bytes"]:
        return f"{path} has {size} bytes instead of {entry['bytes']}"
    if checksum:
        with open(path, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != entry["sha256"]:
                return f"{path} does not match its SHA-256 in manifest.json"
    return None


class ShardedArray:
    """Several memory-mapped `.npy` files that read like one array along the first axis.

    `array[i]`, `array[i:j]` and `array[[3, 1, 4]]` index the first axis and always return a copy;
    `array[rows, views]` picks, with two integer arrays that broadcast against each other, along the first two axes,
    and reads no more than it returns: `rgb[scenes[:, None], views]` is [B, V, H, W, 3] for scenes [B], views [B, V].
    """

    def __init__(self, files: Sequence[Path]) -> None:
        """Map `files` (at least one), whose arrays agree in everything but their length."""
        self._parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in files]
        self._ends = np.cumsum([len(part) for part in self._parts])
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *self._parts[0].shape[1:])
        self.dtype: np.dtype[Any] = self._parts[0].dtype

    def __len__(self) -> int:
        """Length of the first axis."""
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read by one or two indices; raises `IndexError` outside the array."""
        if type(key) is int and 0 <= key < len(self):  # the usual question, the short way: from the end of its part
            number = int(np.searchsorted(self._ends, key, side="right"))
            return np.array(self._parts[number][key - int(self._ends[number])])
        if isinstance(key, tuple):
            if len(key) != 2:
                raise IndexError(f"a sharded array takes one or two indices, got {len(key)}")
            rows, columns = np.broadcast_arrays(*map(np.asarray, key))
            return self._gather(rows, columns)
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        return self._gather(np.asarray(key), None)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read everything into memory."""
        return np.asarray(self[:], dtype=dtype)

    def _gather(self, rows: NDArray[Any], columns: NDArray[Any] | None) -> NDArray[Any]:
        if rows.dtype == bool or not (np.issubdtype(rows.dtype, np.integer) or rows.size == 0):
            raise IndexError(f"indices of a sharded array must be integers, got {rows.dtype}")
        flat = np.where(rows < 0, rows + len(self), rows).astype(np.int64).ravel()
        if flat.size and not (flat.min() >= 0 and flat.max() < len(self)):
            raise IndexError(f"index out of range for {len(self)} scenes")
        tail = self.shape[1:] if columns is None else self.shape[2:]
        result = np.empty((flat.size, *tail), self.dtype)
        owner = np.searchsorted(self._ends, flat, side="right")
        for number in np.unique(owner):
            here = owner == number
            local = flat[here] - (self._ends[number] - len(self._parts[number]))
            part = self._parts[number]
            result[here] = part[local] if columns is None else part[local, columns.ravel()[here]]
        return result.reshape(*rows.shape, *tail)
