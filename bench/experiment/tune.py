"""Learning-rate search: the same candidates and the same charged seconds for every arm, its cost stored beside the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.aggregates import aggregate
from bench.engine.blocks import Interrupted
from bench.engine.progress import Budget
from bench.engine.run import Diverged, OutOfMemory
from bench.errors import UserError
from bench.store.files import read_json, write_json

if TYPE_CHECKING:
    from torch import Tensor

    from bench.experiment.session import Session

FILE = "tuning.json"
SEED = 10**6
"""Of the search's own runs: apart from every seed that counts."""


class _Memory:
    """A recorder that keeps what the search needs and writes nothing."""

    def __init__(self) -> None:
        self.spent = 0.0

    def event(self, record: Mapping[str, Any]) -> None:
        self.spent = record["spent"]

    def evaluation(self, record: Mapping[str, Any]) -> None:
        pass

    def save_state(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        pass

    def finish(self, summary: Mapping[str, Any], ledger: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
        pass


def stored(folder: Path) -> dict[str, Any]:
    """What the search of a comparison found and cost; zero seconds where there was none."""
    path = folder / FILE
    return read_json(path) if path.exists() else {"seconds_per_arm": 0.0, "choices": {}}


def search(session: Session, batches: Mapping[str, int]) -> dict[str, float]:
    """Chosen base learning rate of every arm that is tuned, by the headline metric on the validation split."""
    path = session.folder.folder / FILE
    if path.exists():
        return stored(session.folder.folder)["choices"]
    metric = session.task.metrics[0]
    trials: list[dict[str, Any]] = []
    choices: dict[str, float] = {}
    seconds: dict[str, float] = {}
    for arm in session.arms:
        tune = arm.training.tune
        scores = {}
        spent = 0.0
        for rate in tune.candidates:
            recorder = _Memory()
            trainer = session.make_trainer(
                arm.with_learning_rate(rate),
                SEED,
                batches[arm.name],
                recorder,
                budget=Budget(tune.budget),
                unit="seconds",
                eval_fractions=(),
            )
            score = None
            try:
                trainer.set_up()
                trainer.advance(1.0, session.stop_requested)
                if session.stop_requested():
                    raise Interrupted
                if not recorder.spent:
                    raise UserError(
                        f"training.tune.budget: {tune.budget:g} s is less than a step of {arm.name}; give it more"
                    )
                records = trainer.evaluate_on("validation")
                score = aggregate([record[metric.key] for record in records if metric.key in record], metric.aggregate)
                scores[rate] = score if metric.higher_is_better else -score
            except (Diverged, OutOfMemory):
                pass  # a candidate that fails is out; the run itself deals with a batch that does not fit
            spent += recorder.spent
            trials.append({"arm": arm.name, "learning_rate": rate, metric.name: score, "seconds": recorder.spent})
            session.console.say(
                f"tuning {arm.name}: base learning rate {rate:g}: {'failed' if score is None else f'{metric.label} {score:.2f}'}"
            )
        if scores:
            choices[arm.name] = max(scores, key=lambda rate: scores[rate])
        seconds[arm.name] = spent
    if trials:
        write_json(path, {"seconds_per_arm": seconds, "choices": choices, "trials": trials})
    return choices
