"""What is wrong with a file or a value from outside, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from bench.errors import UserError
from bench.parse import checking, read_yaml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(gt=0)
    name: str = "a"

    @field_validator("name")
    @classmethod
    def _short(cls, name: str) -> str:
        if len(name) > 1:
            raise ValueError("Must be one letter")
        return name


class Outer(BaseModel):
    parts: tuple[Inner, ...]


@pytest.mark.parametrize(
    ("value", "mend", "said"),
    [
        ({"secs": 1}, "", "file: parts.0.seconds: is missing; add it"),
        ({}, "see the page", "file: parts.0.seconds: is missing; see the page"),
        ({"seconds": 1, "x": 2}, "see the page", "file: parts.0.x: unknown key; remove it or mend its spelling"),
        ({"seconds": -1}, "", "file: parts.0.seconds: input should be greater than 0, got -1"),
        ({"seconds": 1, "name": "ab"}, "see the page", "file: parts.0.name: must be one letter; see the page"),
        (5, "", "file: parts.0: input should be a valid dictionary or instance of Inner, got 5"),
        ("x" * 100, "", "file: parts.0: input should be a valid dictionary or instance of Inner"),
    ],
)
def test_the_first_mistake_names_field_value_and_mend(value: Any, mend: str, said: str) -> None:
    with pytest.raises(UserError) as caught, checking("file", mend):
        Outer.model_validate({"parts": [value]})
    assert str(caught.value) == said


def test_what_is_right_passes() -> None:
    with checking("file"):
        assert Outer.model_validate({"parts": [{"seconds": 1}]}).parts[0].seconds == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: 1\nb: }\n", r"x\.yaml:2: is no valid YAML; mend that line$"),
        (b"a: \xff", r"x\.yaml: is no UTF-8 text \(invalid start byte at byte 3\); save it as UTF-8$"),
        (None, r"x\.yaml: cannot be read \(No such file or directory\)$"),
    ],
)
def test_a_file_that_is_no_yaml_is_one_line(content: bytes | None, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_yaml(path)


def test_a_file_is_read_as_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("Größe: [1, 2.5, null]", encoding="utf-8")
    assert read_yaml(path) == {"Größe": [1, 2.5, None]}
