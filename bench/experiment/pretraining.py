"""Weights that every arm of a comparison starts from: trained once, on the comparison's own task, and charged to none.

An arm takes over what has the same name and shape as in the pretrained architecture; the rest starts from its own seed. The
budget counts steps, so that the weights follow from configuration, code and data alone; they are kept in the cache.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from bench import config as configuration
from bench.config import Comparison, PretrainingConfig
from bench.contracts import Task
from bench.data.cache_folder import sole_writer
from bench.engine.blocks import Interrupted
from bench.engine.progress import Budget
from bench.engine.run import Diverged, OutOfMemory
from bench.errors import UserError, naming
from bench.experiment import resolve
from bench.experiment.resolve import Arm
from bench.store.files import read_json
from bench.store.provenance import code_hash
from bench.store.write import RunFolder, dumps, weights_hash

if TYPE_CHECKING:
    from bench.experiment.session import Session

FOLDER = "pretraining"
"""Of a comparison: the pretraining run, laid out like any other run. Also its folder in the cache."""
CHECKPOINT = "checkpoint.safetensors"
SLICES = 20
"""Pieces that the run is cut into; its state is saved between them."""


def find_or_train(session: Session, given: Path | None = None) -> dict[str, Tensor]:
    """The pretrained weights of the session's comparison; empty where it asks for none.

    They come from the comparison's own folder, from the folder `given`, from the cache, or from training now.

    Raises:
        Interrupted: the user asked to stop; the state is saved.
        UserError: what is stored is damaged, or the run came to nothing.
    """
    asked = session.comparison.pretraining
    if asked is None:
        return {}
    folder = session.folder.folder / FOLDER
    task = resolve.make_task(_alone(session.comparison), session.cache_dir) if asked.task else session.task
    with session.console.counting() as report, naming({f"task.{key}": f"{FOLDER}.task.{key}" for key in asked.task}):
        task.prepare(report)
    cached = session.cache_dir / FOLDER / _key(session, task)
    if not _finished(folder):
        for source, name in ((given, "the comparison"), (cached, "the cache")):
            if source is not None and _is_sound(source):
                session.console.say(f"Pretrained weights: from {name}.")
                _copy(source, folder)
                break
        else:
            _train(session, asked, task, folder)
            with sole_writer(cached.parent, "keeps pretrained weights"):
                _copy(folder, cached)
    return _load(folder)


def _is_sound(folder: Path) -> bool:
    """Whether a folder of weights is whole; one that is not counts as absent, and is replaced."""
    try:
        return _finished(folder) and bool(_load(folder))
    except UserError:
        return False


def adopt(module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Give `module` the `weights` that have the name and shape of its own; the names of those that it keeps as they are."""
    own = module.state_dict()
    shared = {name: value for name, value in weights.items() if name in own and own[name].shape == value.shape}
    module.load_state_dict({**own, **shared})
    return [name for name in own if name not in shared]


def described(session: Session, arm: Arm, module: nn.Module) -> dict[str, Any]:
    """The part trained elsewhere that a `module` of an arm starts from, as ``comparison.json`` lists it.

    Raises:
        UserError: the arm shares no weight with the pretrained architecture.
    """
    asked = session.comparison.pretraining
    assert asked is not None, "called where there is pretraining"
    fresh = adopt(module, session.initial)
    if len(fresh) == len(module.state_dict()):
        raise UserError(
            f"pretraining.arm: {asked.arm.name} and arms.{arm.label} share no weight; pretrain an architecture like it"
        )
    return {
        "name": f"pretraining of {asked.arm.name}, {asked.steps} steps of {asked.batch} samples",
        "sha256": weights_hash(session.initial),
        "seconds": read_json(session.folder.folder / FOLDER / "run.json")["spent_s"],
        "fresh": fresh,
    }


def _key(session: Session, task: Task) -> str:
    """Digest of everything that the weights depend on."""
    comparison = session.comparison
    key = {
        "code": code_hash(),
        "config": configuration.dump(_alone(comparison)),
        "data": getattr(task, "fingerprints", dict)(),
        "device": resolve.describe_device(session.device, int(comparison.threads), 0, load=False),
    }
    return hashlib.sha256(dumps(key).encode()).hexdigest()[:32]


def _alone(comparison: Comparison) -> Comparison:
    """What the comparison says of its pretraining, as a comparison of its own."""
    asked = comparison.pretraining
    assert asked is not None, "called where there is pretraining"
    return comparison.model_copy(
        update={
            "name": FOLDER,
            "description": "",
            "caption": "",
            "arms": (_arm(comparison, asked).config,),
            "reference": "",
            "task": {**comparison.task, **asked.task},
            "seeds": (asked.seed,),
            "batch": (f"fixed:{asked.batch}",),
            "training": comparison.training_of(asked.arm),
            "budget": configuration.BudgetConfig(amount=asked.steps, unit="steps"),
            "pretraining": None,
        }
    )


def _arm(comparison: Comparison, asked: PretrainingConfig) -> Arm:
    return Arm(FOLDER, f"fixed:{asked.batch}", asked.arm, comparison.training_of(asked.arm))


def _train(session: Session, asked: PretrainingConfig, task: Task, folder: Path) -> None:
    arm = _arm(session.comparison, asked)
    recorder = RunFolder(
        folder, {**arm.record(), "arm": arm.name, "seed": asked.seed}, configuration.dump(_alone(session.comparison))
    )
    trainer = session.make_trainer(
        arm,
        asked.seed,
        asked.batch,
        recorder,
        budget=Budget(asked.steps),
        unit="steps",
        eval_fractions=(1.0,),
        task=task,
    )
    session.console.say(
        f"Pretraining {asked.arm.name}, {asked.steps} steps of {asked.batch} samples, for all arms alike."
    )
    try:
        trainer.set_up()
        if (state := recorder.begin()) is not None:
            trainer.restore(*state)
        with session.console.progress(FOLDER, total=float(asked.steps)) as update:
            trainer.on_step = lambda trainer, loss, p: update(trainer.steps, f"step {trainer.steps}  loss {loss:.4f}")
            for piece in range(1, SLICES + 2):
                if not trainer.finished:
                    trainer.advance(piece / SLICES, session.stop_requested)
                    trainer.save()
                if session.stop_requested() and not trainer.finished:
                    raise Interrupted
        trainer.finish("finished")
        recorder.seal([])
    except (Diverged, OutOfMemory) as error:
        raise UserError(f"pretraining: {error}; lower its learning rate or batch") from error


def _finished(folder: Path) -> bool:
    return (folder / "manifest.json").is_file() and read_json(folder / "run.json")["status"] == "finished"


def _load(folder: Path) -> dict[str, Tensor]:
    path = folder / CHECKPOINT
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: cannot be read ({error}); delete {folder} to train it again") from error
    if weights_hash(weights) != read_json(folder / "run.json")["weights_sha256"]:
        raise UserError(f"{path}: was changed after it was written; delete {folder} to train it again")
    return weights


def _copy(source: Path, target: Path) -> None:
    """Copy a finished run's folder, all or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    made = target.with_name(f".{target.name}.new")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(source, made, ignore=shutil.ignore_patterns("resume", "*.tmp"))
    shutil.rmtree(target, ignore_errors=True)
    made.rename(target)
