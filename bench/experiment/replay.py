"""Does a timed run again as the step schedule that it recorded, and compares the weights."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

from bench import config as configuration
from bench.engine.progress import ReplayedBudget
from bench.errors import UserError
from bench.experiment import pretraining, resolve
from bench.experiment.session import OF_THE_TASK, PINNED, Session, digests, require_same
from bench.store.files import read_json, read_lines
from bench.store.write import RunFolder, weights_hash


@dataclass(frozen=True)
class Replay:
    """What became of a replay."""

    steps: int
    identical: bool
    """Whether the weights are equal to the last bit."""
    largest_difference: float | None
    """Between any two weights; None where the original's weights are not at hand."""


def replay(run: Path, **parts: Any) -> Replay:
    """Train the run in `run` again along its recorded progress; nothing in the folder is changed.

    Raises:
        UserError: the folder is no finished run.
    """
    if not (run / "run.json").is_file():
        raise UserError(f"{run}: holds no run.json; give a run's folder, e.g. DIR/runs/ARM/seed-0")
    outcome = read_json(run / "run.json")
    if outcome["status"] != "finished":
        raise UserError(f"{run}: the run is {outcome['status']}, not finished; only finished runs can be replayed")
    comparison = configuration.load(run / "config.yaml")
    trace = [event["p"] for event in read_lines(run / "events.jsonl")]
    console = parts["console"]
    with tempfile.TemporaryDirectory(prefix="isochron-replay-") as scratch:
        session = Session(comparison, Path(scratch), **parts)
        with console.counting() as report:
            session.task.prepare(report)
        _require_same_inputs(run, session)
        session.initial = pretraining.find_or_train(session, given=run.resolve().parents[2] / pretraining.FOLDER)
        arm = session.arms[0]
        identity = {
            "arm": outcome["arm"],
            "label": outcome["label"],
            "policy": outcome["policy"],
            "seed": outcome["seed"],
        }
        recorder = RunFolder(Path(scratch) / "run", identity, yaml.safe_dump({}))
        trainer = session.make_trainer(
            arm,
            outcome["seed"],
            outcome["optimizer_batch"],
            recorder,
            budget=ReplayedBudget(trace),
            eval_fractions=(),
            name=outcome["arm"],
        )
        trainer.set_up()
        recorder.begin()
        with console.progress(f"replaying {outcome['arm']} seed {outcome['seed']}", total=float(len(trace))) as update:
            trainer.on_step = lambda trainer, loss, p: update(trainer.steps, f"step {trainer.steps}  loss {loss:.4f}")
            trainer.advance(2.0)
        trainer.finish("finished")
        weights = load_file(Path(scratch) / "run" / "checkpoint.safetensors")
    original = run / "checkpoint.safetensors"
    identical = weights_hash(weights) == outcome["weights_sha256"]
    difference = None
    if original.is_file():
        before = load_file(original)
        identical = identical and weights_hash(before) == outcome["weights_sha256"]
        difference = max(float((weights[name].double() - before[name].double()).abs().max()) for name in before)
    return Replay(len(trace), identical, difference)


def _require_same_inputs(run: Path, session: Session) -> None:
    """Refuse to replay on other data, or with other pretrained weights of the task, than the run had.

    Raises:
        UserError: names what differs.
    """
    pinned = run.resolve().parents[2] / PINNED
    if pinned.is_file():
        noted = read_json(pinned)
        require_same(noted, "data", getattr(session.task, "fingerprints", dict)(), pinned.parent)
        parts = {OF_THE_TASK: resolve.pretrained_parts(session.task)}
        require_same(noted, "weights", digests(parts), pinned.parent)
