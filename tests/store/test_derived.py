"""Which results a folder of tables was made from."""

import json
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.store.derived import KINDS, Derived, read_derived, write_derived
from bench.store.results import RECORDS


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, record in zip(("nvs-tiny", "efficiency-vos-tiny", "scaling-tiny"), RECORDS, strict=True):
        folder = tmp_path / "results" / "cpu-2core" / name
        folder.mkdir(parents=True)
        (folder / record).write_text("{}")
    return tmp_path / "results"


def folders(results: Path) -> list[Path]:
    return sorted((results / "cpu-2core").iterdir(), reverse=True)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read(results, kind):
    write_derived(results / kind, kind, folders(results))
    assert read_derived(results / kind) == Derived(kind, tuple(sorted(folders(results))))


def test_paths_are_relative_sorted_and_once(results):
    write_derived(results / "claims", "claims", folders(results) * 2)
    stored = json.loads((results / "claims" / "derived.json").read_text())
    names = ["../cpu-2core/efficiency-vos-tiny", "../cpu-2core/nvs-tiny", "../cpu-2core/scaling-tiny"]
    assert stored == {"schema": 1, "kind": "claims", "folders": names}


def test_it_holds_wherever_it_is_written_and_read_from(results, monkeypatch):
    write_derived(results / "claims", "claims", folders(results))
    absolute = (results / "claims" / "derived.json").read_bytes()
    monkeypatch.chdir(results)
    write_derived(Path("claims"), "claims", sorted(Path("cpu-2core").iterdir()))
    assert Path("claims/derived.json").read_bytes() == absolute
    assert read_derived(Path("claims")).folders[0] == Path("cpu-2core/efficiency-vos-tiny")
    moved = results.with_name("moved")
    results.rename(moved)
    assert read_derived(moved / "claims").folders == tuple(sorted((moved / "cpu-2core").iterdir()))


def test_what_is_no_result_is_refused_and_nothing_is_written(results):
    (results / "notes").mkdir()
    with pytest.raises(UserError, match=r"notes: holds no comparison\.json or efficiency\.json or scaling\.json"):
        write_derived(results / "claims", "claims", [*folders(results), results / "notes"])
    with pytest.raises(UserError, match="folders: there is none"):
        write_derived(results / "claims", "claims", [])
    with pytest.raises(UserError, match="kind must be one of claims, paper, measurement, got 'page'"):
        write_derived(results / "claims", "page", folders(results))
    assert not (results / "claims").exists()


def test_its_absence_says_what_to_give(results):
    with pytest.raises(UserError, match=r"results: holds no derived\.json; give a folder that `isochron claims`"):
        read_derived(results)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schema": 9}, "schema is 9, this version reads 1"),
        ({"kind": "page"}, "kind must be one of claims, paper, measurement, got 'page'"),
        ({"folders": []}, "folders must list relative paths"),
        ({"folders": ["/results/nvs-tiny"]}, "folders must list relative paths"),
        ({"folders": [3]}, "folders must list relative paths"),
        ({"folders": "../nvs-tiny"}, "folders must list relative paths"),
    ],
)
def test_a_damaged_record_names_the_field(results, change, said):
    write_derived(results / "claims", "claims", folders(results))
    path = results / "claims" / "derived.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=said) as error:
        read_derived(results / "claims")
    assert str(path) in str(error.value)
    path.write_text("[]")
    with pytest.raises(UserError, match="schema is None"):
        read_derived(results / "claims")
