"""Architectures with a planted fault must come out as what they are."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
import torch

from bench.errors import UserError
from bench.stats import paired_difference
from tests import planted
from tests.experiment.helpers import PLAIN, TASK, TWIN, isochron, lines, load, start, train, write_yaml

pytestmark = pytest.mark.slow


def factory(name: str, **options: object) -> dict[str, object]:
    return {"name": name.lower(), "factory": f"tests.planted:{name}", "options": options}


def test_a_twin_ties(tmp_path: Path, cache: Path) -> None:
    """Equal steps: the two differ by their initialisations alone, which five seeds must not call a difference."""
    folder = train(tmp_path / "result", cache, seeds=5, eval_fractions=[1.0])
    finals = {
        arm: {seed: load(folder / f"runs/{arm}/seed-{seed}/run.json")["final"]["psnr"] for seed in range(5)}
        for arm in ("plain", "twin")
    }
    assert finals["plain"] != finals["twin"]
    difference = paired_difference(finals["twin"], finals["plain"], higher_is_better=True)
    assert difference.interval is not None
    assert difference.interval[0] <= 0 <= difference.interval[1], finals


@pytest.fixture(scope="module")
def slept(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A model that takes 10 ms a forward beside one that takes 20: interleaved, so that load meets both alike."""
    arms = [
        {**factory("Sleeper", seconds=0.010), "name": "quick"},
        {**factory("Sleeper", seconds=0.025), "name": "slow"},
    ]
    return train(tmp_path_factory.mktemp("slept") / "result", cache, arms, budget="1.5s", eval_fractions=[1.0])


def test_a_sleeper_gets_half_the_steps_and_the_ledger_shows_where(slept: Path) -> None:
    runs = {name: slept / f"runs/{name}/seed-0" for name in ("quick", "slow")}
    steps = {name: load(run / "run.json")["steps"] for name, run in runs.items()}
    assert 0.3 < steps["slow"] / steps["quick"] < 0.75, steps
    each = {
        name: {key: value / steps[name] for key, value in load(run / "ledger.json")["categories"].items()}
        for name, run in runs.items()
    }
    lost = each["slow"]["forward"] - each["quick"]["forward"]
    assert lost > 0.010, each
    elsewhere = [abs(each["slow"][key] - each["quick"][key]) for key in ("data_wait", "h2d", "backward", "optimizer")]
    assert max(elsewhere) < lost / 2, each


def test_both_spend_the_same_seconds_however_slow_they_are(slept: Path) -> None:
    for name in ("quick", "slow"):
        outcome = load(slept / f"runs/{name}/seed-0/run.json")
        assert outcome["overshoot_s"] <= outcome["overshoot_bound_s"] + 1e-9
        typical = statistics.median(event["seconds"] for event in lines(slept / f"runs/{name}/seed-0/events.jsonl"))
        assert abs(outcome["spent_s"] - 1.5) < 20 * typical


def test_a_comparison_that_is_evaluated_only_at_its_end_has_a_table(slept: Path) -> None:
    outcome = isochron("tables", slept)
    assert outcome.code == 0, outcome.err


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("Leaker", "targets unseen"),
        ("OpenLeaker", "signature"),
        ("HiddenLeaker", "forward and loss"),
        ("SometimesNaN", "always finite"),
    ],
)
def test_check_fails_who_leaks_or_is_finite_only_sometimes(name: str, check: str) -> None:
    outcome = isochron("check", f"tests.planted:{name}")
    assert check in outcome.line
    assert any(line.startswith("FAIL") and check in line for line in outcome.out.splitlines()), outcome.out


def test_a_hoarder_gets_a_batch_that_was_probed_and_fits(tmp_path: Path, cache: Path) -> None:
    """4 * (256 B)**2 bytes, a few times over: twice the batch takes four times the memory, and 64 samples do not fit."""
    changes = {
        "task": {**TASK, "train_scenes": 64},
        "budget": "3 steps",
        "cpu_memory": "80MiB",
        "eval_fractions": [1.0],
    }
    folder = train(tmp_path / "result", cache, [factory("Hoarder", rows=256)], **changes)
    batch = load(folder / "arms/hoarder.json")["batch"]
    probes = {point["batch"]: point for point in batch["curve"]}
    assert probes[batch["micro_batch"]]["fits"]
    assert probes[batch["micro_batch"]]["peak_bytes"] <= batch["limit_bytes"]
    assert any(not point["fits"] for point in probes.values()), "the limit was reached"
    assert len(probes) <= 6
    assert load(folder / "runs/hoarder/seed-0/run.json")["steps"] == 3


def test_a_liar_is_an_error_before_any_budget_is_spent(tmp_path: Path) -> None:
    source = write_yaml(tmp_path / "a.yaml", [PLAIN, factory("Liar")])
    line = isochron("run", source, "--quiet", "--out", tmp_path / "result").line
    assert "liar" in line
    assert "flops" in line.lower()
    assert not list((tmp_path / "result").rglob("events.jsonl"))
    assert isochron("tables", tmp_path / "result").code == 1


def test_an_ordinary_exception_is_reported_as_such_at_once(tmp_path: Path) -> None:
    source = write_yaml(tmp_path / "a.yaml", [factory("Raiser")])
    line = isochron("run", source, "--quiet", "--out", tmp_path / "result").line
    assert "planted: this architecture always fails" in line
    assert "does not fit" not in line
    assert not list((tmp_path / "result").rglob("events.jsonl"))


def test_an_arm_that_diverges_is_shown_as_such_and_the_other_goes_on(tmp_path: Path) -> None:
    """20 forwards with training on are warm-up and probes' own; the buffer is restored after the warm-up."""
    source = write_yaml(tmp_path / "a.yaml", [PLAIN, factory("NanAfter", steps=5)], eval_fractions=[0.0, 1.0])
    outcome = isochron("run", source, "--quiet", "--out", tmp_path / "result")
    assert outcome.code == 1
    assert "nanafter, seed 0: diverged (the loss is nan at step 6)" in outcome.line
    diverged = load(tmp_path / "result/runs/nanafter/seed-0/run.json")
    assert (diverged["status"], diverged["steps"], diverged["final"]) == ("diverged", 6, {})
    assert load(tmp_path / "result/runs/plain/seed-0/run.json")["status"] == "finished"
    table = (tmp_path / "result/table.md").read_text()
    assert "0/1 (seed 0 diverged)" in table
    assert "it contributes no number" in table
    assert isochron("verify", tmp_path / "result").code == 0
    again = isochron("tables", tmp_path / "result")
    assert (again.code, again.err) == (0, ""), "the table of a diverged run can be set again"


class Glutton(planted.TinyNVS):
    """Runs out of memory in step 4 of a run for every batch above `most`, but never in a probe (3 warm-up steps)."""

    forwards = 0

    def __init__(self, most: int = 4, **options: object) -> None:
        super().__init__(**options)
        self.most = most

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        self.forwards += self.training
        if self.forwards > 3 + 3 and len(inputs["input_images"]) > self.most:
            raise torch.OutOfMemoryError("planted: out of memory")
        return super().forward(**inputs)


def test_out_of_memory_starts_again_at_a_smaller_batch_and_both_are_recorded(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = _glutton(tmp_path / "result", cache, monkeypatch)
    session.execute()
    arm = tmp_path / "result/runs/glutton"
    tries = {path.name: load(path / "run.json") for path in arm.iterdir()}
    assert sorted(tries) == ["seed-0"] + [f"seed-0.out-of-memory-{batch}" for batch in (5, 6, 7, 8)]
    assert {outcome["status"] for name, outcome in tries.items() if name != "seed-0"} == {"out-of-memory"}
    assert (tries["seed-0"]["status"], tries["seed-0"]["optimizer_batch"]) == ("finished", 4)
    flags = " ".join(tries["seed-0"]["flags"])
    assert all(f"out of memory at batch {batch}" in flags for batch in (8, 7, 6, 5))
    assert load(tmp_path / "result/runs/plain/seed-0/run.json")["optimizer_batch"] == 8
    assert isochron("tables", tmp_path / "result").code == 0
    assert "out of memory at batch 8" in (tmp_path / "result/table.md").read_text()
    assert isochron("verify", tmp_path / "result").code == 0


def test_a_resumed_comparison_knows_the_batches_that_did_not_fit(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the second try ran out of memory: the third does not begin with the first batch again."""
    folder = tmp_path / "result"
    session = _glutton(folder, cache, monkeypatch)
    tries = []
    original = session._run_trainers

    def killed_in_the_third(*arguments: object) -> object:
        tries.append(arguments)
        if len(tries) == 3:
            raise KeyboardInterrupt
        return original(*arguments)

    session._run_trainers = killed_in_the_third
    with pytest.raises(KeyboardInterrupt):
        session.execute()
    session._run_trainers = original
    session.execute()
    names = sorted(path.name for path in (folder / "runs/glutton").iterdir())
    assert names == ["seed-0"] + [f"seed-0.out-of-memory-{batch}" for batch in (5, 6, 7, 8)]
    flags = load(folder / "runs/glutton/seed-0/run.json")["flags"]
    assert sum("out of memory" in flag for flag in flags) == 4


def _glutton(folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    arms = [PLAIN, {"name": "glutton", "factory": "tests.planted:TinyNVS"}]
    session = start(folder, cache, arms, eval_fractions=[1.0], task={**TASK, "train_scenes": 8})
    build = session.make_trainer

    def with_glutton(arm, *arguments, **options):
        trainer = build(arm, *arguments, **options)
        if arm.name == "glutton":
            trainer._build = Glutton
        return trainer

    monkeypatch.setattr(session, "make_trainer", with_glutton)
    return session


def test_out_of_memory_with_one_sample_is_an_error(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Glutton.__init__, "__defaults__", (0,))
    session = _glutton(tmp_path / "result", cache, monkeypatch)
    with pytest.raises(UserError, match="glutton: out of memory at batch 1; give the comparison a smaller task"):
        session.execute()


def test_the_arms_of_these_tests_are_what_they_say() -> None:
    assert TWIN["factory"] == "tests.planted:Twin"
    assert issubclass(planted.Twin, planted.TinyNVS)
