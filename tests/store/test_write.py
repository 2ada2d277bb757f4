from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from bench.aggregates import final_metrics
from bench.errors import UserError
from bench.store.files import MANIFEST, read_json, read_lines, sha256
from bench.store.write import ComparisonFolder, RunFolder, weights_hash

ARM = {"name": "net.fill", "label": "net", "policy": "fill"}


def make_run(folder: Path) -> RunFolder:
    return ComparisonFolder(folder).run(ARM, 0, "name: test\n")


def event(step: int) -> dict[str, Any]:
    return {"step": step, "spent": 0.5 * step}


def evaluation(annealed: bool = False) -> dict[str, Any]:
    return {
        "annealed": annealed,
        "records": [{"sample": "a", "psnr": 20.0}, {"sample": "b", "psnr": 30.0, "ssim": 0.5}],
    }


def state(steps: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return {"w": torch.full((3,), float(steps))}, {"steps": steps, "evaluations": 1}


def written(run: RunFolder, steps: int, saved_at: int | None) -> None:
    """A run of so many steps with one evaluation before them; `saved_at` is where its state was saved last."""
    assert run.begin() is None
    run.evaluation(evaluation())
    for step in range(1, steps + 1):
        run.event(event(step))
        if step == saved_at:
            run.save_state(*state(step))
    if saved_at == 0:
        run.save_state(*state(0))


def test_a_fresh_run(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    written(run, 2, None)
    assert run.folder == tmp_path / "runs" / "net.fill" / "seed-0"
    assert read_json(run.folder / "run.json") == {
        "schema": 1,
        "protocol": "1.0",
        "arm": "net.fill",
        "label": "net",
        "policy": "fill",
        "seed": 0,
        "sessions": 1,
        "status": "running",
        "reason": "",
    }
    assert (run.folder / "config.yaml").read_text() == "name: test\n"
    assert run.outcome is None


def test_a_run_goes_on_from_its_state(tmp_path: Path) -> None:
    written(make_run(tmp_path), 5, saved_at=3)
    again = make_run(tmp_path)
    found = again.begin()
    assert found is not None
    tensors, meta, lost = found
    assert torch.equal(tensors["w"], torch.full((3,), 3.0))
    assert (meta["steps"], lost) == (3, 1.0)
    again.event(event(4))
    again.close()
    assert [line["step"] for line in read_lines(again.folder / "events.jsonl")] == [1, 2, 3, 4]
    assert len(read_lines(again.folder / "evals.jsonl")) == 1
    assert read_json(again.folder / "run.json")["sessions"] == 2


@pytest.mark.parametrize(("steps", "saved_at", "lost"), [(5, 5, 0.0), (5, 1, 2.0), (4, 0, 2.0)])
def test_seconds_since_the_state_are_lost(tmp_path: Path, steps: int, saved_at: int, lost: float) -> None:
    written(make_run(tmp_path), steps, saved_at)
    found = make_run(tmp_path).begin()
    assert found is not None
    assert found[2] == lost


def test_two_crashes_lose_the_seconds_of_both(tmp_path: Path) -> None:
    """The second crash comes before a state could take in what the first one lost."""
    written(make_run(tmp_path), 5, saved_at=3)
    second = make_run(tmp_path)
    second.begin()
    second.event(event(4))
    third = make_run(tmp_path)
    found = third.begin()
    assert found is not None
    assert found[2] == 1.0 + 0.5
    third.save_state(*state(3))
    fourth = make_run(tmp_path).begin()
    assert fourth is not None
    assert fourth[2] == 0.0, "the state's own ledger holds them by now"


def test_without_a_state_the_run_starts_from_nothing(tmp_path: Path) -> None:
    written(make_run(tmp_path), 5, saved_at=None)
    again = make_run(tmp_path)
    assert again.begin() is None
    assert read_lines(again.folder / "events.jsonl") == []
    assert read_json(again.folder / "run.json")["sessions"] == 2
    assert again.lost == event(5)["spent"], "what the first try was charged is gone, and says so"
    third = make_run(tmp_path)
    third.begin()
    assert third.lost == again.lost, "a second try that came to nothing loses nothing more"


def test_a_torn_state_is_not_seen_and_a_damaged_one_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path)
    written(run, 5, saved_at=3)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # after the new tensors and before the pointer to them
        patch.setattr("bench.store.write.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            run.save_state(*state(5))
    found = make_run(tmp_path).begin()
    assert found is not None
    assert float(found[0]["w"][0]) == found[1]["steps"] == 3
    path = run.folder / "resume" / "state-3.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"the saved state is damaged .* delete the folder"):
        make_run(tmp_path).begin()
    path.unlink()
    with pytest.raises(UserError, match="the saved state is damaged"):
        make_run(tmp_path).begin()


@pytest.mark.parametrize("log", ["events.jsonl", "evals.jsonl"])
def test_a_log_shorter_than_the_state_is_refused(tmp_path: Path, log: str) -> None:
    run = make_run(tmp_path)
    written(run, 5, saved_at=3)
    (run.folder / log).write_text("")
    with pytest.raises(UserError, match="shorter than the saved state"):
        make_run(tmp_path).begin()
    assert (run.folder / "resume" / "state.json").exists(), "nothing is thrown away"


def test_only_the_newest_state_is_kept(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    written(run, 5, saved_at=2)
    run.save_state(*state(5))
    assert sorted(path.name for path in (run.folder / "resume").iterdir()) == ["state-5.safetensors", "state.json"]


def finished(folder: Path) -> RunFolder:
    run = make_run(folder)
    written(run, 3, saved_at=2)
    run.evaluation(evaluation(annealed=True))
    run.finish({"status": "finished", "steps": 3}, {"valid": True}, {"w": torch.arange(4.0)})
    return run


def test_a_finished_run(tmp_path: Path) -> None:
    run = finished(tmp_path)
    run.seal(["sentinel drift 5.0 %"])
    run.seal(["only 3 steps"])
    outcome = run.outcome
    assert outcome is not None
    assert outcome["final"] == {"psnr": 25.0, "ssim": 0.5}
    assert outcome["flags"] == ["sentinel drift 5.0 %", "only 3 steps"]
    weights = load_file(run.folder / "checkpoint.safetensors")
    assert outcome["weights_sha256"] == weights_hash(weights)
    assert not (run.folder / "resume").exists()
    sums = read_json(run.folder / MANIFEST)["sha256"]
    assert set(sums) == {
        "run.json",
        "config.yaml",
        "events.jsonl",
        "evals.jsonl",
        "ledger.json",
        "checkpoint.safetensors",
    }
    assert all(sha256(run.folder / name) == digest for name, digest in sums.items())


@pytest.mark.parametrize("stop_at", ["checkpoint.safetensors", "ledger.json", "run.json"])
def test_a_run_stopped_while_it_finishes_has_not_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: str
) -> None:
    from bench.store import files

    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if Path(target).name == stop_at and '"running"' in (tmp_path / "runs/net.fill/seed-0/run.json").read_text():
            raise KeyboardInterrupt
        return replace(self, target)

    run = make_run(tmp_path)
    written(run, 3, saved_at=3)
    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run.finish({"status": "finished"}, {}, {"w": torch.arange(4.0)})
    monkeypatch.undo()
    assert run.outcome is None
    make_run(tmp_path).begin()
    assert read_json(run.folder / "run.json")["status"] == "running"
    assert files.MANIFEST not in [path.name for path in run.folder.iterdir()]


def test_a_run_that_did_not_reach_its_end_has_no_result(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    written(run, 3, saved_at=None)
    run.finish({"status": "diverged"}, {}, {"w": torch.tensor([float("nan")])})
    assert run.outcome is not None
    assert (run.outcome["status"], run.outcome["final"]) == ("diverged", {})


KILLED = """
import sys
from pathlib import Path
import torch
from bench.store.write import ComparisonFolder

run = ComparisonFolder(Path(sys.argv[1])).run({"name": "net", "label": "net", "policy": "fill"}, 0, "")
state = run.begin()
steps = state[1]["steps"] if state else 0
if not state:
    run.evaluation({"annealed": False, "records": []})
while True:
    steps += 1
    run.event({"step": steps, "spent": 0.5 * steps})
    if steps % 3 == 0:
        run.save_state({"w": torch.full((50_000,), float(steps))}, {"steps": steps, "evaluations": 1})
    if steps == 6:
        print("going", flush=True)
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(tmp_path: Path, repo_root: Path) -> None:
    """SIGKILL at a random moment of a loop that does nothing but write."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=repo_root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "going\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    run = ComparisonFolder(tmp_path).run({"name": "net", "label": "net", "policy": "fill"}, 0, "")
    assert run.outcome is None
    recorded = len(read_lines(run.folder / "events.jsonl"))
    found = run.begin()
    assert found is not None
    tensors, meta, lost = found
    assert meta["steps"] % 3 == 0
    assert (tensors["w"] == meta["steps"]).all()
    assert lost == 0.5 * (recorded - meta["steps"])
    run.close()
    assert [line["step"] for line in read_lines(run.folder / "events.jsonl")] == list(range(1, meta["steps"] + 1))


def test_the_hash_of_weights_does_not_know_order_or_layout() -> None:
    weights = {"a": torch.rand(3, 4), "b": torch.arange(5), "c": torch.tensor(True), "d": torch.rand(2).bfloat16()}
    expected = weights_hash(weights)
    assert weights_hash(dict(reversed(weights.items()))) == expected
    assert weights_hash(weights | {"a": weights["a"].t().contiguous().t()}) == expected


@given(name=st.sampled_from("abcd"), bit=st.integers(0, 15))
def test_the_hash_of_weights_sees_every_bit(name: str, bit: int) -> None:
    weights = {
        "a": torch.ones(3, 4),
        "b": torch.arange(5),
        "c": torch.ones((), dtype=torch.float64),
        "d": torch.ones(2).bfloat16(),
    }
    expected = weights_hash(weights)
    changed = weights[name].clone().reshape(-1)
    changed.view(torch.uint8)[bit // 8] ^= 1 << (bit % 8)
    assert weights_hash(weights | {name: changed.reshape(weights[name].shape)}) != expected


def test_the_hash_of_weights_sees_names_shapes_and_types() -> None:
    zeros = torch.zeros(6)
    hashes = [{"a": zeros}, {"b": zeros}, {"a": zeros.view(2, 3)}, {"a": zeros.int()}, {}, {"a": zeros, "b": zeros}]
    assert len({weights_hash(weights) for weights in hashes}) == len(hashes)


def test_means_are_over_the_samples_that_have_the_metric() -> None:
    assert final_metrics(evaluation()["records"], {}, {}) == {"psnr": 25.0, "ssim": 0.5}
    assert final_metrics([], {}, {}) == {}
    records = [{"sample": f"catchment-{index}", "nse": nse} for index, nse in enumerate((0.8, 0.6, -9.0))]
    assert final_metrics([*records, {"sample": "window-0", "mse": 2.0}], {"nse": "median"}, {}) == {
        "nse": 0.6,
        "mse": 2.0,
    }


def test_a_comparison_folder(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path)
    folder.write_record({"name": "nvs"})
    assert folder.record == {"schema": 1, "protocol": "1.0", "name": "nvs"}
    assert folder.arm("net.fill") is None
    folder.write_arm("net.fill", {"parameters": 7})
    assert folder.arm("net.fill") == {"parameters": 7}
    (tmp_path / "table.md").write_text("made from the rest")
    folder.seal()
    assert set(read_json(tmp_path / MANIFEST)["sha256"]) == {"comparison.json", "arms/net.fill.json"}
    assert json.loads((tmp_path / MANIFEST).read_text())


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    folder = ComparisonFolder(tmp_path / "new")
    with folder.locked(), pytest.raises(UserError, match="another process is at work on it"), folder.locked():
        pass
    with folder.locked():
        folder.seal()
    assert read_json(folder.folder / MANIFEST) == {"sha256": {}}, "the lock itself is no record"


def test_sealing_again_changes_nothing(tmp_path: Path) -> None:
    run = finished(tmp_path)
    run.seal(["only 3 steps"])
    before = {path.name: path.read_bytes() for path in run.folder.iterdir()}
    run.seal(["only 3 steps"])
    assert {path.name: path.read_bytes() for path in run.folder.iterdir()} == before
