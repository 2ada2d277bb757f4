"""What `verify` says about tables, figures, and what is derived; what it says about runs is tested on real ones (tests/experiment)."""

import json
import random
import shutil
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.report import claims, plots, tables, verify
from bench.store.files import sha256, write_json
from bench.store.read import open_comparison
from tests.report.fake_store import FakeStore
from tests.report.sealed import sealed

PUBLISHED = Path(__file__).parents[2] / "results" / "cpu-2core"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = FakeStore().write(tmp_path / "store")
    tables.write(open_comparison(folder), folder)
    return folder


def problems(folder: Path) -> list[str]:
    return [line for line in verify.verify(folder).problems if line.startswith("table.")]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_the_files_that_tables_writes_pass(folder):
    assert problems(folder) == []
    assert sum(line.startswith("table.") for line in verify.verify(folder).checked) == 3


def test_last_digits_of_another_numpy_pass(folder):
    path = folder / "table.csv"
    rows = tables.read_csv(path)
    change(path, rows[0]["psnr"], repr(float(rows[0]["psnr"]) * (1 + 1e-12)))
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("key", "factor"), [("psnr", 1 + 1e-6), ("psnr_difference", -1), ("inference_peak_bytes", 2), ("steps_min", 1.1)]
)
def test_another_number_is_named(folder, key, factor):
    path = folder / "table.csv"
    row = next(row for row in tables.read_csv(path) if row[key])
    line = tables.read_csv(path).index(row) + 2
    change(path, f",{row[key]},", f",{float(row[key]) * factor!r},")
    found = problems(folder)
    assert len(found) == 1
    assert f"line {line}: " in found[0]


def test_another_text_an_emptied_cell_and_a_missing_row_are_named(folder):
    path = folder / "table.csv"
    text = path.read_text()
    for old, new, said in [
        ("lvsm-decoder-only", "other", "line 2: label"),
        (tables.read_csv(path)[0]["psnr"], "", "line 2: psnr"),
        ("arm,lvsm-decoder-only,fill,", "arm,lvsm-decoder-only,fill,0,", "line 2"),
        (text.splitlines()[-1] + "\n", "", "6 rows instead of 7"),
    ]:
        path.write_text(text)
        change(path, old, new)
        assert said in problems(folder)[0]


@pytest.mark.parametrize("name", ["table.md", "table.tex"])
def test_a_changed_line_of_the_tables_for_people_is_named(folder, name):
    path = folder / name
    change(path, "At knee: efficient-lvsm", "At knee: lvsm-decoder-only")
    number = next(i for i, line in enumerate(path.read_text().splitlines(), 1) if "At knee: lvsm" in line)
    assert problems(folder) == [f"{name}: every line follows from the records: line {number} differ"]


@pytest.mark.parametrize("name", ["table.csv", "table.md", "table.tex"])
def test_an_absent_table_is_named_with_the_mend(folder, name):
    (folder / name).unlink()
    assert problems(folder) == [f"{name}: present: make it with `isochron tables {folder}`"]


def test_a_table_of_other_records_is_wrong_in_every_form(folder):
    path = next(folder.glob("runs/efficient-lvsm.knee/seed-0/evals.jsonl"))
    lines = path.read_text().splitlines()
    last = json.loads(lines[-1])
    last["records"][0]["psnr"] += 5
    path.write_text("\n".join([*lines[:-1], json.dumps(last)]) + "\n")
    assert [line.split(":")[0] for line in problems(folder)] == ["table.csv", "table.md", "table.tex"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison, a published measurement, the ledger of claims over both, and ratios with their sum."""
    results = tmp_path_factory.mktemp("published") / "results"
    device = results / "cpu-2core"
    sealed(device / "nvs-tiny")
    shutil.copytree(PUBLISHED / "efficiency-masked-image-tiny", device / "efficiency-masked-image-tiny")
    write_json(device / "micro.json", {"ratios": {"a / b": {"median": 0.9906}}})
    write_json(device / "manifest.json", {"sha256": {"micro.json": sha256(device / "micro.json")}})
    folders = claims.expand([results])
    claims.write(claims.judge(claims.read_claims(), folders), folders, results / "claims")
    return results


@pytest.fixture
def results(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "results"))


def test_a_folder_of_results_is_verified_whole_and_no_file_is_left_over(results):
    found = verify.verify(results)
    assert found.problems == []
    assert found.covered == {path for path in results.rglob("*") if path.is_file()}
    assert found.checked[-2] == "cpu-2core: 1 files have their SHA-256 sums"
    assert any(line.startswith("cpu-2core/nvs-tiny: ") for line in found.checked)


@pytest.mark.parametrize(
    "name",
    [
        *(f"cpu-2core/nvs-tiny/table.{kind}" for kind in ("md", "tex")),
        *(f"cpu-2core/efficiency-masked-image-tiny/paper/{name}" for name in ("tables.md", "training.csv", "training.tex")),
        *(f"claims/claims.{kind}" for kind in ("md", "csv", "tex")),
        *("claims/derived.json", "cpu-2core/micro.json", "cpu-2core/manifest.json"),
        *("cpu-2core/nvs-tiny/arms/dual.fill.json", "cpu-2core/nvs-tiny/manifest.json"),
        "cpu-2core/nvs-tiny/runs/dual.fill/seed-1/manifest.json",
    ],
)  # fmt: skip
def test_a_digit_that_was_changed_anywhere_is_found_where_it_is(results, name):
    path = results / name
    content = path.read_bytes()
    place = random.Random(name).choice([at for at, letter in enumerate(content) if letter in b"0123456789"])
    path.write_bytes(content[:place] + bytes([48 + (content[place] - 47) % 10]) + content[place + 1 :])
    device, *below = Path(name).parts
    unit = device if device == "claims" or len(below) == 1 else f"{device}/{below[0]}"
    if unit.endswith("-tiny"):
        assert verify.verify(results / unit).problems
    else:
        assert any(line.startswith(f"{unit}: ") for line in verify.verify(results).problems)


def test_what_nothing_makes_is_named(results):
    comparison = results / "cpu-2core" / "nvs-tiny"
    (comparison / "table-2.csv").write_text("psnr\n40\n")
    assert verify.verify(comparison).problems == [
        "no other table or figure lies there: nothing makes table-2.csv; remove it"
    ]
    (comparison / "table-2.csv").unlink()
    (results / "notes.json").write_text("{}")
    assert verify.verify(comparison).problems == []
    (line,) = verify.verify(results).problems
    assert line.endswith("nothing says what is in notes.json")


def test_claims_follow_from_the_results_that_they_name(results):
    ledger = results / "claims"
    assert verify.verify(ledger).checked[0] == "claims: every table follows from the 2 results that derived.json names"
    path = ledger / "claims.csv"
    path.write_text(path.read_text().replace("not testable here", "reproduced", 1))
    (line,) = verify.verify(ledger).problems
    assert "claims.csv differ; claims.csv: line " in line
    shutil.rmtree(results / "cpu-2core" / "nvs-tiny")
    with pytest.raises(UserError, match="nvs-tiny"):
        verify.verify(ledger)


def test_a_damaged_record_is_named_and_the_others_are_still_checked(results):
    run = results / "cpu-2core" / "nvs-tiny" / "runs" / "dual.fill" / "seed-1"
    (run / "ledger.json").write_text("{}")
    found = verify.verify(results)
    assert any(
        line.startswith("cpu-2core/nvs-tiny: its records are not those of a result (") for line in found.problems
    )
    assert any(line.startswith("cpu-2core/efficiency-masked-image-tiny: ") for line in found.checked)


def test_a_folder_that_holds_runs_or_claims_alone_is_one_that_holds_results(results):
    runs = results / "cpu-2core" / "nvs-tiny" / "runs"
    found = verify.verify(runs)
    assert found.problems == []
    assert sum(": " in line and "/seed-" in line for line in found.checked) == len(list(runs.glob("*/*/run.json")))


def test_a_folder_without_any_result_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty: holds none of comparison\.json"):
        verify.verify(tmp_path / "empty")


def test_two_manifests_that_contradict_each_other_are_told(results):
    """Weights are published nowhere, but two manifests hold their sum."""
    comparison = results / "cpu-2core" / "nvs-tiny"
    name = "runs/dual.fill/seed-1/checkpoint.safetensors"
    for manifest, key, total in (
        (comparison, name, "0" * 64),
        (comparison / Path(name).parent, Path(name).name, "1" * 64),
    ):
        stored = json.loads((manifest / "manifest.json").read_text())
        stored["sha256"][key] = total
        write_json(manifest / "manifest.json", stored)
    assert any(
        "checkpoint.safetensors has another sum in another manifest.json" in line
        for line in verify.verify(comparison).problems
    )


def test_figures_are_drawn_again_on_request(results, monkeypatch):
    def draw(_comparison, place: Path) -> list[Path]:
        (place / "front.pdf").write_bytes(b"drawn")
        return [place / "front.pdf"]

    monkeypatch.setattr(plots, "write", draw)
    comparison = results / "cpu-2core" / "nvs-tiny"
    draw(None, comparison)
    assert "1 figures are drawn again to the same bytes" in verify.verify(comparison, figures=True).checked
    (comparison / "front.pdf").write_bytes(b"painted")
    (comparison / "more.png").write_bytes(b"")
    assert verify.verify(comparison).problems == []
    assert verify.verify(comparison, figures=True).problems == [
        "1 figures are drawn again to the same bytes: front.pdf differ",
        "no other table or figure lies there: nothing makes more.png; remove it",
    ]
