"""One process's work on a comparison: prepare, measure the arms, run the blocks, write what came of it."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench import FEW_STEPS, SENTINEL_DRIFT_LIMIT, SKIPPED_STEPS_LIMIT
from bench import config as configuration
from bench.config import Comparison
from bench.console import Console
from bench.contracts import Clock, Recorder, Task
from bench.engine import sentinel
from bench.engine.blocks import Interrupted, run_block
from bench.engine.clock import NANOSECONDS, Gaps, Heartbeat, SystemClock
from bench.engine.memory import steady_allocator
from bench.engine.progress import Budget
from bench.engine.run import OutOfMemory, RunSettings
from bench.engine.trainer import Trainer
from bench.errors import UserError
from bench.experiment import measure, pictures, pretraining, resolve, tune
from bench.experiment.resolve import Arm
from bench.store.files import LineFile, read_json, read_lines, write_bytes, write_json
from bench.store.write import ComparisonFolder, RunFolder, dumps

SHRINK = 0.95
"""After an out-of-memory error a run starts again with this share of its batch."""


OUT_OF_MEMORY = ".out-of-memory-"
"""Stands between a run's folder and the batch in the name under which a try that ran out of memory is kept."""


OF_THE_TASK = "task"
"""Stands for the task among the labels of arms, where parts that were trained elsewhere are kept."""


PINNED = "pinned.json"
"""Holds the digests of pretrained weights and of data that a comparison was started with."""


def digests(parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """Label -> name and SHA-256 of its parts that were trained elsewhere, wherever their files lie."""
    return {
        label: [{key: part.get(key) for key in ("name", "sha256")} for part in found] for label, found in parts.items()
    }


def require_same(noted: Mapping[str, Any], kind: str, given: Mapping[str, Any], folder: Path) -> None:
    """Refuse `given` weights or data, by label, that are not those `noted` when the comparison in `folder` was started.

    Raises:
        UserError: names the first that differs.
    """
    for label, value in given.items():
        before = noted.get(kind, {}).get(label, value)
        if before != value:
            raise UserError(
                f"{folder}: was started with other {kind} ({label}: {dumps(before)[:120]}, now {dumps(value)[:120]}); restore "
                "them, or start a new comparison"
            )


class Session:
    """One process's work on a comparison's folder."""

    def __init__(
        self,
        comparison: Comparison,
        folder: Path,
        *,
        console: Console,
        cache_dir: Path,
        stop_requested: Callable[[], bool] = lambda: False,
        clock: Clock | None = None,
    ) -> None:
        """Work on `comparison`, whose presets are written out and whose threads are a number, in `folder`."""
        self.folder, self.console = ComparisonFolder(folder), console
        self.cache_dir, self.stop_requested = cache_dir, stop_requested
        self.clock = clock or SystemClock()
        self.device = resolve.pick_device(comparison.device)
        self.arms = resolve.expand_arms(comparison)
        self.task: Task = resolve.make_task(comparison, cache_dir)
        settled = getattr(self.task, "config", None)
        options = asdict(settled) if is_dataclass(settled) and not isinstance(settled, type) else comparison.task
        self.comparison = comparison.model_copy(update={"task": {**options, "name": self.task.name}})
        self._gaps = Gaps()
        self._prepared = False
        self._pretrained: dict[str, list[dict[str, Any]]] = {}
        """Label of an arm -> its parts that were trained elsewhere."""
        self.initial: dict[str, Tensor] = {}
        """Weights that every arm starts from; empty without pretraining."""
        self._shares: dict[str, int] = {}
        """Nanoseconds of this process that its runs share, by ledger category."""
        self._sentinel_kernel = sentinel.make_kernel(self.device)
        torch.set_num_threads(int(comparison.threads))
        steady_allocator()  # as in the probes: it changes what a step takes
        if comparison.deterministic:
            torch.use_deterministic_algorithms(True)

    # ------------------------------------------------------------------------------------------------ whole course

    def execute(self) -> None:
        """Do what is left to do: prepare, measure the arms, run the blocks, and take the pictures.

        Raises:
            Interrupted: the user asked to stop; states are saved.
            UserError: something that the user can mend, e.g. another process that works on the folder.
        """
        record = self.folder.folder / "comparison.json"
        with self.folder.locked():
            before = record.read_bytes() if record.exists() else None
            self._write_record("running")
            try:
                self._work()
            except Interrupted:
                self._write_record("stopped")
                raise
            except UserError:
                if before is not None and not self._prepared:
                    write_bytes(record, before)  # nothing has begun: what was finished is finished
                elif not self._prepared and not (self.folder.folder / pretraining.FOLDER).exists():
                    self.console.log_to(None)
                    self.folder.clear()  # nothing has begun: the same command may come again
                raise
            self._write_record("finished")
            self.console.log_to(None)
            self.folder.seal()

    def _work(self) -> None:
        with Heartbeat(self.clock, self._gaps):
            with self._shared("setup"):
                self._prepare()
            self._prepared = True
            with self._shared("probe"):
                batches = measure.measure_arms(self)
            self._apply(tune.search(self, batches))
            runs = [self._folder_of(arm, seed) for arm in self.arms for seed in self.comparison.seeds]
            self._runs_to_come = sum(run.outcome is None for run in runs)
            for number, seed in enumerate(self.comparison.seeds, start=1):
                self.check_stop()
                self._block(f"block {number}/{len(self.comparison.seeds)} (seed {seed})", seed, batches)
            measure.measure_inference(self, batches)
        seed = self.comparison.seeds[0]
        painters = [(arm, self._folder_of(arm, seed)) for arm in self.arms]
        pictures.write(self.folder.folder / "pictures" / "grid.png", painters, self.task, self.device)

    def check_stop(self) -> None:
        """Raise `Interrupted` if the user has asked to stop: called between pieces of work that leave nothing behind."""
        if self.stop_requested():
            raise Interrupted

    def _apply(self, choices: Mapping[str, float]) -> None:
        """Give the arms the learning rates that the search chose for them."""
        self.arms = [arm.with_learning_rate(choices[arm.name]) if arm.name in choices else arm for arm in self.arms]
        for arm in self.arms:
            measure.store_learning_rate(self, arm)
        self._write_record("running")

    def _prepare(self) -> None:
        for arm in self.arms:  # what is wrong with an arm is an error before any budget is spent
            model = resolve.build(arm.config)
            resolve.require_inputs(model, self.task, arm)
            self._pretrained[arm.label] = [dict(part) for part in resolve.pretrained_parts(model)]
        self.console.say(f"Preparing the data of task {self.task.name!r}.")
        with self.console.counting() as report:

            def step(label: str, done: int, total: int) -> None:
                report(label, done, total)
                self.check_stop()

            self.task.prepare(step)
        self.initial = pretraining.find_or_train(self)
        if self.initial:
            for arm in self.arms:
                part = pretraining.described(self, arm, resolve.build(arm.config))
                self._pretrained[arm.label].append(part)
        self._pretrained[OF_THE_TASK] = [dict(part) for part in resolve.pretrained_parts(self.task)]
        self._pin("weights", digests(self._pretrained))
        self._pin("data", getattr(self.task, "fingerprints", dict)())
        path = self.folder.folder / "references.json"
        references = getattr(self.task, "references", None)
        if references is not None and not path.exists():
            write_json(path, references(device=self.device))

    def _pin(self, kind: str, given: Mapping[str, Any]) -> None:
        """Note what the comparison was given from outside, or refuse to go on with anything else."""
        path = self.folder.folder / PINNED
        noted = read_json(path) if path.exists() else {}
        require_same(noted, kind, given, self.folder.folder)
        write_json(path, {**noted, kind: {**noted.get(kind, {}), **given}})

    @contextmanager
    def _shared(self, category: str) -> Iterator[None]:
        """Measure time that belongs to all runs alike; each gets an equal share in its ledger."""
        started = self.clock.now()
        yield
        self._shares[category] = self.clock.now() - started

    def _write_record(self, status: str) -> None:
        comparison, task = self.comparison, self.task
        path = self.folder.folder / "comparison.json"
        old = read_json(path) if path.exists() else {}
        self.folder.write_record(
            {
                "name": comparison.name,
                "preset": comparison.preset,
                "description": comparison.description,
                "caption": comparison.caption,
                "task": {
                    "name": task.name,
                    "options": {key: value for key, value in comparison.task.items() if key != "name"},
                    "metrics": [metric._asdict() for metric in task.metrics],
                    "pairing": getattr(task, "pairing", ""),
                    "gate": gate._asdict() if (gate := getattr(task, "gate", None)) else None,
                    "pretrained_parts": self._pretrained.get(OF_THE_TASK, []),
                },
                "arms": [arm.record(self._pretrained.get(arm.label, ())) for arm in self.arms],
                "reference": comparison.reference_arm,
                "seeds": list(comparison.seeds),
                "budget_s": comparison.budget.amount if comparison.budget.unit == "seconds" else None,
                "budget": comparison.budget.model_dump(),
                "eval_fractions": list(comparison.eval_fractions),
                "slice": comparison.slice,
                "device": old.get("device")
                or resolve.describe_device(
                    self.device, int(comparison.threads), measure.memory_limit(comparison, self.device)
                ),
                "precision": {"fp32": "fp32", "bf16": "bf16 autocast"}[comparison.training.precision],
                "tuning": tune.stored(self.folder.folder),
                "warnings": list(dict.fromkeys([*old.get("warnings", ()), *getattr(task, "notices", ())])),
                "status": status,
            }
        )

    # ------------------------------------------------------------------------------------------------------ blocks

    def _block(self, title: str, seed: int, batches: Mapping[str, int]) -> None:
        """Run all arms of one seed that have not ended yet."""
        waiting = []
        for arm in self.arms:
            attempts = self._out_of_memory(arm, seed)
            if self._folder_of(arm, seed).outcome is None:
                waiting.append((arm, *self._after(arm, attempts, batches[arm.name])))
        while waiting:
            trainers, recorders = [], {}
            again = []
            for arm, batch, attempts in waiting:
                recorder = self._folder_of(arm, seed)
                try:
                    trainer = self._trainer(arm, seed, self._batch(recorder, batch), recorder)
                except OutOfMemory as error:  # in the warm-up: nothing is recorded yet
                    self.console.say(f"{title}: {arm.name}: {error} (in the warm-up)")
                    again.append((arm, *self._after(arm, (*attempts, batch), batch)))
                    continue
                trainers.append(trainer)
                recorders[id(trainer)] = (arm, recorder, attempts)
            waiting = self._run_trainers(title, seed, trainers, recorders) + again
        self._flag(seed)

    def _out_of_memory(self, arm: Arm, seed: int) -> tuple[int, ...]:
        """The batches that the run ran out of memory with, largest first; an earlier process may have been the one.

        Such a try is set aside under a name of its own, so that the run can start again from zero.
        """
        recorder = self._folder_of(arm, seed)
        folder, outcome = recorder.folder, recorder.outcome
        if outcome is not None and outcome["status"] == OutOfMemory.status:
            folder.rename(folder.with_name(f"{folder.name}{OUT_OF_MEMORY}{outcome['optimizer_batch']}"))
        marked = folder.parent.glob(f"{folder.name}{OUT_OF_MEMORY}*")
        return tuple(sorted((int(path.name.rpartition("-")[2]) for path in marked), reverse=True))

    @staticmethod
    def _after(arm: Arm, attempts: tuple[int, ...], batch: int) -> tuple[int, tuple[int, ...]]:
        """The batch to take after those that were too large, and these."""
        for failed in attempts:
            batch = min(batch, int(failed * SHRINK), failed - 1)
        if batch < 1:
            raise UserError(
                f"{arm.name}: out of memory at batch 1; give the comparison a smaller task, or the device more memory"
            )
        return batch, attempts

    def _run_trainers(self, title: str, seed: int, trainers: list[Trainer], recorders: dict[int, Any]) -> list[Any]:
        """Run one interleaved set to its end; the arms that ran out of memory come back, with a smaller batch."""
        again = []

        def ended(trainer: Trainer, status: str, reason: str) -> None:
            arm, recorder, attempts = recorders[id(trainer)]
            trainer.finish(status, reason)
            recorder.seal([])
            self.console.say(
                f"{title}: {arm.name} {status} after {trainer.steps} steps{f': {reason}' if reason else ''}"
            )
            if status == OutOfMemory.status:
                batch = trainer.settings.batch
                self._out_of_memory(arm, seed)
                again.append((arm, *self._after(arm, (*attempts, batch), batch)))

        with self.console.progress(title, total=float(len(trainers))) as update:

            def show(trainer: Trainer, loss: float, progress: float) -> None:
                done = sum(other.budget.fraction for other in trainers)
                rate = (
                    trainer.settings.batch / trainer.budget.last
                    if trainer.settings.unit == "seconds" and trainer.budget.last
                    else 0.0
                )
                update(
                    done,
                    f"{trainer.settings.arm}  step {trainer.steps}  p {progress:.2f}  loss {loss:.4f}"
                    + (f"  {rate:.1f} samples/s" if rate else ""),
                )

            for trainer in trainers:
                trainer.on_step = show
            gc.collect()
            gc.freeze()  # what is there by now stays: collections between slices need not look at it again
            try:
                run_block(
                    trainers,
                    slice_fraction=self.comparison.slice,
                    clock=self.clock,
                    sentinel=lambda when: self._sentinel(seed, when),
                    sentinel_interval=self.comparison.sentinel.interval,
                    checkpoint_interval=self.comparison.checkpoint_interval,
                    on_end=ended,
                    stop_requested=self.stop_requested,
                )
            finally:
                gc.unfreeze()
                for _, recorder, _ in recorders.values():
                    recorder.close()
        return again

    def make_trainer(
        self,
        arm: Arm,
        seed: int,
        batch: int,
        recorder: Recorder,
        *,
        budget: Budget | None = None,
        unit: str | None = None,
        eval_fractions: Sequence[float] | None = None,
        name: str | None = None,
        task: Task | None = None,
    ) -> Trainer:
        """Trainer of one run; nothing of it is built yet.

        What is left out is as the comparison says; `name` is the one that the run's random numbers come from.
        """
        comparison, training = self.comparison, arm.training
        settings = RunSettings(
            arm=name or arm.name,
            seed=seed,
            batch=batch,
            step=resolve.step_settings(training, batch),
            curve=resolve.curve(training),
            eval_fractions=tuple(comparison.eval_fractions if eval_fractions is None else eval_fractions),
            unit=unit or comparison.budget.unit,
            compile=training.compile,
            charge_compilation=training.charge_compilation,
        )
        return Trainer(
            build=partial(self._start, arm),
            task=task or self.task,
            settings=settings,
            budget=budget or Budget(comparison.budget.amount),
            device=self.device,
            clock=self.clock,
            recorder=recorder,
            gaps=self._gaps,
        )

    def _start(self, arm: Arm) -> nn.Module:
        """A module of the arm as its runs begin with it."""
        module = resolve.build(arm.config)
        pretraining.adopt(module, self.initial)
        return module

    def _folder_of(self, arm: Arm, seed: int) -> RunFolder:
        config = self.comparison.model_copy(
            update={"arms": (arm.config,), "batch": (arm.policy,), "seeds": (seed,), "reference": ""}
        )
        return self.folder.run(arm.record(), seed, configuration.dump(config))

    def _batch(self, recorder: RunFolder, batch: int) -> int:
        """The batch that the run started with, where it goes on, else the one that was chosen."""
        events = read_lines(recorder.folder / "events.jsonl")
        return events[0]["batch"] if events and (recorder.folder / "resume" / "state.json").exists() else batch

    def _trainer(self, arm: Arm, seed: int, batch: int, recorder: RunFolder) -> Trainer:
        trainer = self.make_trainer(arm, seed, batch, recorder)
        trainer.set_up()
        state = recorder.begin()
        if state is None:
            trainer.ledger.book_apart("lost", int(recorder.lost * NANOSECONDS))
        else:
            trainer.restore(*state)
        for category, nanoseconds in self._shares.items():
            trainer.ledger.book_apart(category, nanoseconds // self._runs_to_come)
        return trainer

    # ------------------------------------------------------------------------------------------ sentinel and flags

    def _sentinel(self, seed: int, when: str) -> float:
        seconds = self.comparison.sentinel.seconds
        if not seconds:
            return 0.0
        started = self.clock.now()
        synchronize = measure.synchronizer(self.device)
        rate = sentinel.measure(self._sentinel_kernel, self.clock, seconds=seconds, synchronize=synchronize)
        log = LineFile(self.folder.folder / "sentinel.jsonl")
        log.append({"time": time.time(), "block": seed, "when": when, "rate": rate})
        log.close()
        return (self.clock.now() - started) / NANOSECONDS

    def _flag(self, seed: int) -> None:
        """Add to the block's ended runs what a reader must know about them."""
        rates = [line["rate"] for line in read_lines(self.folder.folder / "sentinel.jsonl") if line["block"] == seed]
        drift = sentinel.drift(rates) if len(rates) > 1 else 0.0
        for arm in self.arms:
            recorder = self._folder_of(arm, seed)
            outcome = recorder.outcome
            if outcome is None:
                continue
            tries = self._out_of_memory(arm, seed)
            flags = [f"started again after running out of memory at batch {batch}" for batch in tries]
            idle = read_json(recorder.folder / "ledger.json")["categories"]["idle"]
            if idle > 0:
                flags.append(f"stood still for {idle:.1f} s (stopped from outside, or stalled)")
            if drift > SENTINEL_DRIFT_LIMIT:
                flags.append(f"sentinel drift {100 * drift:.1f} %")
            if outcome["status"] == "finished" and outcome["steps"] < FEW_STEPS:
                flags.append(f"only {outcome['steps']} steps (fewer than {FEW_STEPS})")
            skipped = outcome.get("skipped_steps", 0)
            if skipped > SKIPPED_STEPS_LIMIT * outcome["steps"]:
                flags.append(f"{skipped} of {outcome['steps']} steps skipped (gradient norm above gradient_skip)")
            recorder.seal(flags)
