import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.store.read import MISSING, open_comparison
from tests.report.fake_store import ARMS, FakeStore


@pytest.fixture
def store(tmp_path) -> Path:
    return FakeStore().write(tmp_path / "store")


@pytest.fixture
def run_folder(store) -> Path:
    return store / "runs" / ARMS[0].name / "seed-0"


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def first_run(store: Path):
    return open_comparison(store).runs[0]


def test_a_whole_comparison(store):
    comparison = open_comparison(store)
    assert [arm.name for arm in comparison.arms] == [arm.name for arm in ARMS]
    assert comparison.policies == ("fill", "knee")
    assert (comparison.headline.name, comparison.headline.digits) == ("psnr", 2)
    assert len(comparison.runs) == 12
    assert all(run.finished for run in comparison.runs)
    run = comparison.runs[0]
    assert len(run.events) == run.facts.steps == 96
    assert run.events[-1].samples == 96 * 48
    assert [evaluation.quick for evaluation in run.evaluations] == [True] * 4 + [False]
    assert len(run.result.records) == 16
    assert run.ledger.valid
    assert comparison.measured(comparison.arms[0]).batch.micro_batch == 48
    assert [entry.label for entry in comparison.learn_nothing] == ["mean colour", "nearest view", "depth warp"]
    assert len(comparison.sentinels) == 9


def test_it_reads_lazily(store):
    for path in [*store.glob("arms/*"), *store.glob("runs/*/*/*"), store / "references.json"]:
        path.write_text("damaged")
    assert open_comparison(store).record.name == "nvs"


def test_a_run_without_folder_has_not_started(tmp_path):
    comparison = open_comparison(FakeStore(statuses={(ARMS[0].name, 0): "not started"}).write(tmp_path / "store"))
    assert (comparison.runs[0].status, comparison.runs[0].finished) == (MISSING, False)
    with pytest.raises(UserError, match="has not started"):
        _ = comparison.runs[0].facts


def test_a_run_that_is_going_on_needs_little(store, run_folder):
    head = {"schema": 1, "protocol": "1.0", "arm": ARMS[0].name, "seed": 0, "status": "running", "reason": ""}
    (run_folder / "run.json").write_text(json.dumps(head))
    assert first_run(store).status == "running"


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_torn_last_line_is_ignored(store, run_folder, cut):
    path = run_folder / "events.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    assert len(first_run(store).events) == (96 if cut == 1 else 95)  # without its line end the last is still whole


def test_a_damaged_line_in_the_middle_is_refused(store, run_folder):
    path = run_folder / "events.jsonl"
    path.write_text(path.read_text().replace('{"step": 7,', '{"step": 7', 1))
    with pytest.raises(UserError, match=r"events\.jsonl: line 7 is damaged"):
        _ = first_run(store).events


def test_lines_out_of_order_are_refused(store, run_folder):
    path = run_folder / "events.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines, lines[40]]))
    with pytest.raises(UserError, match="step 41 follows 96"):
        _ = first_run(store).events


def test_a_loss_of_null_or_nan_reads_as_nan(store, run_folder):
    path = run_folder / "events.jsonl"
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(json.dumps(line | {"loss": None}) + "\n" + json.dumps(line | {"step": 2, "loss": math.nan}) + "\n")
    assert all(math.isnan(event.loss) for event in first_run(store).events)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "schema is 2, this version reads 1"),
        ({"protocol": "1.7"}, r"protocol is 1\.7"),
        ({"protocol": "2.0"}, r"protocol is 2\.0"),
        ({"budget_s": "long"}, "budget_s: input should be a valid number"),
        ({"task": {"name": "nvs", "metrics": []}}, "metrics is empty"),
        ({"task": {"name": "nvs", "metrics": [{"name": "psnr", "labl": "x"}]}}, "labl"),
        ({"arms": [{"name": "a", "label": "a", "policy": "fill"}] * 2}, "must be unique"),
    ],
)
def test_a_comparison_of_another_kind_is_refused(store, changes, message):
    edit(store / "comparison.json", **changes)
    with pytest.raises(UserError, match=message):
        open_comparison(store)


def test_a_patch_release_of_the_protocol_is_the_same_protocol(store):
    edit(store / "comparison.json", protocol="1.0.3")
    assert open_comparison(store).record.protocol == "1.0.3"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 0}, "schema is 0"),
        ({"protocol": "0.9"}, r"protocol is 0\.9"),
        ({"seed": 1}, "its folder says otherwise"),
        ({"arm": "other"}, "its folder says otherwise"),
        ({"steps": "many"}, "steps: input should be a valid integer"),
    ],
)
def test_a_run_of_another_kind_is_refused(store, run_folder, changes, message):
    edit(run_folder / "run.json", **changes)
    with pytest.raises(UserError, match=message):
        _ = open_comparison(store).runs


def test_a_missing_key_is_named(store):
    path = store / "comparison.json"
    content = json.loads(path.read_text())
    del content["seeds"]
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"comparison\.json: seeds: is missing"):
        open_comparison(store)


@pytest.mark.parametrize("name", ["events.jsonl", "evals.jsonl", "ledger.json"])
def test_a_missing_file_is_named(store, run_folder, name):
    (run_folder / name).unlink()
    run = first_run(store)
    with pytest.raises(UserError, match=f"{name}: is missing"):
        _ = {"events.jsonl": lambda: run.events, "evals.jsonl": lambda: run.result, "ledger.json": lambda: run.ledger}[
            name
        ]()


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        open_comparison(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no comparison\.json"):
        open_comparison(tmp_path)


def test_half_a_file_is_refused(store):
    path = store / "comparison.json"
    path.write_text(path.read_text()[:200])
    with pytest.raises(UserError, match="cannot be read as JSON"):
        open_comparison(store)


def test_a_quick_evaluation_is_no_result(store, run_folder):
    path = run_folder / "evals.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="holds no final evaluation"):
        _ = first_run(store).result


def test_optional_files_may_be_absent(store):
    (store / "references.json").unlink()
    (store / "sentinel.jsonl").unlink()
    comparison = open_comparison(store)
    assert comparison.learn_nothing == comparison.sentinels == ()


def test_reading_and_reporting_import_no_torch():
    code = "import sys, bench.store.read, bench.report.tables, bench.report.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0
