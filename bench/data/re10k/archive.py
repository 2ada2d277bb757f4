"""Where the tensors of a torch-saved file lie in it, found without torch, without reading them, and running none of its code.

Such a file is an uncompressed zip: one pickle of the structure and one record for each storage. The pickle is read with three
names resolved, to parts of this module, and any other name refused; so a file of unknown origin can at worst be unreadable.
(``torch.load`` would be as safe with ``weights_only``, but it hands out tensors, not places in the file.)
"""

from __future__ import annotations

import io
import math
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

STORAGES = {
    "ByteStorage": "<u1",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
LOCAL_HEADER, ALIGNMENT, DESCRIPTOR = 30, 64, 16
"""Bytes before a record's name, what torch aligns a record to, bytes that follow it."""


class Span(NamedTuple):
    """A tensor in a file."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    """Bytes from the beginning of the file."""

    @property
    def length(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def read_archive(path: Path) -> Any:
    """What was saved, with a `Span` in the place of every tensor.

    Raises:
        UserError: missing, truncated, not such a file, or it holds anything but dicts, lists, numbers, strings and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            root = _root(archive)
            starts = _record_starts(archive, path)  # also refuses compressed records, before one is unpacked
            content = archive.read(f"{root}/data.pkl")
            return _Unpickler(content, root, {info.filename: info for info in archive.infolist()}, starts).load()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing") from error
    # A damaged or forged file may fail anywhere in the two parsers, by any exception.
    except Exception as error:
        reason = error if isinstance(error, _Refused) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path} is truncated or not a torch file of tensors ({reason}); fetch it again") from error


def read_array(path: Path, span: Span) -> NDArray[Any]:
    """The tensor at `span`."""
    return np.frombuffer(read_bytes(path, span.offset, span.length), span.dtype).reshape(span.shape)


def read_bytes(path: Path, offset: int, length: int) -> bytes:
    """`length` bytes at `offset`.

    Raises:
        UserError: the file is missing or ends before.
    """
    try:
        file = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}); fetch it again") from error
    try:
        data = os.pread(file, length, offset)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from error
    finally:
        os.close(file)
    if len(data) != length:
        raise UserError(f"{path} ends before byte {offset + length}: it was truncated; fetch it again")
    return data


class _Refused(Exception):
    """Something in the file that has no business there."""


class _Unpickler(pickle.Unpickler):
    """Reads the structure. What names resolve to does nothing else, and what a pickle changes of it lives no longer."""

    def __init__(self, content: bytes, root: str, records: dict[str, zipfile.ZipInfo], starts: dict[str, int]) -> None:
        super().__init__(io.BytesIO(content))
        self._root, self._records, self._starts = root, records, starts
        self._rebuild = lambda *arguments: self._tensor(*arguments)  # a pickle may set attributes of what it is given

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return self._rebuild
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        raise _Refused(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> tuple[str, str]:
        kind, dtype, key, _, _ = pid
        if kind != "storage" or dtype not in STORAGES.values():
            raise _Refused(f"it holds a {kind!r} of {dtype!r}")
        return dtype, f"{self._root}/data/{key}"

    def _tensor(self, storage: tuple[str, str], offset: int, shape: tuple[int, ...], stride: Any, *_: Any) -> Span:
        dtype, name = storage
        contiguous = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        if any(size > 1 and have != want for size, have, want in zip(shape, stride, contiguous, strict=True)):
            raise _Refused(f"a tensor of shape {list(shape)} is not contiguous")
        span = Span(dtype, tuple(shape), self._starts[name] + offset * np.dtype(dtype).itemsize)
        end = self._starts[name] + self._records[name].file_size
        if min((offset, *shape), default=0) < 0 or span.offset + span.length > end:
            raise _Refused(f"a tensor of shape {list(shape)} does not fit its record {name}")
        return span


def _root(archive: zipfile.ZipFile) -> str:
    roots = [name.removesuffix("/data.pkl") for name in archive.namelist() if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise _Refused("it has no data.pkl")
    return roots[0]


def _record_starts(archive: zipfile.ZipFile, path: Path) -> dict[str, int]:
    """Where the content of each record begins.

    That stands in each record's own header, spread over the whole file. But torch pads records to a multiple of 64 bytes,
    and where a record that begins so also ends where the next one's header says, its own need not be read: millions of reads
    saved on a data set of this size.
    """
    records = sorted(archive.infolist(), key=lambda info: info.header_offset)
    ends = [info.header_offset for info in records[1:]] + [archive.start_dir]
    starts = {}
    with open(path, "rb") as file:
        for info, end in zip(records, ends, strict=True):
            if info.compress_type != zipfile.ZIP_STORED:
                raise _Refused(f"record {info.filename} is compressed")
            # 4 bytes: the header of the padding itself.
            begin = info.header_offset + LOCAL_HEADER + len(info.filename.encode()) + 4
            begin = -(-begin // ALIGNMENT) * ALIGNMENT
            if begin + info.file_size + DESCRIPTOR != end:
                file.seek(info.header_offset)
                header = file.read(LOCAL_HEADER)
                if header[:4] != b"PK\x03\x04":
                    raise _Refused(f"record {info.filename} has no header")
                begin = info.header_offset + LOCAL_HEADER + sum(struct.unpack("<HH", header[26:]))
                if begin + info.file_size > end:
                    raise _Refused(f"record {info.filename} runs into the next")
            starts[info.filename] = begin
    return starts
