"""Every run that the documentation shows is planned as it is shown, and makes its table on little data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench import config
from tests.docs import places
from tests.docs.calls import Call
from tests.docs.commands import CALLS, calls, good, overlaid
from tests.experiment.helpers import Outcome

LITTLE = {"batch": "fixed:1", "task.test_scenes": 1, "sentinel.seconds": 0.01}
"""Added to every `aa`, also where the page sets more."""


@pytest.mark.parametrize("call", calls("run", lambda call: call.added({"--device": "cpu"})) + calls("plan"))
def test_a_run_is_planned_as_it_is_shown(call: Call, called: Callable[..., Outcome]) -> None:
    """Preset, budget and every option as on the page."""
    said = good(called(["plan", *call.words[1:]])).out
    resolved = config.from_text(said.partition("The resolved configuration:")[2])
    assert resolved.preset == (call.option("--preset") or resolved.preset)
    if asked := call.option("--seeds"):
        assert len(resolved.seeds) == int(asked)
    if asked := call.option("--budget"):
        assert resolved.budget == config.BudgetConfig.model_validate(asked)


@pytest.mark.parametrize("call", calls("run", overlaid))
def test_a_run_makes_its_table(call: Call, called: Callable[..., Outcome], tmp_path: Path) -> None:
    good(called(call.words))
    made = {path.name for path in (tmp_path / "made").iterdir()}
    assert {"table.md", "table.csv", "table.tex", "curves.png", "ledger.pdf", "manifest.json"} <= made
    stored = config.load(tmp_path / "made" / "comparison.yaml").model_dump(mode="json")
    for key, value in call.sets:  # what the page sets has reached the run
        if key.startswith("task.") and key.count(".") == 1 and value not in places.DATA:
            assert stored["task"][key[5:]] == config.parse_overrides([f"{key}={value}"])["task"][key[5:]], key


@pytest.mark.parametrize(
    "call",
    calls("aa", lambda call: overlaid(call).added({"--repetitions": "1", "--seeds": "2", "--out": "made"}, LITTLE)),
)
def test_equals_are_held_against_one_another(call: Call, called: Callable[..., Outcome]) -> None:
    assert "of 1" in good(called(call.words)).out


def test_a_finished_run_is_read_again(called: Callable[..., Outcome], tmp_path: Path) -> None:
    """DIR is a result with its weights, RUN a run in it."""
    good(called(overlaid(Call.of(("run", "nvs"))).added({"--out": "DIR"}).words))
    (tmp_path / "RUN").symlink_to(next((tmp_path / "DIR" / "runs").glob("*/seed-0")))
    for name, word in {"tables": "table.md", "tokens": "norms.json", "replay": "identical"}.items():
        (call,) = {call for call in CALLS.values() if call.name == name}
        assert word in good(called(call.words)).out
