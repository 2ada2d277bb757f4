"""Small comparisons of planted architectures, and the command called in this process and in others."""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench import cli, config
from bench.config import Comparison
from bench.console import Console
from bench.experiment import execute
from bench.experiment.session import Session

TASK = {
    "name": "nvs",
    "image_size": 32,
    "train_scenes": 2,
    "validation_scenes": 2,
    "test_scenes": 2,
    "eval_batch": 4,
    "perceptual": "none",
}
PLAIN = {"name": "plain", "factory": "tests.planted:TinyNVS"}
TWIN = {"name": "twin", "factory": "tests.planted:Twin"}
REAL = ("lvsm-decoder-only", "efficient-lvsm")


def content(arms: list[dict[str, Any]] | None = None, **changes: Any) -> dict[str, Any]:
    """A comparison of seconds: two equal models, ten steps, one thread, as a mapping."""
    return {
        "name": "planted",
        "task": TASK,
        "arms": arms or [PLAIN, TWIN],
        "budget": "10 steps",
        "seeds": 1,
        "batch": ["fill"],
        "cpu_memory": "256MiB",
        "device": "cpu",
        "threads": 1,
        "slice": 0.2,
        "sentinel": {"seconds": 0.02},
        **changes,
    }


def comparison(arms: list[dict[str, Any]] | None = None, **changes: Any) -> Comparison:
    return config.validate(content(arms, **changes), "test")


def write_yaml(path: Path, arms: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(content(arms, **changes)))
    return path


def start(folder: Path, cache: Path, arms: list[dict[str, Any]] | None = None, **changes: Any) -> Session:
    return execute.start(comparison(arms, **changes), folder, console=Console(quiet=True), cache_dir=cache)


def train(folder: Path, cache: Path, arms: list[dict[str, Any]] | None = None, **changes: Any) -> Path:
    """Run a comparison to its end, without table and figures."""
    start(folder, cache, arms, **changes).execute()
    return folder


def weights(folder: Path) -> dict[str, str]:
    """Arm -> SHA-256 of its final weights (first seed)."""
    return {path.parent.parent.name: load(path)["weights_sha256"] for path in folder.glob("runs/*/seed-0/run.json")}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def load(path: Path) -> Any:
    return json.loads(path.read_text())


@dataclass
class Outcome:
    """What the command left behind."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """The one line on standard error that a mistake must become."""
        assert self.code != 0
        assert self.err.count("\n") == 1, self.err
        assert self.err.startswith("isochron: "), self.err
        return self.err.strip()


def isochron(*arguments: object) -> Outcome:
    """Call the command in this process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main([str(argument) for argument in arguments])
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Outcome(code, out.getvalue(), err.getvalue())


def _child(arguments: list[str], environment: dict[str, str], err: str) -> None:
    os.environ.update(environment)
    with open(err, "w", buffering=1) as file:
        sys.stdout = sys.stderr = file
        cli.main(arguments)


@contextlib.contextmanager
def process(*arguments: object, cache: Path, err: Path) -> Iterator[Any]:
    """The command in a process of its own, which starts at once: the fork server has imported torch already.

    (A plain fork cannot train: autograd refuses to work in it.)
    """
    context = multiprocessing.get_context("forkserver")
    environment = {"ISOCHRON_CACHE": str(cache), "OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    child = context.Process(target=_child, args=([str(argument) for argument in arguments], environment, str(err)))
    child.start()
    while child.is_alive() and not err.exists():  # until it runs our code
        time.sleep(0.002)
    try:
        yield child
    finally:
        if child.is_alive():
            child.kill()
        child.join()


def wait_for_steps(run: Path, steps: int, child: Any, timeout: float = 300.0) -> None:
    """Return once `run` has recorded so many steps, or its process has ended."""
    deadline = time.monotonic() + timeout
    while child.is_alive() and time.monotonic() < deadline:
        path = run / "events.jsonl"
        if path.exists() and path.read_bytes().count(b"\n") >= steps:
            return
        time.sleep(0.005)
