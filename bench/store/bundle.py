"""One file that holds result folders: written to the same bytes each time, read without trusting a byte of it.

A bundle is a gzipped tar archive. Its first member, ``bundle.json``, names every other one with its size and SHA-256, in
order; each is a plain file of a result folder. `unpacked` takes nothing else: no link, no device, no path that leads out, no
member that is not named, none twice, none missing, nothing behind the last, and never more bytes than were announced.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from bench import PROTOCOL, __version__
from bench.errors import UserError
from bench.parse import checking
from bench.store.files import disk_error, require_version, sha256

SCHEMA = 1
MANIFEST = "bundle.json"
BLOCK = tarfile.BLOCKSIZE
PIECE = 1 << 20
"""Bytes that are held at once."""
MANIFEST_BYTES = 32 << 20
MEMBER_BYTES = 8 << 30
"""Largest member, as the tar format writes sizes (less one byte)."""
TOTAL_BYTES = 64 << 30
"""Largest sum of the members; what it takes must also be free on the disk."""


class Member(BaseModel):
    """A file of a bundle."""

    model_config = ConfigDict(frozen=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0, lt=MEMBER_BYTES)]


class Packed(BaseModel):
    """A result folder of a bundle. Unknown keys are left alone."""

    model_config = ConfigDict(frozen=True)

    folder: str
    """Where it lies in the archive: ``cpu-2core/nvs-tiny``."""
    tables: tuple[str, ...] = ()
    """The tables as they were rendered, relative to the folder."""


class Manifest(BaseModel):
    """``bundle.json``."""

    model_config = ConfigDict(frozen=True)

    protocol: str
    isochron: str
    """Version of the program that packed it."""
    folders: Annotated[tuple[Packed, ...], Field(min_length=1)]
    members: dict[str, Member]
    """Path in the archive -> size and sum, in the order of the archive."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose members have their sums, unpacked for as long as `unpacked` is open."""

    root: Path
    manifest: Manifest

    @property
    def folders(self) -> dict[str, Path]:
        """Name in the archive -> where the folder lies now."""
        return {packed.folder: self.root / packed.folder for packed in self.manifest.folders}


def pack(root: Path, folders: Sequence[Mapping[str, Any]], out: Path, *, replace: bool = False) -> Path:
    """Pack every file below `root` into `out`, which appears whole or not at all. Returns `out`.

    Equal files give equal bytes: sorted names, no times, no owners. (Of the same zlib; another may compress otherwise. The
    content is told by ``bundle.json`` alone.)

    Args:
        root: holds the folders, and nothing else.
        folders: what ``bundle.json`` says of each; at least ``folder``.
        out: the file.
        replace: whether a file that is there already gives way.

    Raises:
        UserError: `out` is there already, a file is too large or its path too long, or the disk is full.
    """
    if out.exists() and (out.is_dir() or not replace):
        raise UserError(f"{out}: is there already; give --replace, or another file with --out")
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    sizes = {name: paths[name].stat().st_size for name in sorted(paths)}
    members = {name: {"sha256": sha256(paths[name]), "bytes": size} for name, size in sizes.items()}
    head = {"schema": SCHEMA, "protocol": PROTOCOL, "isochron": __version__, "folders": folders, "members": members}
    manifest = (json.dumps(head, indent=1, allow_nan=False) + "\n").encode()
    _require_bounds(out, sizes, len(manifest))
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            with (
                gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream,
                tarfile.TarFile(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
            ):
                _add(tar, MANIFEST, manifest)
                for name in members:
                    _add(tar, name, paths[name])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(out)
    except OSError as error:
        raise disk_error(out, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return out


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    info = tarfile.TarInfo(name)  # no times, no owners, mode 0644
    try:
        if not stays_inside(name):
            raise ValueError("its path holds a control character or a backslash")
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
            info.size = file.seek(0, os.SEEK_END)
            file.seek(0)
            tar.addfile(info, file)
    except ValueError as error:
        raise UserError(f"{name}: cannot be packed ({error}); rename it, or give the arm a shorter name") from None


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Bundle]:
    """Check a bundle and lay it out in a temporary folder, which is gone afterwards.

    Raises:
        UserError: it is none, of another schema or protocol, cut short, or not as it was packed; the line names the member.
    """
    with tempfile.TemporaryDirectory(prefix="isochron-") as place:
        yield Bundle(Path(place), _unpack(path, Path(place)))


def _unpack(path: Path, place: Path) -> Manifest:
    try:
        with gzip.open(path, "rb") as stream:
            manifest = _read_manifest(path, stream)
            needed, free = sum(member.bytes for member in manifest.members.values()), shutil.disk_usage(place).free
            if needed > free:
                raise UserError(
                    f"{path}: needs {needed:,} bytes in {place.parent}, {free:,} are free; set TMPDIR elsewhere"
                )
            changed = [
                name for name, member in manifest.members.items() if not _extract(path, stream, place, name, member)
            ]
            if stream.read(2 * tarfile.RECORDSIZE).strip(b"\0") or stream.read(1):
                raise UserError(f"{path}: holds more than {MANIFEST} names; ask for the bundle again")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: is no bundle, or cut short or damaged ({error}); copy it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be unpacked ({error.strerror or error})") from error
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        raise UserError(f"{path}: {changed[0]}{more} was changed after it was packed; ask for the bundle again")
    return manifest


def _read_manifest(path: Path, stream: gzip.GzipFile) -> Manifest:
    info = _header(path, stream)
    if info.name != MANIFEST or info.size > MANIFEST_BYTES:
        raise UserError(f"{path}: is no bundle (its first member is not {MANIFEST}); see `isochron bundle`")
    try:
        raw = json.loads(b"".join(_content(path, stream, info)))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: {MANIFEST}: cannot be read as JSON ({error}); ask for the bundle again") from None
    require_version(f"{path}: {MANIFEST}", raw, SCHEMA)
    with checking(f"{path}: {MANIFEST}", "ask for the bundle again"):
        manifest = Manifest.model_validate(raw)
    folders = [packed.folder for packed in manifest.folders]
    if len(set(folders)) < len(folders):
        raise UserError(f"{path}: {MANIFEST}: folders: one is named twice in {folders}; ask for the bundle again")
    for name in (*folders, *manifest.members):
        if not stays_inside(name):
            raise UserError(
                f"{path}: {MANIFEST}: {name!r} is no path inside the bundle; do not unpack it by other means"
            )
    for name in manifest.members:
        if not any(name.startswith(f"{folder}/") for folder in folders):
            raise UserError(f"{path}: {name} lies in none of the bundle's folders; ask for the bundle again")
    _require_bounds(path, {name: member.bytes for name, member in manifest.members.items()}, info.size)
    return manifest


def _require_bounds(path: Path, sizes: Mapping[str, int], manifest: int) -> None:
    largest = max(sizes, key=lambda name: sizes[name], default=MANIFEST)
    if manifest > MANIFEST_BYTES or sizes.get(largest, 0) >= MEMBER_BYTES or sum(sizes.values()) > TOTAL_BYTES:
        raise UserError(
            f"{path}: would hold {sum(sizes.values()):,} bytes, {largest} alone {sizes.get(largest, 0):,}; a bundle holds "
            f"{TOTAL_BYTES:,}, a member less than {MEMBER_BYTES:,}: pack fewer folders, or leave the weights out"
        )


def stays_inside(name: str) -> bool:
    """Whether a path with slashes, relative to a folder, leads to something below it."""
    parts = name.split("/")
    return name.isprintable() and "\\" not in name and not {"", ".", ".."} & set(parts)


def _header(path: Path, stream: gzip.GzipFile) -> tarfile.TarInfo:
    """The next header, which must be of a plain file: extensions of the format, links and devices are all refused."""
    block = stream.read(BLOCK)
    if not block.strip(b"\0"):
        raise UserError(f"{path}: holds fewer members than {MANIFEST} names; ask for the bundle again")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is no bundle, or cut short or damaged ({error}); copy it again") from None
    if info.type != tarfile.REGTYPE:
        raise UserError(
            f"{path}: {info.name} is no plain file; a bundle holds nothing else: do not unpack it by other means"
        )
    return info


def _content(path: Path, stream: gzip.GzipFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    left = info.size
    while left > 0:
        piece = stream.read(min(PIECE, left))
        if not piece:
            raise UserError(f"{path}: is cut short in {info.name}; copy it again")
        left -= len(piece)
        yield piece
    stream.read(-info.size % BLOCK)


def _extract(path: Path, stream: gzip.GzipFile, place: Path, name: str, member: Member) -> bool:
    """Write the next member, which must be `name`, below `place`. Whether it has its sum."""
    info = _header(path, stream)
    if info.name != name:
        raise UserError(f"{path}: {info.name} stands where {MANIFEST} names {name}; ask for the bundle again")
    if info.size != member.bytes:
        raise UserError(
            f"{path}: {name} was changed after it was packed ({info.size:,} bytes, not {member.bytes:,}); ask for the bundle again"
        )
    digest = hashlib.sha256()
    try:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        file = (place / name).open("xb")
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{path}: {name} is a file and a folder at once, or there twice; ask for the bundle again"
        ) from None
    with file:
        for piece in _content(path, stream, info):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest() == member.sha256
