import json

import pytest

from bench.engine.ledger import TOLERANCE
from bench.report import fairness, tables
from bench.store.read import Comparison
from tests.report.fake_store import ARMS


def edit(path, change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def verdicts(comparison: Comparison) -> dict[str, fairness.Check]:
    checks = tables.build(comparison).checks
    assert len(checks) == 9
    return {check.name.split()[0]: check for check in checks} | {"samestream": checks[1], "evaluations": checks[2]}


def run_file(comparison: Comparison, name: str):
    return comparison.folder / "runs" / ARMS[0].name / "seed-1" / name


def test_a_fair_comparison_passes_everything(full):
    assert {check.verdict for check in tables.build(full).checks} == {"pass"}


def test_bound_of_the_ledger_is_the_engines():
    assert fairness.UNACCOUNTED == TOLERANCE


def test_loader_wait_fails_by_arm(make_store):
    comparison = make_store()
    for seed in (0, 1, 2):
        path = comparison.folder / "runs" / ARMS[0].name / f"seed-{seed}" / "ledger.json"
        edit(path, lambda ledger: ledger["categories"].update(data_wait=0.03 * ledger["charged"]))
    check = verdicts(comparison)["loader"]
    assert (check.verdict, check.value) == ("FAIL", "largest 3.00 %: lvsm-decoder-only (fill)")


def test_another_sample_stream_fails(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.update(stream_sha256="other"))
    comparison = type(comparison)(comparison.folder, comparison.record, comparison.metrics)
    assert verdicts(comparison)["samestream"].value == "differs in seeds [1]"


def test_what_the_folder_does_not_tell_is_not_a_pass(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.pop("stream_sha256"))
    (comparison.folder / "sentinel.jsonl").unlink()
    found = verdicts(comparison)
    assert found["samestream"].verdict == found["sentinel"].verdict == "not recorded"


def test_missing_evaluation_fails(make_store):
    comparison = make_store()
    path = run_file(comparison, "evals.jsonl")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:1] + lines[2:]))
    assert verdicts(comparison)["evaluations"].verdict == "FAIL"


def test_other_test_samples_fail(make_store):
    comparison = make_store()
    path = run_file(comparison, "evals.jsonl")
    path.write_text(path.read_text().replace("scene-0007/target-1", "scene-0099/target-1"))
    check = verdicts(comparison)["evaluations"]
    assert check.verdict == "FAIL"
    assert "other test samples" in check.value


def test_sentinel_drift_fails(make_store):
    comparison = make_store()
    with (comparison.folder / "sentinel.jsonl").open("a") as file:
        file.write(json.dumps({"time": 99.0, "block": 2, "when": "end", "rate": 180.0}) + "\n")
    check = verdicts(comparison)["sentinel"]
    assert (check.verdict, check.value) == ("FAIL", "largest 8.6 % from the median: block 2")


def test_drift_is_what_the_engine_flags():
    from bench.engine import sentinel  # imports torch

    rates = [100.0, 103.0, 96.0, 101.0]
    assert fairness._drift(rates) == pytest.approx(sentinel.drift(rates))
    assert fairness.SENTINEL_DRIFT == sentinel.DRIFT_LIMIT


def test_unbalanced_ledger_and_invalid_run_fail(make_store):
    comparison = make_store(statuses={(ARMS[0].name, 1): "invalid"})
    assert verdicts(comparison)["ledger"].verdict == "FAIL"


def test_the_recorded_overshoot_bound_counts(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.update(overshoot_s=0.2, overshoot_bound_s=0.19))
    assert verdicts(comparison)["overshoot"].value.endswith("0.2000 s, allowed 0.1900 s")


def test_overshoot_fails(make_store):
    comparison = make_store()
    edit(
        run_file(comparison, "run.json"), lambda run: run.update(overshoot_s=0.2, last_step_s=0.3, expected_step_s=0.25)
    )
    check = verdicts(comparison)["overshoot"]
    assert (check.verdict, check.value) == ("FAIL", "lvsm-decoder-only (fill), seed 1: 0.2000 s, allowed 0.1750 s")


@pytest.mark.parametrize(
    ("pretrained", "verdict"), [((True, False), "FAIL"), ((True, True), "pass"), ((False, False), "pass")]
)
def test_pretrained_parts_on_none_or_all(make_store, pretrained, verdict):
    arms = [
        {"name": arm.name, "label": arm.label, "policy": arm.policy, "pretrained": has}
        for arm, has in zip(ARMS[:2], pretrained, strict=True)
    ]
    assert verdicts(make_store(arms=ARMS[:2], comparison={"arms": arms}))["pretrained"].verdict == verdict


def test_unequal_tuning_fails(make_store):
    comparison = make_store(comparison={"tuning": {"seconds_per_arm": {"a": 10.0, "b": 20.0}, "choices": {}}})
    check = next(check for check in tables.build(comparison).checks if "tuning" in check.name)
    assert (check.verdict, check.value) == ("FAIL", "10.0 to 20.0 s an arm")
