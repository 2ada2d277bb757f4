"""The shipped ledger, ``bench/claims.yaml``: complete, runnable, and found in the results that are published."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.experiment import resolve
from bench.report import claims
from bench.report.claims import Claim, Verdict
from bench.report.claims.commands import command, understand
from bench.report.claims.measures import Counted, Paired, PublishedEntry, Slope, Timed, Trained, Untestable
from bench.report.claims.read import TASKS
from bench.report.summary import VIEWS

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "results"


@pytest.fixture(scope="module")
def ledger() -> tuple[Claim, ...]:
    return claims.read_claims()


@pytest.fixture(scope="module")
def verdicts(ledger: tuple[Claim, ...]) -> dict[str, Verdict]:
    return {verdict.claim.id: verdict for verdict in claims.judge(ledger, claims.expand([RESULTS]))}


def test_every_task_has_claims_and_there_are_forty_at_least(ledger: tuple[Claim, ...]) -> None:
    assert len(ledger) >= 40
    assert {claim.task for claim in ledger} == set(TASKS)
    assert all(claim.source and claim.table for claim in ledger)


@pytest.mark.parametrize(
    "quoted",
    # what the mission names: score at equal time and steps, two thirds of the time, costs of decoder and step, options, norms
    ["nvs-equal-time", "nvs-equal-steps", "nvs-two-thirds", "nvs-norm-spikes", "hydrology-decoder", "hydrology-decoder-batch",
     "hydrology-training", "hydrology-saving", "hydrology-quality", "mae-feature-maps", "mae-feature-maps-memory"],
)  # fmt: skip
def test_what_the_mission_quotes_is_there(ledger: tuple[Claim, ...], quoted: str) -> None:
    assert quoted in {claim.id for claim in ledger}


def test_every_command_is_one_that_the_shipped_comparisons_and_tasks_understand(ledger: tuple[Claim, ...]) -> None:
    seen: dict[str, str] = {}
    for claim in ledger:
        for each in filter(None, command(claim).split("; ")):
            planned = understand(each)
            assert planned.task == claim.task, f"{claim.id}: {each}"
            if planned.comparison is not None and each not in seen:
                resolve.expand(planned.comparison)  # an error where an option of the task or of an arm does not exist
            seen[each] = claim.id
    assert len(seen) > 20


def test_what_is_measured_resolves_where_its_results_are_published(
    ledger: tuple[Claim, ...], verdicts: dict[str, Verdict]
) -> None:
    """A count, a time or a difference that names what no result holds would stay silent for ever."""
    published = {folder.parent.name for folder in RESULTS.glob("*/*/*.json")}
    for claim in ledger:
        verdict, measure = verdicts[claim.id], claim.measure
        if isinstance(measure, Trained) and not measure.options and f"{measure.comparison}-tiny" in published:
            assert verdict.shown, f"{claim.id}: {verdict.reason}"
        if isinstance(measure, Counted | Slope) or (isinstance(measure, Timed) and claim.scale == "tiny"):
            assert verdict.shown, f"{claim.id}: {verdict.reason}"


def test_every_verdict_is_complete(verdicts: dict[str, Verdict]) -> None:
    for name, verdict in verdicts.items():
        assert "\n" not in verdict.shown + verdict.reason + verdict.command
        if verdict.status == "not testable here":
            assert verdict.reason, name
            assert bool(verdict.command) == bool(verdict.cost), name
            bare = isinstance(verdict.claim.measure, Untestable | PublishedEntry)
            assert verdict.command or bare or "too small to be told" in verdict.reason, name
        else:
            assert verdict.shown, name
            assert verdict.folders, name
            assert verdict.device, name


def test_the_count_of_lvsms_parameters_is_a_finding(verdicts: dict[str, Verdict]) -> None:
    """177 M in the README; the official code has 170,795,520."""
    assert verdicts["nvs-parameters-lvsm"].status == "not reproduced"
    assert "170,795,520" in verdicts["nvs-parameters-lvsm"].shown
    assert verdicts["nvs-parameters-efficient"].status == "reproduced"


def test_trained_claims_read_a_view_that_exists(ledger: tuple[Claim, ...]) -> None:
    assert all(claim.measure.view in VIEWS for claim in ledger if isinstance(claim.measure, Paired))


def test_the_page_names_every_kind_of_measure_and_its_example_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "claims.md").read_text()
    kinds = ("paired", "reached", "counted", "timed", "slope", "published-entry", "untestable")
    assert all(f"`{kind}`" in page for kind in kinds)
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "claims.yaml").write_text(example)
    assert len(claims.read_claims(tmp_path / "claims.yaml")) == 2
