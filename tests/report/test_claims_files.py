"""The ledger of claims as it is read, and the verdicts as they are written."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.errors import UserError
from bench.report import claims
from bench.report.claims import Verdict, judge, read_claims
from bench.report.claims.commands import cost, understand
from bench.report.paper.claims_table import counted
from tests.report.claim_cases import BASE, PAIR, a_claim, better, row, verdict, write_runs

__all__ = ["write_runs"]


# --------------------------------------------------------------------------------------------------------------- reading


def write_ledger(path: Path, *entries: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(list(entries)))
    return path


def budgets(**changes: Any) -> dict[str, Any]:
    """A measure of two budgets."""
    return better(kind="two-budgets", share=0.5, commands=["isochron run nvs"], **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"colour": "red"}, r"a-claim: colour: unknown key; remove it"),
        ({"measure": better(colour="red")}, r"a-claim: measure\.paired\.colour: unknown key"),
        ({"measure": {"kind": "felt"}}, r"a-claim: measure: .*'paired'"),
        ({"measure": better(comparison="nvss")}, r"a-claim: measure\.comparison: 'nvss' is unknown; known: mae-"),
        ({"measure": better(arm="lvms")}, r"a-claim: measure: arm 'lvms' is none of nvs's at tiny: lvsm-decoder-only, "),
        ({"measure": budgets(comparison="nvss")}, r"a-claim: measure\.comparison: 'nvss' is unknown; known: mae-"),
        ({"measure": budgets(arm="lvms")}, r"a-claim: measure: arm 'lvms' is none of nvs's at tiny: lvsm-decoder-only, "),
        ({"measure": budgets(curve="nvs")}, r"a-claim: measure\.curve: 'nvs' is unknown; known: mae-days, .*nvs-budget"),
        ({"measure": better(expected={"above": 0, "below": 1})}, r"a-claim: measure\..*give one of above, below, within"),
        ({"measure": better(expected={"within": [1, 0]})}, r"a-claim: measure\..*within must ascend"),
        ({"measure": {**PAIR, "metric": "psnr"}}, r"a-claim: value: is missing, which the measure expects"),
        ({"measure": {"kind": "counted", "first": row("a"), "form": "ratio"}, "value": 1}, r"a-claim: measure\.counted: second: "),
        ({"measure": {"kind": "published-entry", "entry": "none"}}, r"a-claim: measure\.entry: 'none' is unknown"),
        ({"task": "vos"}, r"a-claim: task: is 'vos', nvs is of another one"),
        ({"scale": "huge"}, r"a-claim: scale: input should be 'tiny', 'small' or 'paper'"),
        ({"published": {"entry": "none"}}, r"a-claim: published\.entry: 'none' is unknown; known: cache-bytes"),
        ({"published": {"entry": "training-ratio", "key": "x"}}, r"a-claim: published\.key: 'x' is none of lvsm-decoder-only"),
        ({"says": None}, r"a-claim: says: input should be a valid string"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_id_field_and_mend(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write_ledger(tmp_path / "claims.yaml", {**BASE, "measure": better(), **changes})
    with pytest.raises(UserError, match=said) as caught:
        read_claims(path)
    assert "\n" not in str(caught.value)


def test_two_claims_may_not_share_an_id(tmp_path: Path) -> None:
    path = write_ledger(tmp_path / "claims.yaml", *[{**BASE, "measure": better()}] * 2)
    with pytest.raises(UserError, match=r"a-claim: id: is taken by another claim"):
        read_claims(path)


@pytest.mark.parametrize("content", ["", "a: b", "- [", "- 1"])
def test_what_is_no_list_of_claims_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "claims.yaml").write_text(content)
    with pytest.raises(UserError, match=r"claims\.yaml(:\d)?: (is no valid YAML|is no UTF-8|must be a list|claim 1)"):
        read_claims(tmp_path / "claims.yaml")


def test_a_published_number_stands_once(tmp_path: Path) -> None:
    entry = {key: value for key, value in BASE.items() if key != "source"}
    measure = {"kind": "counted", "first": row("a")}
    published = {"entry": "training-ratio", "key": "lvsm-decoder-only"}
    (claim,) = read_claims(write_ledger(tmp_path / "c.yaml", {**entry, "published": published, "measure": measure}))
    assert (claim.value, claim.unit, claim.rounding) == (4.35, "ratio", 0.005)
    assert claim.source.startswith("[inferred] ")


@pytest.mark.parametrize("command", ["isochron train nvs", "isochron run nvs --sedes 5", "isochron run nvs --set task"])
def test_a_command_that_does_not_exist_is_refused(command: str) -> None:
    with pytest.raises(UserError):
        understand(command)
    assert cost("") == ""


# ------------------------------------------------------------------------------------------------------------- rendering


@pytest.fixture
def verdicts(write_runs: Callable[..., Path]) -> tuple[Verdict, ...]:
    untestable = {"kind": "untestable", "reason": "no | such data", "commands": ["isochron run nvs --seeds 5"]}
    asked = [
        a_claim(better()),
        a_claim(better(expected={"below": 0}), id="other", note="a * note"),
        a_claim(untestable, id="third", value=3.5, unit="dB", says="50 % & more", task="vos"),
    ]
    return judge(asked, [write_runs()])


def test_the_files_hold_every_verdict_and_are_the_same_twice(verdicts: tuple[Verdict, ...], tmp_path: Path) -> None:
    first, second = (
        claims.write(verdicts, [tmp_path / "cpu-2core/nvs-tiny"], tmp_path / name) for name in ("one", "two")
    )
    assert [path.name for path in first] == ["claims.md", "claims.csv", "claims.tex"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    markdown, table, latex = (path.read_text() for path in first)
    assert "3 claims: 1 reproduced, 1 not reproduced, 1 not testable here." in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("| ") and "a-claim" in line]
    assert rows[0].startswith("| reproduced | One beats the other (a-claim) |")
    assert "- **other**: a \\* note" in markdown
    assert "- **third**: no \\| such data. `isochron run nvs --seeds 5`: 25 s x 2 arms" in markdown
    lines = list(csv.DictReader(table.splitlines()))
    assert [line["status"] for line in lines] == ["reproduced", "not reproduced", "not testable here"]
    assert float(lines[2]["value"]) == 3.5
    assert lines[0]["folders"] == "cpu-2core/nvs-tiny"
    assert r"50 \% \& more" in latex
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 2


def test_the_notes_of_the_claims_stand_under_the_latex_table(verdicts: tuple[Verdict, ...]) -> None:
    first, second = claims.contents(verdicts)["claims.tex"].split("\n\n")
    end = first.partition("\\end{tabular}")[2]
    assert end.endswith("\n\\footnotesize\\raggedright\n\\par\\textbf{other}: a * note\n\\end{table}")
    assert "raggedright" not in second


def test_a_quoted_size_of_which_the_direction_is_tested_is_called_so(write_runs: Callable[..., Path]) -> None:
    sized = [
        a_claim(better(), id="above", value=0.4),
        a_claim(better(expected={"below": 0}), id="below", value=-0.4),
        a_claim(better(expected={"within": [-2, 2]}), id="tie", value=0),
        a_claim({**PAIR, "metric": "psnr"}, id="size", value=1.0, digits=0),
        a_claim(better(), id="no-size"),
        a_claim(better(expected={"above": 0.5}), id="bound", value=0.5),
    ]
    found = judge(sized, [write_runs()])
    told = ["reproduced (direction)", "not reproduced (direction)", *["reproduced"] * 4]
    assert [each.status for each in found] == ["reproduced", "not reproduced", *["reproduced"] * 4]
    assert [each.told for each in found] == told
    assert claims.counts(found).startswith("6 claims: 5 reproduced (1 of them in direction alone), 1 not reproduced, ")
    made = claims.contents(found)
    assert [line["status"] for line in csv.DictReader(made["claims.csv"].splitlines())] == told
    assert all("not reproduced (direction)" in made[name] for name in ("claims.md", "claims.tex"))


def test_the_share_of_a_budget_is_no_size_that_goes_untested() -> None:
    assert not a_claim(budgets(), value=0.5).of_direction


@pytest.mark.parametrize(("digits", "agree"), [(None, 1), ({"many": -2}, 2), ({"few": -2}, 1)])
def test_a_published_number_agrees_within_the_digits_that_are_stated(digits: dict[str, int] | None, agree: int) -> None:
    """1.1 GB, kept as 1,100 MB, are 1,134 as well."""
    said = counted({"many": (1133.7, 1100.0), "few": (79.6, 80.0)}, digits=digits)
    assert said.startswith(f"counted: {agree} of 2 agree")


def test_reading_the_results_changes_nothing_in_them(write_runs: Callable[..., Path]) -> None:
    folder = write_runs()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert verdict(better(), folder) == verdict(better(), folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
