"""Files of the cache: one `.npy` per field and shard, written atomically, read through memory maps."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import disk_errors


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


def find_damage(folder: Path, entry: dict[str, Any], *, checksum: bool) -> str | None:
    """Say what is wrong with the file of a manifest entry, or None. `checksum=False` looks at its size only."""
    path = folder / entry["name"]
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
