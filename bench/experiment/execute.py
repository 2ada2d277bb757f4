"""Starts a comparison in a new folder, or goes on with one in an old folder."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from bench import config as configuration
from bench.config import Comparison
from bench.errors import UserError
from bench.experiment import resolve
from bench.experiment.session import Session
from bench.store.files import write_bytes
from bench.store.provenance import code_hash, code_of, write_provenance


def start(comparison: Comparison, folder: Path, **parts: Any) -> Session:
    """Session on a new folder: the configuration is written out and kept, with its sources.

    Raises:
        UserError: the folder holds something already.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"--out {folder}: the folder is not empty; give a new one, or continue it with `isochron resume {folder}`"
        )
    expanded = resolve.expand(comparison)
    expanded = expanded.model_copy(
        update={"threads": resolve.pick_threads(expanded.threads), "device": str(resolve.pick_device(expanded.device))}
    )
    session = Session(expanded, folder, **parts)
    write_bytes(folder / "comparison.yaml", configuration.dump(session.comparison).encode())
    write_provenance(folder / "provenance", resolve.outside_sources(expanded.arms))
    session.console.log_to(folder / "log.txt")
    return session


def reopen(folder: Path, **parts: Any) -> Session:
    """Session on an existing folder, with the configuration that it was started with.

    Raises:
        UserError: the folder is no comparison, or the code has changed since.
    """
    path = folder / "comparison.yaml"
    if not path.is_file():
        raise UserError(f"{folder}: holds no comparison.yaml; give the folder that `isochron run` printed")
    before = code_of(folder) or "unknown"
    if before != code_hash():
        raise UserError(
            f"{folder}: was made by other code (sources {before[:12]}, now {code_hash()[:12]}); "
            f"check out that code, or start a new comparison: isochron run {path}"
        )
    comparison = configuration.load(path)
    for source in resolve.outside_sources(comparison.arms):
        if source.read_bytes() != _kept_source(folder, source.name):
            raise UserError(f"{source}: has changed since {folder} was started; restore it, or start a new comparison")
    session = Session(comparison, folder, **parts)
    session.console.log_to(folder / "log.txt")
    return session


def _kept_source(folder: Path, name: str) -> bytes | None:
    """Source of a third party's architecture as it was when the comparison was started."""
    path = folder / "provenance" / "sources.zip"
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(f"outside/{name}")
    except KeyError:
        return None
    except (OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path}: cannot be read ({error}); the folder is incomplete") from error


def extend(folder: Path, seeds: int, **parts: Any) -> Session:
    """Session that adds blocks to a comparison until it has `seeds` of them.

    Raises:
        UserError: it has as many already.
    """
    session = reopen(folder, **parts)
    have = session.comparison.seeds
    if seeds <= len(have):
        raise UserError(f"--seeds {seeds}: {folder} has {len(have)} seeds already; give a larger number")
    new = (seed for seed in range(10**9) if seed not in have)
    longer = session.comparison.model_copy(update={"seeds": (*have, *(next(new) for _ in range(seeds - len(have))))})
    write_bytes(folder / "comparison.yaml", configuration.dump(longer).encode())
    return reopen(folder, **parts)
