"""Writes a comparison's folder and its runs, as `docs/store.md` describes them."""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from bench import PROTOCOL
from bench.aggregates import final_metrics
from bench.errors import UserError
from bench.store.files import LineFile, read_json, read_lines, write_bytes, write_json, write_manifest

SCHEMA = 1
FIGURES = ("curves", "front", "ledger")
TABLES = ("table.md", "table.csv", "table.tex", *(f"{name}.{kind}" for name in FIGURES for kind in ("png", "pdf")))
"""Files that are made from the others and may be made again at any time."""


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes, types and bytes of `weights`, independent of their order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class RunFolder:
    """Recorder of one run (`bench.contracts.Recorder`)."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], config: str) -> None:
        """Record into `folder`; `identity` (arm, label, policy, seed) stands in ``run.json``, `config` is its YAML."""
        self.folder, self._identity = folder, dict(identity)
        self._config = config
        self._sessions = 1
        self.lost = 0.0
        """Charged seconds of earlier tries that came to nothing; known once the run has begun."""

    @property
    def outcome(self) -> dict[str, Any] | None:
        """The run's summary if it has ended, else None."""
        path = self.folder / "run.json"
        summary = read_json(path) if path.exists() else None
        return summary if summary and summary["status"] != "running" else None

    def begin(self) -> tuple[dict[str, Tensor], dict[str, Any], float] | None:
        """Open the folder for writing; the state to resume from and the charged seconds lost since, if there is one.

        Without such a state whatever an earlier try left is cleared away, and all that it was charged is `lost`.
        """
        state = self._load_state()
        events = read_lines(self.folder / "events.jsonl")
        if state is None:
            before = read_json(self.folder / "run.json") if (self.folder / "run.json").exists() else {}
            lost = before.get("lost", 0.0) + (events[-1]["spent"] if events else 0.0)
            self._sessions = before.get("sessions", 0) + 1
            shutil.rmtree(self.folder, ignore_errors=True)
            write_bytes(self.folder / "config.yaml", self._config.encode())
            self._write_running(**({"lost": lost} if lost else {}))
            self._events = LineFile(self.folder / "events.jsonl")
            self._evals = LineFile(self.folder / "evals.jsonl")
            self.lost = lost
            return None
        tensors, meta = state
        kept = events[: meta["steps"]]
        lost = meta.pop("lost", 0.0)  # by an earlier crash that no later state has taken in
        if len(events) > len(kept):
            lost += events[-1]["spent"] - (kept[-1]["spent"] if kept else 0.0)
        evaluations = read_lines(self.folder / "evals.jsonl")[: meta["evaluations"]]
        if len(kept) < meta["steps"] or len(evaluations) < meta["evaluations"]:
            raise UserError(
                f"{self.folder}: the event log is shorter than the saved state; delete the folder to start the run again"
            )
        self._sessions = meta["sessions"] + 1
        self._write_running()
        self._events = LineFile(self.folder / "events.jsonl", keep=kept)
        self._evals = LineFile(self.folder / "evals.jsonl", keep=evaluations)
        write_json(self.folder / "resume" / "state.json", {**meta, "lost": lost})
        self.lost = lost
        return tensors, meta, lost

    def _write_running(self, **more: Any) -> None:
        write_json(self.folder / "run.json", {**self._head(), "status": "running", "reason": "", **more})

    def _head(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "protocol": PROTOCOL, **self._identity, "sessions": self._sessions}

    def _load_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        pointer = self.folder / "resume" / "state.json"
        if not pointer.exists():
            return None
        meta = read_json(pointer)
        try:
            return load_file(self.folder / "resume" / meta["tensors"]), meta
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"{self.folder}/resume: the saved state is damaged ({error}); delete the folder to start the run again"
            ) from error

    def event(self, record: Mapping[str, Any]) -> None:
        """Append the record of one step."""
        self._events.append(record)

    def evaluation(self, record: Mapping[str, Any]) -> None:
        """Append the record of one evaluation."""
        self._evals.append(record)

    def save_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Replace the state to resume from: the new tensors first, then the pointer to them, then the old ones go."""
        folder = self.folder / "resume"
        name = f"state-{meta['steps']}.safetensors"
        write_bytes(folder / name, save(dict(tensors)))
        write_json(folder / "state.json", {**meta, "tensors": name, "sessions": self._sessions})
        for old in folder.glob("state-*.safetensors"):
            if old.name != name:
                old.unlink()

    def finish(self, summary: Mapping[str, Any], ledger: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        """Store the outcome: weights and ledger first, ``run.json`` last, so that a half-written run stays `running`.

        The state to resume from goes only after that, when the run is sealed.
        """
        self.close()
        evaluations = read_lines(self.folder / "evals.jsonl")
        final: dict[str, float] = {}
        if evaluations and evaluations[-1]["annealed"]:
            final = final_metrics(evaluations[-1]["records"], summary.get("aggregates", {}), summary.get("sources", {}))
        write_bytes(self.folder / "checkpoint.safetensors", save(dict(weights)))
        write_json(self.folder / "ledger.json", ledger)
        write_json(
            self.folder / "run.json",
            {**self._head(), **summary, "final": final, "weights_sha256": weights_hash(weights), "flags": []},
        )

    def seal(self, flags: Sequence[str]) -> None:
        """Add the `flags` that the outcome does not have yet and seal the folder with its manifest. Idempotent."""
        summary = read_json(self.folder / "run.json")
        write_json(self.folder / "run.json", {**summary, "flags": list(dict.fromkeys([*summary["flags"], *flags]))})
        shutil.rmtree(self.folder / "resume", ignore_errors=True)
        write_manifest(self.folder)

    def close(self) -> None:
        """Close the logs."""
        self._events.close()
        self._evals.close()


class ComparisonFolder:
    """The folder of one comparison."""

    def __init__(self, folder: Path) -> None:
        """Work in `folder`, which need not exist yet."""
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process: two that write to it would mix their runs.

        Raises:
            UserError: another process holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(f"{self.folder}: another process is at work on it; wait for it, or stop it") from None
            yield

    def clear(self) -> None:
        """Remove all that the folder holds."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    @property
    def record(self) -> dict[str, Any]:
        """Content of ``comparison.json``."""
        return read_json(self.folder / "comparison.json")

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Replace ``comparison.json``."""
        write_json(self.folder / "comparison.json", {"schema": SCHEMA, "protocol": PROTOCOL, **record})

    def run(self, arm: Mapping[str, Any], seed: int, config: str) -> RunFolder:
        """Recorder of the run of one arm (as in ``comparison.json``) and seed."""
        identity = {"arm": arm["name"], "label": arm["label"], "policy": arm["policy"], "seed": seed}
        return RunFolder(self.folder / "runs" / arm["name"] / f"seed-{seed}", identity, config)

    def arm(self, name: str) -> dict[str, Any] | None:
        """What was measured once for an arm, if it has been."""
        path = self.folder / "arms" / f"{name}.json"
        return read_json(path) if path.exists() else None

    def write_arm(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace ``arms/NAME.json``."""
        write_json(self.folder / "arms" / f"{name}.json", record)

    def seal(self) -> None:
        """Write the manifest of everything but tables and figures."""
        write_manifest(self.folder, exclude=TABLES)


def dumps(value: Any) -> str:
    """Compact JSON with sorted keys, for hashing."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
