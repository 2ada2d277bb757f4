import json

import pytest

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


def test_a_run_too_short_for_a_digest_is_not_a_pass(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.update(stream_sha256=None))
    assert verdicts(comparison)["samestream"].verdict == "not recorded"


def precision(comparison: Comparison) -> fairness.Check:
    return next(check for check in tables.build(comparison).checks if "precision" in check.name)


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ({"precision": "bf16"}, "bf16, not compiled: efficient-lvsm (fill), efficient-lvsm (knee)"),
        ({"compile": True}, "fp32, compiled, not charged: efficient-lvsm (fill), efficient-lvsm (knee)"),
        (
            {"compile": True, "charge_compilation": True},
            "fp32, compiled, charged: efficient-lvsm (fill), efficient-lvsm (knee)",
        ),
    ],
)
def test_another_precision_or_compilation_fails_and_names_the_arms(make_store, change, value):
    check = precision(make_store(training={"efficient-lvsm": change}))
    assert check.verdict == "FAIL"
    assert check.value == f"fp32, not compiled: lvsm-decoder-only (fill), lvsm-decoder-only (knee); {value}"


def test_the_same_precision_passes_and_is_named(make_store):
    same = {"precision": "bf16", "compile": True}
    check = precision(make_store(training={"efficient-lvsm": same, "lvsm-decoder-only": same}))
    assert (check.verdict, check.value) == ("pass", "bf16, compiled, not charged")


def test_precision_is_not_recorded_where_an_arm_does_not_say(make_store):
    arms = [{"name": arm.name, "label": arm.label, "policy": arm.policy} for arm in ARMS]
    arms[0]["training"] = {"precision": "fp32", "compile": False}
    assert precision(make_store(comparison={"arms": arms})).verdict == "not recorded"


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


def test_unbalanced_ledger_and_invalid_run_fail(make_store):
    comparison = make_store(statuses={(ARMS[0].name, 1): "invalid"})
    assert verdicts(comparison)["ledger"].verdict == "FAIL"


def test_the_recorded_overshoot_bound_counts(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.update(overshoot_s=0.2, overshoot_bound_s=0.19))
    assert verdicts(comparison)["overshoot"].value.endswith("0.2000 s, allowed 0.1900 s")


def test_overshoot_without_a_recorded_bound_is_not_recorded(make_store):
    comparison = make_store()
    edit(run_file(comparison, "run.json"), lambda run: run.pop("overshoot_bound_s"))
    assert verdicts(comparison)["overshoot"].verdict == "not recorded"


@pytest.mark.parametrize(
    ("pretrained", "verdict"), [((True, False), "FAIL"), ((True, True), "pass"), ((False, False), "pass")]
)
def test_pretrained_parts_on_none_or_all(make_store, pretrained, verdict):
    arms = [
        {"name": arm.name, "label": arm.label, "policy": arm.policy, "pretrained": has}
        for arm, has in zip(ARMS[:2], pretrained, strict=True)
    ]
    assert verdicts(make_store(arms=ARMS[:2], comparison={"arms": arms}))["pretrained"].verdict == verdict


def test_pretrained_parts_must_be_the_same(make_store):
    def verdict(*digests: str):
        arms = [
            {"name": arm.name, "label": arm.label, "policy": arm.policy, "pretrained": True,
             "pretrained_parts": [{"name": "dinov2-b14", "sha256": digest}]}
            for arm, digest in zip(ARMS[:2], digests, strict=True)
        ]  # fmt: skip
        return verdicts(make_store(arms=ARMS[:2], comparison={"arms": arms}))["pretrained"]

    assert verdict("a", "a").verdict == "pass"
    other = verdict("a", "b")
    assert other.verdict == "FAIL"
    assert "not the same parts" in other.value


def tuning(make_store, seconds) -> fairness.Check:
    comparison = make_store(arms=ARMS[:2], comparison={"tuning": {"seconds_per_arm": seconds, "choices": {}}})
    return next(check for check in tables.build(comparison).checks if "tuning" in check.name)


@pytest.mark.parametrize(
    ("first", "second", "verdict"), [(30.0, 32.9, "pass"), (30.0, 33.1, "FAIL"), (33.1, 30.0, "FAIL"), (0, 0.1, "FAIL")]
)
def test_tuning_may_differ_by_the_overshoot_of_a_step(make_store, first, second, verdict):
    names = [arm.name for arm in ARMS[:2]]
    check = tuning(make_store, dict(zip(names, (first, second), strict=True)))
    assert check.verdict == verdict
    low, high = (names, (first, second)) if first < second else (names[::-1], (second, first))
    assert check.value == f"{high[0]:,.1f} s ({low[0]}) to {high[1]:,.1f} s ({low[1]})"


def test_an_arm_that_was_not_tuned_while_the_other_was_fails(make_store):
    assert tuning(make_store, {ARMS[0].name: 30.0}).verdict == "FAIL"


def test_no_search_passes_and_old_totals_are_not_recorded(make_store):
    assert (tuning(make_store, 0.0).verdict, tuning(make_store, 0.0).value) == ("pass", "no search")
    assert tuning(make_store, 12.0).verdict == "not recorded"
