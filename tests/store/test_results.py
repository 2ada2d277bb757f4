from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.errors import UserError
from bench.store.results import RECORDS, expand, record_of


def result(folder: Path, record: str = "comparison.json") -> Path:
    folder.mkdir(parents=True)
    (folder / record).write_text("{}")
    return folder


def test_results_of_every_kind_are_found_at_any_depth_once(tmp_path: Path) -> None:
    made = [
        result(tmp_path / "a" / "nvs-tiny"),
        result(tmp_path / "b" / "deep" / "er" / "curves", "scaling.json"),
        result(tmp_path / "b" / "efficiency", "efficiency.json"),
    ]
    assert expand([tmp_path]) == made
    assert expand([tmp_path / "b", made[2], tmp_path / "b" / ".." / "b", tmp_path / "a"]) == [*made[1:], made[0]]
    assert [record_of(folder) for folder in made] == ["comparison.json", "scaling.json", "efficiency.json"]


def test_what_lies_in_a_result_or_is_hidden_is_not_listed(tmp_path: Path) -> None:
    curves = result(tmp_path / "curves", "scaling.json")
    part = result(curves / "costs" / "views", "efficiency.json")
    result(tmp_path / ".curves.new", "scaling.json")
    assert expand([tmp_path]) == [curves]
    assert expand([part]) == [part]


def test_a_link_may_lead_back(tmp_path: Path) -> None:
    made = result(tmp_path / "a" / "nvs-tiny")
    for name in ("up", "again"):
        (tmp_path / "a" / name).symlink_to(tmp_path)
    (tmp_path / "b").symlink_to(made)
    assert [path.resolve() for path in expand([tmp_path])] == [made]


def test_a_path_that_holds_none_is_named_with_the_mend(tmp_path: Path) -> None:
    (tmp_path / "empty" / "runs").mkdir(parents=True)
    bundle = tmp_path / "bundle.tar.gz"
    bundle.write_bytes(b"")
    for path, said in (
        (tmp_path / "empty", "holds no comparison.json, efficiency.json or scaling.json; give a result folder"),
        (tmp_path / "absent", "is no folder; give a result folder"),
        (bundle, "is no folder; give a result folder"),
    ):
        with pytest.raises(UserError, match=f"^{path}: {said}"):
            expand([result(tmp_path / f"fine-{path.name}"), path])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(UserError, match=r"closed: cannot be read \(Permission denied\)"):
        expand([tmp_path])


@given(st.lists(st.sampled_from(["a/x", "a/y", "b/z", "c"]), min_size=1), st.sampled_from(RECORDS))
def test_every_result_is_listed_once_whatever_is_given(tmp_path_factory, names, record) -> None:
    root = tmp_path_factory.mktemp("results")
    for name in set(names):
        result(root / name, record)
    whole = expand([root])
    assert whole == sorted(root / name for name in set(names))
    assert expand([root, *(root / name for name in names)]) == whole
