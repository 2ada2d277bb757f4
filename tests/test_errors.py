from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.engine.batchfit import ProbeError
from bench.errors import UserError, naming

OPTIONS = ("task.data", "task.data_path", "task.class_file", "training.warmup")


def told(line: str, meant: dict[str, str]) -> str:
    with pytest.raises(UserError) as error, naming(meant):
        raise UserError(line)
    return str(error.value)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("task.data must be one of a, b", "task.test_data must be one of a, b"),
        ("task.data: gone; see task.data.", "task.test_data: gone; see task.test_data."),
        ("task.data_path: gone", "task.data_path: gone"),
        ("other.task.data: gone", "other.task.data: gone"),
        ("the file /data/task.data/x and my-task.data", "the file /data/task.data/x and my-task.data"),
    ],
)
def test_a_whole_option_is_named_anew_wherever_it_stands(line: str, said: str) -> None:
    assert told(line, {"task.data": "task.test_data"}) == said


def test_names_are_taken_at_once_and_contexts_one_after_the_other() -> None:
    swapped = {"task.data": "task.class_file", "task.class_file": "task.data"}
    assert told("task.data or task.class_file", swapped) == "task.class_file or task.data"
    with (
        pytest.raises(UserError, match=r"^task\.test_file: gone$"),
        naming({"task.class_file": "task.test_file"}),
        naming({"task.data_path": "task.class_file"}),
    ):
        raise UserError("task.data_path: gone")


def test_the_error_stays_what_it_is() -> None:
    first = ProbeError("task.data: too large", "the trace")
    with (
        pytest.raises(ProbeError, match=r"^pretraining\.task\.data: too large$") as error,
        naming({"task.data": "pretraining.task.data"}),
    ):
        raise first
    assert error.value is first
    assert error.value.trace == "the trace"


@given(st.sampled_from(OPTIONS), st.sampled_from(OPTIONS), st.text("abc ;:,", max_size=9))
def test_other_options_are_left_alone(option: str, other: str, rest: str) -> None:
    line = f"{option}: {rest}"
    assert told(line, {other: "meant"}) == (f"meant: {rest}" if option == other else line)
    assert told(line, {}) == line
