"""What a finished comparison leaves behind, and that every number of it can be made again and checked."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.store.files import write_manifest
from bench.store.write import TABLES
from tests.experiment.helpers import TASK, isochron, lines, load, write_yaml

KEYS_OF_AN_EVENT = {"step", "p", "spent", "seconds", "lr", "batch", "samples", "loss", "grad_norm"}
KEYS_OF_AN_EVALUATION = {"fraction", "p", "spent", "step", "samples", "annealed", "quick", "records"}


def documented_keys(repo_root: Path, heading: str) -> set[str]:
    """Keys in the first column of the table under a heading of docs/store.md."""
    text = (repo_root / "docs/store.md").read_text()
    section = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}


def test_the_folder_holds_every_file_that_the_document_names(finished: Path, repo_root: Path) -> None:
    text = (repo_root / "docs/store.md").read_text().split("```")[1]
    named = {
        word.removesuffix(",")
        for line in text.splitlines()[1:]
        for word in line.split("   ")[0].split() + line.strip().split()[:1]
        if "." in word and "/" not in word
    }
    named |= set(TABLES) | {
        "provenance/" + name for name in ("sources.zip", "git.json", "git.diff", "environment.json")
    }
    named |= {"arms/plain.json", "arms/twin.json", "pictures/grid.png"}
    assert {"comparison.yaml", "comparison.json", "references.json", "sentinel.jsonl", "manifest.json"} <= named
    assert "tuning.json" in named, "only where there was a search"
    missing = {name for name in named - {"tuning.json"} if not (finished / name).is_file()}
    assert not missing
    run = {path.name for path in (finished / "runs/plain/seed-0").iterdir()}
    assert run == {
        "config.yaml", "run.json", "events.jsonl", "evals.jsonl", "ledger.json", "checkpoint.safetensors", "manifest.json",
    }  # fmt: skip
    assert not list(finished.rglob("*.tmp"))


def test_the_records_hold_every_key_that_the_document_names(finished: Path, repo_root: Path) -> None:
    assert documented_keys(repo_root, "comparison.json") - {"pretrained"} <= set(load(finished / "comparison.json"))
    arm = load(finished / "arms/plain.json")
    assert documented_keys(repo_root, "arms/ARM.json") <= set(arm)
    assert {"forward_per_sample", "training_per_sample", "counters", "convention"} <= set(arm["flops"])
    assert {"samples_per_s", "latency_ms", "peak_bytes"} <= set(arm["inference"])
    run = finished / "runs/plain/seed-1"
    assert documented_keys(repo_root, "runs/ARM/seed-S/") <= set(load(run / "run.json"))
    events, evaluations = lines(run / "events.jsonl"), lines(run / "evals.jsonl")
    assert [event["step"] for event in events] == list(range(1, 11))
    assert all(set(event) == KEYS_OF_AN_EVENT for event in events)
    assert all(set(evaluation) == KEYS_OF_AN_EVALUATION for evaluation in evaluations)
    assert [evaluation["fraction"] for evaluation in evaluations] == [0.0, 0.5, 1.0]
    assert (evaluations[-1]["annealed"], evaluations[-1]["quick"]) == (True, False)
    assert {"categories", "charged", "accounted", "wall", "unaccounted", "unaccounted_fraction", "valid"} == set(
        load(run / "ledger.json")
    )
    assert {line["when"] for line in lines(finished / "sentinel.jsonl")} >= {"start", "end"}
    assert load(finished / "comparison.json")["status"] == "finished"


def test_two_arms_of_one_seed_start_from_initialisations_of_their_own(finished: Path) -> None:
    runs = [load(path) for path in finished.glob("runs/*/seed-*/run.json")]
    assert len({run["weights_sha256"] for run in runs}) == 4
    first = [lines(finished / f"runs/{arm}/seed-0/events.jsonl")[0]["loss"] for arm in ("plain", "twin")]
    assert first[0] != first[1]


@pytest.mark.usefixtures("figures_are_drawn")
def test_tables_again_gives_the_same_bytes_and_trains_nothing(
    copy: Callable[[], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.engine import step

    def no_step(*arguments: object, **options: object) -> None:
        raise AssertionError("a step was taken")

    monkeypatch.setattr(step.TrainingStep, "__call__", no_step)
    folder = copy()
    before = {name: (folder / name).read_bytes() for name in TABLES}
    for name in TABLES:
        (folder / name).unlink()
    shown = isochron("tables", folder)
    assert shown.code == 0, shown.err
    assert {name: (folder / name).read_bytes() for name in TABLES} == before
    assert "twin - plain" in shown.out
    assert isochron("verify", folder).code == 0


def test_the_comparison_that_was_kept_is_the_one_that_ran(finished: Path) -> None:
    from bench import config

    kept = config.load(finished / "comparison.yaml")
    assert kept.threads == 1
    assert kept.device == "cpu"
    assert kept.task["target_views"] == 2, "the preset's options are written out"


def test_verify_recomputes_and_says_what_it_checked(finished: Path) -> None:
    outcome = isochron("verify", finished)
    assert outcome.code == 0, outcome.err
    assert "cells follow from the records" in outcome.out
    assert "WRONG" not in outcome.out
    one = isochron("verify", finished / "runs/twin/seed-1")
    assert one.code == 0, one.err


def test_verify_takes_several_folders_and_names_those_that_are_wrong(finished: Path, copy: Callable[[], Path]) -> None:
    folder = copy()
    (folder / "table.md").write_text("")
    run = finished / "runs/twin/seed-1"
    outcome = isochron("verify", folder, finished, run)
    assert outcome.line.startswith(f"isochron: {folder}: ")
    assert str(finished) not in outcome.line
    assert "do not use its numbers" in outcome.line
    places = [outcome.out.index(f"{place}:\n") for place in (folder, finished, run)]
    assert places == sorted(places)
    wrong = [match.start() for match in re.finditer("WRONG", outcome.out)]
    assert wrong
    assert max(wrong) < places[1]
    assert "cells follow from the records" in outcome.out[places[1] :], "what comes after a wrong one is checked too"


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, path
    path.write_text(text.replace(old, new, 1))


def _change_number(path: Path, key: str) -> None:
    """Add 0.5 to the first number under `key` in a text of JSON."""
    text = path.read_text()
    found = re.search(rf'("{key}": )(-?[\d.e-]+)', text)
    assert found, path
    path.write_text(text[: found.start(2)] + repr(float(found[2]) + 0.5) + text[found.end(2) :])


TAMPERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "an event": ("runs/plain/seed-0/events.jsonl", lambda path: _change_number(path, "loss")),
    "an evaluated sample": ("runs/twin/seed-1/evals.jsonl", lambda path: _change_number(path, "psnr")),
    "a ledger's value": ("runs/plain/seed-1/ledger.json", lambda path: _change_number(path, "forward")),
    "the final of a run": ("runs/plain/seed-0/run.json", lambda path: _change_number(path, "psnr")),
    "a cell of the table": ("table.csv", lambda path: _change(path, "plain", "plane")),
    "the weights": ("runs/twin/seed-0/checkpoint.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-1])),
    "the batch fit": ("arms/twin.json", lambda path: _change_number(path, "memory_filled")),
    "the sources": ("provenance/sources.zip", lambda path: path.write_bytes(b"")),
}


@pytest.mark.parametrize("what", TAMPERS)
def test_tampering_fails_and_names_the_file(copy: Callable[[], Path], what: str) -> None:
    folder = copy()
    name, tamper = TAMPERS[what]
    tamper(folder / name)
    outcome = isochron("verify", folder)
    assert "do not use its numbers" in outcome.line
    assert any(name in line for line in outcome.out.splitlines() if line.startswith("WRONG")), outcome.out


@pytest.mark.parametrize(
    ("name", "key", "said"),
    [
        ("events.jsonl", None, "10 steps are on record"),
        ("evals.jsonl", "psnr", "follow from"),
        ("ledger.json", "forward", "categories add up"),
        ("run.json", "psnr", "follow from"),
    ],
)
def test_tampering_fails_even_where_the_sums_were_made_again(
    copy: Callable[[], Path], name: str, key: str | None, said: str
) -> None:
    """The sums keep accidents out; the numbers themselves must agree with the records."""
    folder = copy()
    run = folder / "runs/plain/seed-0"
    if key is None:
        (run / name).write_text("".join((run / name).read_text().splitlines(keepends=True)[:-1]))
    else:
        text = (run / name).read_text()
        last = [*re.finditer(rf'"{key}": (-?[\d.e-]+)', text)][-1]
        (run / name).write_text(text[: last.start(1)] + repr(float(last[1]) + 0.5) + text[last.end(1) :])
    write_manifest(run)
    write_manifest(folder, exclude=TABLES)
    outcome = isochron("verify", folder)
    assert outcome.code == 1
    wrong = [line for line in outcome.out.splitlines() if line.startswith("WRONG")]
    assert any("plain/seed-0" in line and said in line for line in wrong), outcome.out


def test_a_missing_file_fails(copy: Callable[[], Path]) -> None:
    folder = copy()
    (folder / "runs/plain/seed-0/evals.jsonl").unlink()
    outcome = isochron("verify", folder)
    assert outcome.code == 1
    assert "evals.jsonl" in outcome.out + outcome.err


def test_a_published_result_has_no_weights_and_verifies(finished: Path, tmp_path: Path) -> None:
    outcome = isochron("publish", finished, "--to", tmp_path / "results")
    assert outcome.code == 0, outcome.err
    published = next((tmp_path / "results").glob("*/*"))
    cores = load(finished / "comparison.json")["device"]["cores"]
    assert published.relative_to(tmp_path / "results").as_posix() == f"cpu-{cores}core/planted-tiny"
    assert not list(published.rglob("*.safetensors"))
    assert (published / "curves.png").is_file()
    shown = isochron("verify", published)
    assert shown.code == 0, shown.out + shown.err
    assert "4 weight files are not at hand" in shown.out
    assert isochron("verify", published / "runs/plain/seed-0").code == 0
    (published / "runs/plain/seed-0/run.json").unlink()
    assert isochron("verify", published).code == 1


def test_a_published_result_does_not_say_where_data_lay(copy: Callable[[], Path], tmp_path: Path) -> None:
    folder = copy()
    home = "/" + "home/" * 3  # nowhere in this file as it stands, which provenance may hold
    record = load(folder / "comparison.json")
    record["task"]["options"]["data_path"] = f"{home}re10k"
    record["arms"][0]["options"]["encoder"] = {"weights": f"{home}dinov2.pth"}
    (folder / "comparison.json").write_text(json.dumps(record))
    run = folder / "runs/plain/seed-0"
    (run / "config.yaml").write_text((run / "config.yaml").read_text() + f"# read from {home}re10k/train\n")
    write_manifest(run)
    write_manifest(folder, exclude=TABLES)
    assert isochron("tables", folder).code == 0
    assert isochron("publish", folder, "--to", tmp_path / "results").code == 0
    published = next((tmp_path / "results").glob("*/*"))
    assert not [path for path in published.rglob("*") if path.is_file() and home.encode() in path.read_bytes()]
    assert load(published / "comparison.json")["task"]["options"]["data_path"] == "elsewhere/re10k"
    assert "elsewhere/re10k/train" in (published / "runs/plain/seed-0/config.yaml").read_text()
    shown = isochron("verify", published)
    assert shown.code == 0, shown.out + shown.err
    assert "4 weight files are not at hand" in shown.out


def test_an_architecture_that_does_not_take_what_the_task_gives_is_one_line(tmp_path: Path) -> None:
    source = write_yaml(tmp_path / "masked.yaml", task={**TASK, "min_input_views": 1})
    line = isochron("run", source, "--out", tmp_path / "out").line
    assert "arms.plain: forward of TinyNVS does not take input_mask" in line


def test_a_comparison_that_is_refused_leaves_its_folder_empty(tmp_path: Path) -> None:
    missing = {**TASK, "data": "re10k", "data_path": str(tmp_path / "nowhere")}
    source = write_yaml(tmp_path / "missing.yaml", task=missing)
    for _ in range(2):  # the same line again, not that the folder is taken
        assert "nowhere" in isochron("run", source, "--out", tmp_path / "out").line
        assert not any((tmp_path / "out").iterdir())


def test_publish_refuses_what_is_published_tampered_with_or_unfinished(
    copy: Callable[[], Path], tmp_path: Path
) -> None:
    folder, to = copy(), tmp_path / "results"
    assert isochron("publish", folder, "--to", to).code == 0
    assert "--replace" in isochron("publish", folder, "--to", to).line
    assert isochron("publish", folder, "--to", to, "--replace").code == 0
    before = sorted(path.name for path in to.rglob("*"))
    _change_number(folder / "runs/plain/seed-0/run.json", "psnr")
    assert "does not verify" in isochron("publish", folder, "--to", to, "--replace").line
    record = load(folder / "comparison.json")
    (folder / "comparison.json").write_text(json.dumps({**record, "status": "stopped"}))
    assert "not finished" in isochron("publish", folder, "--to", to, "--replace").line
    assert sorted(path.name for path in to.rglob("*")) == before
    shutil.rmtree(to)
    assert "holds no comparison.json" in isochron("publish", tmp_path, "--to", to).line
    assert not to.exists()
