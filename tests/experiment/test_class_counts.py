"""Several metrics from one entry of a record: stored, set, recomputed, and found out when they were changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.experiment.helpers import isochron, load, train

pytestmark = pytest.mark.slow

TASK = {
    "name": "openvocab",
    "data": "aligned",
    "grid": 4,
    "feature_width": 16,
    "guidance_widths": [8, 8, 8],
    "seen_classes": 4,
    "unseen_classes": 3,
    "classes_per_list": 4,
    "train_images": 8,
    "validation_images": 2,
    "test_images": 3,
}
OPTIONS: dict[str, Any] = {
    "hidden_width": 16,
    "heads": 2,
    "layers": 1,
    "window_size": 4,
    "text_guidance": [16, 8],
    "appearance_guidance": [8, 8],
    "decoder_guidance": [[8, 8], [8, 8]],
    "decoder_widths": [16, 16],
}
ARM = {"name": "linear", "architecture": "catseg-aggregator", "options": OPTIONS}
DERIVED = (
    "miou_harmonic",
    "miou_seen",
    "miou_unseen",
    "miou_gt",
    "miou_union",
    "fwiou",
    "mean_accuracy",
    "pixel_accuracy",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cache: Path, repo_root: Path) -> Path:
    """A finished comparison on aligned features; not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repo_root)
        folder = tmp_path_factory.mktemp("counts") / "result"
        train(folder, cache, [ARM], task=TASK, budget="2 steps", batch=["fixed:2"], eval_fractions=[1.0])
        assert isochron("tables", folder).code == 0
        return folder


def test_every_metric_of_the_counts_is_stored_set_and_recomputed(finished: Path) -> None:
    final = load(finished / "runs/linear/seed-0/run.json")["final"]
    assert set(DERIVED) <= set(final)
    assert "counts" not in final
    assert len({final[name] for name in DERIVED if name != "miou_union"}) > 4
    assert "fwIoU" in (finished / "table.md").read_text()
    outcome = isochron("verify", finished)
    assert outcome.code == 0, outcome.out


def _other_hits(folder: Path) -> Path:
    path = folder / "runs/linear/seed-0/evals.jsonl"
    *before, last = path.read_text().splitlines()
    evaluation = json.loads(last)
    counts = next(iter(evaluation["records"][0]["counts"].values()))
    counts[1] += 7
    path.write_text("\n".join([*before, json.dumps(evaluation)]) + "\n")
    return path


def _other_final(folder: Path) -> Path:
    path = folder / "runs/linear/seed-0/run.json"
    outcome = load(path)
    outcome["final"]["fwiou"] += 0.5
    path.write_text(json.dumps(outcome))
    return path


@pytest.mark.parametrize(("change", "wrong"), [(_other_hits, "miou_gt"), (_other_final, "fwiou")])
def test_a_changed_count_or_score_is_found(
    finished: Path, tmp_path: Path, change: Callable[[Path], Path], wrong: str
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    change(folder)
    outcome = isochron("verify", folder)
    assert outcome.code != 0
    assert any(wrong in line for line in outcome.out.splitlines() if line.startswith("WRONG")), outcome.out
