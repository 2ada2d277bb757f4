"""A folder of rendered arrays: made once with all cores, shard by shard, then read through memory maps.

    <folder>/
        manifest.json             the spec and one entry for each finished shard, with its files' SHA-256
        shard-0000-rgb.npy ...    one file for each field of each shard
        .lock                     held (fcntl) by the process that renders

A shard counts as finished once it is in the manifest; both are replaced atomically, so a run that is killed at any moment is
resumed by the next.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.data.cache_folder import Progress, check_space, digest, seal, sole_writer, unseal
from bench.data.shards import ShardedArray, refuse_damage, write_atomically
from bench.errors import UserError
from bench.machine import usable_cores

Entries = dict[str, Any]
"""What the manifest says of a shard: name, size and SHA-256 of the file of each field."""


@dataclass(frozen=True)
class RenderedFolder:
    """What a folder holds and how it is made."""

    what: str
    """Begins messages: "scenes"."""
    split: str
    folder: Path
    spec: Mapping[str, Any]
    """All that determines the bytes."""
    fields: tuple[str, ...]
    """Arrays of a shard."""
    ranges: Sequence[range]
    """Numbers of the scenes of each shard."""
    scene_bytes: int
    """About what a scene takes on the disk."""
    render: Callable[[range, Path, int], Entries]
    """`render(scenes, folder, shard)` writes a shard; goes to other processes, so it must pickle."""
    sources: Callable[[], Mapping[str, Any]] = dict
    """What else the manifest should tell of what was rendered."""
    software: tuple[str, ...] = ("numpy", "trimesh", "embreex", "scikit-image")
    """Packages that it takes, whose versions the manifest tells."""
    verb: str = "render"
    """How it is made, in messages: "render" or "generate"."""
    things: str | None = None
    """What a split holds, in messages: "clips"; None: `what`."""

    def complete(self, workers: int | None, progress: Progress | None) -> None:
        """Render the shards that are missing.

        Args:
            workers: processes; None takes every core that this process may use, 1 renders in this process.
            progress: told of every finished shard.

        Raises:
            UserError: a damaged shard or manifest, a full disk or a folder that cannot be written.
        """
        if workers is not None and workers < 1:
            raise UserError(f"workers must be >= 1, got {workers}")
        with sole_writer(self.folder, f"{self.verb}s {self.split} {self.things or self.what}", progress):
            self._complete(workers or usable_cores(), progress)

    def open(self, *, verify: bool) -> tuple[dict[str, ShardedArray], dict[int, Entries]]:
        """The arrays by field, and the manifest's entries by shard; checks sizes, and SHA-256 sums if `verify`.

        Raises:
            UserError: the folder is not there, not complete, or damaged; the message names the file and the mend.
        """
        if not (self.folder / "manifest.json").is_file():
            raise UserError(f"{self.what}: {self.split} is not in the cache ({self.folder}); prepare it first")
        shards, total = self._read_manifest(), len(self.ranges)
        if len(shards) != total:
            raise UserError(
                f"{self.what}: {self.folder} holds {len(shards)} of {total} shards; prepare {self.split} again to finish it"
            )
        for number in range(total):
            refuse_damage(self.folder, shards[number], self.what, self.verb, checksum=verify)
        arrays = {
            field: ShardedArray([self.folder / shards[n][field]["name"] for n in range(total)]) for field in self.fields
        }
        return arrays, shards

    def fingerprint(self, shards: Mapping[int, Entries]) -> str:
        """Digest of the spec and of the SHA-256 sums of all `shards`."""
        sums = {field: [shards[n][field]["sha256"] for n in sorted(shards)] for field in self.fields}
        return digest({"spec": self.spec, "files": sums})

    def _complete(self, workers: int, progress: Progress | None) -> None:
        """Render what is missing; the caller holds the lock."""
        shards = self._read_manifest() if (self.folder / "manifest.json").is_file() else {}
        for number in sorted(shards):
            if any(not (self.folder / entry["name"]).is_file() for entry in shards[number].values()):
                del shards[number]
            else:
                refuse_damage(self.folder, shards[number], self.what, self.verb, checksum=True)
        missing = [number for number in range(len(self.ranges)) if number not in shards]
        if not missing:
            return
        self._require_software()
        for leftover in self.folder.glob(".*.tmp"):  # of a process that was killed; the lock says that it is gone
            leftover.unlink(missing_ok=True)
        total = sum(map(len, self.ranges))
        scenes = sum(len(self.ranges[number]) for number in missing)
        check_space(self.folder, scenes * self.scene_bytes, f"{self.what}: {self.split}")
        done, label = total - scenes, f"{self.verb.removesuffix('e')}ing {self.split} {self.things or self.what}"
        if progress:
            progress(label, done, total)
        with closing(self._render_all(missing, workers)) as finished:
            for number, entries in finished:
                shards[number] = entries
                self._write_manifest(shards)
                done += len(self.ranges[number])
                if progress:
                    progress(label, done, total)

    def _render_all(self, missing: Sequence[int], workers: int) -> Generator[tuple[int, Entries]]:
        """Yield (shard, manifest entries) in the order in which the shards are finished."""
        workers = min(workers, len(missing))
        if workers == 1:
            for number in missing:
                yield number, self.render(self.ranges[number], self.folder, number)
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_set_up_worker) as pool:
            futures = {pool.submit(self.render, self.ranges[n], self.folder, n): n for n in missing}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f"{self.what}: a render process was killed (out of memory?) while rendering {self.split}; "
                    "run again with fewer workers: finished shards are kept"
                ) from error
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def _require_software(self) -> None:
        for package in self.software:
            try:
                version(package)
            except PackageNotFoundError as error:
                mend = f"{package} is not installed; run pip install {package}"
                raise UserError(f"{self.what} cannot be {self.verb.removesuffix('e')}ed: {mend}") from error

    def _write_manifest(self, shards: Mapping[int, Entries]) -> None:
        manifest = {
            "spec": self.spec,
            "complete": len(shards) == len(self.ranges),
            **self.sources(),
            "software": {name: version(name) for name in self.software},
            "shards": {str(number): shards[number] for number in sorted(shards)},
        }
        write_atomically(self.folder / "manifest.json", seal(manifest))

    def _read_manifest(self) -> dict[int, Entries]:
        """Return the manifest's shards, or raise `UserError` if it is not what `_write_manifest` wrote for this spec."""
        manifest = unseal(self.folder / "manifest.json", self.spec, self.what)
        return {int(number): entry for number, entry in manifest["shards"].items()}


def _set_up_worker() -> None:
    """End at once and in silence on Ctrl-C, and do not render on as an orphan when the parent was killed."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
