"""A large array of days on disk that is written some days at a time."""

from __future__ import annotations

import hashlib
import io
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.data.cache_folder import disk_errors


class DayFile:
    """A float32 `.npy` file of known shape, kept under another name until it is whole.

    Written by plain writes, not through a memory map: a disk that fills up is then an error, not a signal that ends the
    process.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], axis: int) -> None:
        """Describe the file; nothing is touched.

        Args:
            path: where it lies once it is whole.
            shape: of the whole array.
            axis: which axis are the days.
        """
        self.path, self.shape, self._axis = path, shape, axis
        self._part = path.with_name(f".{path.name}.part")
        header = io.BytesIO()
        described = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, described)
        self._header = header.getvalue()
        self.bytes = len(self._header) + 4 * math.prod(shape)
        """Size of the whole file."""

    def begun(self) -> bool:
        """True if a killed process left this file behind."""
        return self._part.is_file() and self._part.stat().st_size == self.bytes

    def begin(self) -> None:
        """Start anew. Raises `UserError` on a full disk or a folder that cannot be written."""
        with disk_errors(self.path), open(self._part, "wb") as file:
            file.write(self._header)
            file.truncate(self.bytes)

    def write(self, first: int, values: NDArray[np.float32]) -> None:
        """Write `values`, the whole array's shape but for fewer days, from day `first` on; on the disk when it returns.

        Raises:
            UserError: the disk is full.
        """
        day = 4 * math.prod(self.shape[self._axis + 1 :])
        stride = day * self.shape[self._axis]
        rows = np.ascontiguousarray(values, "<f4").reshape(-1, *values.shape[self._axis :])
        with disk_errors(self.path), open(self._part, "r+b") as file:
            for number, row in enumerate(rows):
                file.seek(len(self._header) + number * stride + first * day)
                file.write(row.data)
            file.flush()
            os.fsync(file.fileno())

    def finish(self) -> dict[str, Any]:
        """Give the whole file its name and return its manifest entry: name, size in bytes, SHA-256."""
        with disk_errors(self.path):
            with open(self._part, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            self._part.replace(self.path)
        return {"name": self.path.name, "bytes": self.bytes, "sha256": digest}
