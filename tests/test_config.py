from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from bench.config import (
    CONFIGS,
    comparison_names,
    dump,
    from_text,
    load,
    merge,
    parse_duration,
    parse_overrides,
    parse_size,
    validate,
)
from bench.errors import UserError

MINIMAL: dict[str, Any] = {
    "name": "mine",
    "task": {"name": "nvs"},
    "arms": ["lvsm-decoder-only", {"architecture": "efficient-lvsm", "options": {"depth": 2}}],
    "budget": "10s",
}


def written(tmp_path: Path, content: Any, name: str = "mine.yaml") -> Path:
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return path


def line_of(caught: pytest.ExceptionInfo[UserError]) -> str:
    line = str(caught.value)
    assert "\n" not in line, "one line"
    return line


# --------------------------------------------------------------------------------------------- durations and sizes

UNITS = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@given(number=st.integers(1, 10**6), unit=st.sampled_from(list(UNITS)), space=st.sampled_from(["", " "]))
def test_durations(number: int, unit: str, space: str) -> None:
    assert parse_duration(f"{number}{space}{unit}") == number * UNITS[unit]
    assert parse_duration(f"{number / 8}{unit}") == number / 8 * UNITS[unit]


@given(seconds=st.floats(1e-6, 1e9))
def test_a_bare_number_is_seconds(seconds: float) -> None:
    assert parse_duration(seconds) == seconds


@pytest.mark.parametrize(
    "text",
    ["", "s", "45", "-5s", "5 apples", "1e3s", "1:30", "5S", True, None, "0s", 0, -5, float("nan"), float("inf")],
)
def test_what_is_no_duration(text: Any) -> None:
    with pytest.raises(ValueError, match=r"no duration; write it as 45s|must be > 0 seconds"):
        parse_duration(text)


SIZES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
SIZES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@given(number=st.integers(1, 2**20), unit=st.sampled_from(list(SIZES)))
def test_sizes(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == parse_size(number * SIZES[unit]) == number * SIZES[unit]


@pytest.mark.parametrize("text", ["", "512", "512 Mib", "-1MiB", "GiB", "0.5B", 0, -3, True, None, 1.5])
def test_what_is_no_size(text: Any) -> None:
    with pytest.raises(ValueError, match=r"no size; write it as 512MiB|must be > 0 bytes"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("10m", 600.0, "seconds"),
        (45, 45.0, "seconds"),
        ("200 steps", 200.0, "steps"),
        ("5000 samples", 5000.0, "samples"),
    ],
)
def test_budgets(text: Any, amount: float, unit: str) -> None:
    budget = validate(MINIMAL | {"budget": text}, "mine").budget
    assert (budget.amount, budget.unit) == (amount, unit)


# ------------------------------------------------------------------------------------------------- a user's mistakes


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"colour": "red"}, ["colour: unknown key", "mend its spelling"]),
        ({"training": {"lr": 1e-3}}, ["training.lr: unknown key"]),
        ({"training": 5}, ["training:", "got 5"]),
        ({"training": {"learning_rate": -1}}, ["training.learning_rate: input should be greater than 0, got -1"]),
        ({"training": {"learning_rate": float("inf")}}, ["training.learning_rate:", "finite", "got inf"]),
        ({"training": {"weight_decay": float("nan")}}, ["training.weight_decay:", "got nan"]),
        ({"training": {"betas": [0.9, 2.0]}}, ["training.betas.1:", "less than 1", "got 2.0"]),
        ({"training": {"optimizer": "lion"}}, ["training.optimizer:", "'adamw'", "got 'lion'"]),
        ({"training": {"warmup": 1.0}}, ["training.warmup:", "less than 1", "got 1.0"]),
        ({"training": {"curve": "sine"}}, ["training.curve:", "'trapezoid'", "got 'sine'"]),
        ({"training": {"tune": {"candidates": [1e-3, -1.0]}}}, ["training.tune.candidates: must all be > 0"]),
        ({"arms": [{"architecture": "x", "training": {"lr": 1}}]}, ["arms.x.training.lr: unknown key"]),
        ({"arms": [{"architecture": "x", "training": {"warmup": 3}}]}, ["arms.x.training.warmup:", "got 3"]),
        ({"arms": [{"architecture": "x", "colour": 1}]}, ["arms.0.colour: unknown key"]),
        ({"arms": [{"name": "x"}]}, ["arms.0: give either 'architecture'", "or 'factory'"]),
        ({"arms": [{"architecture": "x", "factory": "a:B"}]}, ["arms.0: give either 'architecture'"]),
        ({"arms": [{"factory": "a:B"}]}, ["arms.0.name: is missing; add it"]),
        ({"arms": [{"architecture": "a/b"}]}, ["arms.0.name:", "got 'a/b'"]),
        ({"arms": []}, ["arms:", "at least 1"]),
        ({"arms": ["x", "x"]}, ["arms: names must differ", "give one of them a 'name'"]),
        ({"reference": "z"}, ["reference: 'z' is none of the arms"]),
        ({"batch": "huge"}, ["batch: 'huge' is no batch policy; known: fill, knee, fixed:N"]),
        ({"batch": "fixed:0"}, ["batch: 'fixed:0' is no batch policy"]),
        ({"batch": ["fill", "fill"]}, ["batch: names a policy twice"]),
        ({"batch": 32}, ["batch: 32 is no batch policy", "fixed:N"]),
        ({"budget": -5}, ["budget: must be > 0 seconds, got -5", "200 steps"]),
        ({"budget": "soon"}, ["budget: 'soon' is no duration; write it as 45s"]),
        ({"budget": None}, ["budget:", "no duration"]),
        ({"budget": {"amount": 5, "unit": "hours"}}, ["budget.unit:", "got 'hours'"]),
        ({"budget": "0 steps"}, ["budget", "greater than 0"]),
        ({"seeds": 0}, ["seeds: must be at least 1, got 0"]),
        ({"seeds": [1, 1]}, ["seeds: must be different integers >= 0, got [1, 1]"]),
        ({"seeds": [-1]}, ["seeds: must be different integers >= 0"]),
        ({"seeds": []}, ["seeds:", "at least 1"]),
        ({"seeds": "three"}, ["seeds:", "got 'three'"]),
        ({"cpu_memory": "lots"}, ["cpu_memory: 'lots' is no size; write it as 512MiB"]),
        ({"eval_fractions": [0.5]}, ["eval_fractions: must ascend within [0, 1] and end with 1.0, got [0.5]"]),
        ({"eval_fractions": [0.5, 0.2, 1.0]}, ["eval_fractions: must ascend"]),
        ({"eval_fractions": []}, ["eval_fractions: must ascend"]),
        ({"slice": 0}, ["slice:", "greater than 0, got 0"]),
        ({"checkpoint_interval": "never"}, ["checkpoint_interval: 'never' is no duration"]),
        ({"threads": "many"}, ["threads"]),
        ({"task": {}}, ["task: 'name' is missing", "isochron list tasks"]),
        ({"task": "nvs"}, ["task:", "got 'nvs'"]),
        ({"name": "../up"}, ["name:", "got '../up'"]),
    ],
)
def test_a_mistake_is_one_line_that_names_field_value_and_mend(tmp_path: Path, change: dict, says: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(written(tmp_path, MINIMAL | change))
    line = line_of(caught)
    assert line.startswith("mine.yaml: ")
    for words in says:
        assert words in line


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    for field in ("name", "task", "arms", "budget"):
        with pytest.raises(UserError) as caught:
            load(written(tmp_path, {key: value for key, value in MINIMAL.items() if key != field}))
        assert line_of(caught) == f"mine.yaml: {field}: is missing; add it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: mine\narms: [a, b\nbudget: 3s\n", r"mine\.yaml:3: is no valid YAML"),
        ("name: mine\n\tbudget: 3s\n", r"mine\.yaml:2: is no valid YAML"),
        ("- a\n- b\n", "must be a mapping"),
        ("", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("1: 2\n", "mine.yaml: "),
        ("presets: [tiny]\n", r"mine\.yaml: presets: must be a mapping"),
        ("presets: {tiny: 5}\n", r"mine\.yaml: presets\.tiny: must be a mapping"),
        ("preset: [tiny]\npresets: {tiny: {}}\n", "preset"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        load(written(tmp_path, text))
    line_of(caught)


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("name: ol\xe9\n".encode("latin-1"))
    (tmp_path / "folder.yaml").mkdir()
    for name, says in (("latin", "no UTF-8 text"), ("folder", "cannot be read"), ("none", "cannot be read")):
        with pytest.raises(UserError, match=says) as caught:
            load(tmp_path / f"{name}.yaml")
        assert f"{name}.yaml" in line_of(caught)


def test_an_unknown_comparison_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UserError) as caught:
        load("nsv")
    line = line_of(caught)
    assert "'nsv' is unknown; known: " in line
    assert "nvs" in line
    assert ".yaml" in line


def test_an_unknown_preset_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"preset 'huge' is unknown to nvs.yaml; it has: tiny, small, paper"):
        load("nvs", preset="huge")
    with pytest.raises(UserError, match="has no presets; leave the preset out"):
        load(written(tmp_path, MINIMAL), preset="small")


# ---------------------------------------------------------------------------------------------------- --set a.b=c


def test_overrides() -> None:
    parsed = parse_overrides(
        ["budget=45s", "training.learning_rate=3e-4", "training.betas=[0.8, 0.9]", "seeds=5", "caption=a=b"]
    )
    assert parsed == {
        "budget": "45s",
        "training": {"learning_rate": "3e-4", "betas": [0.8, 0.9]},
        "seeds": 5,
        "caption": "a=b",
    }
    comparison = load("nvs", overrides=parsed)
    assert comparison.budget.amount == 45
    assert comparison.training.learning_rate == 3e-4
    assert comparison.training.weight_decay == load("nvs").training.weight_decay
    assert comparison.seeds == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("text", ["budget", "=5", "training.=5", ".a=5", "a..b=5", ""])
def test_an_override_without_key_or_value_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match=r"write it as key.subkey=value") as caught:
        parse_overrides([text])
    assert repr(text) in line_of(caught)


def test_a_wrong_override_names_its_field() -> None:
    with pytest.raises(UserError, match=r"training.lr: unknown key"):
        load("nvs", overrides=parse_overrides(["training.lr=3"]))
    with pytest.raises(UserError, match="budget: must be > 0 seconds, got -5"):
        load("nvs", overrides=parse_overrides(["budget=-5"]))


def test_an_override_that_is_no_yaml_is_text() -> None:
    assert parse_overrides(["caption=[half"]) == {"caption": "[half"}


trees = st.recursive(
    st.integers(), lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=3), max_leaves=8
)
mappings = st.dictionaries(st.sampled_from("abc"), trees, max_size=3)


def leaves(tree: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(tree, dict) or not tree:
        return {path: tree}
    return {key: value for name, item in tree.items() for key, value in leaves(item, (*path, name)).items()}


@given(base=mappings, change=mappings)
def test_merging_keeps_what_is_not_changed(base: dict, change: dict) -> None:
    before = (yaml.safe_dump(base), yaml.safe_dump(change))
    merged = merge(base, change)
    assert (yaml.safe_dump(base), yaml.safe_dump(change)) == before
    assert merge(base, {}) == base
    assert merge({}, change) == change
    assert merge(merged, change) == merged
    found = leaves(merged)
    for path, value in leaves(change).items():
        if value != {}:
            assert found[path] == value
    for path, value in leaves(base).items():
        touched = any(path[: len(other)] == other or other[: len(path)] == path for other in leaves(change))
        if not touched:
            assert found[path] == value


# ------------------------------------------------------------------------------------------------- presets and arms


def test_a_preset_is_laid_over_the_file_and_overrides_over_both(tmp_path: Path) -> None:
    content = MINIMAL | {
        "training": {"learning_rate": 1e-3, "weight_decay": 0.1},
        "presets": {"tiny": None, "small": {"budget": "60s", "training": {"learning_rate": 5e-4}}},
    }
    path = written(tmp_path, content)
    tiny, small = load(path), load(path, preset="small")
    assert (tiny.preset, tiny.budget.amount, tiny.training.learning_rate) == ("tiny", 10, 1e-3)
    assert (small.preset, small.budget.amount, small.training.learning_rate) == ("small", 60, 5e-4)
    assert small.training.weight_decay == 0.1
    both = load(path, overrides={"preset": "small", "training": {"learning_rate": 1.0}})
    assert (both.preset, both.budget.amount, both.training.learning_rate) == ("small", 60, 1.0)


def test_a_comparison_may_stand_on_another_one(tmp_path: Path) -> None:
    below = {**MINIMAL, "presets": {"tiny": {"budget": "3s"}, "small": {"budget": "4s"}}, "seeds": 5}
    written(tmp_path, below, "below.yaml")
    above = {"base": "below.yaml", "name": "above", "arms": ["efficient-lvsm"], "presets": {"tiny": {"batch": "knee"}}}
    comparison = load(written(tmp_path, above), preset="tiny")
    assert (comparison.name, [arm.name for arm in comparison.arms]) == ("above", ["efficient-lvsm"])
    assert (comparison.budget.amount, comparison.batch, len(comparison.seeds)) == (3.0, ("knee",), 5)
    assert load(tmp_path / "mine.yaml", preset="small").budget.amount == 4.0
    assert load(written(tmp_path, {"base": "nvs", "name": "own"}), preset="tiny").training.learning_rate == 1e-3


def test_what_a_file_says_stands_above_the_presets_of_its_base(tmp_path: Path) -> None:
    recipe = {"recipe": "lvsm", "gradient_clip": 2.0}
    written(tmp_path, {**MINIMAL, "presets": {"tiny": {}, "paper": {"training": recipe}}}, "below.yaml")
    above = {"base": "below.yaml", "training": {"learning_rate": 2e-4}}
    training = load(written(tmp_path, above), preset="paper").training
    assert (training.learning_rate, training.gradient_clip, training.gradient_skip) == (2e-4, 2.0, 5.0)
    above = {"base": "below.yaml", "presets": {"paper": {"training": {"recipe": "efficient-lvsm"}}}}
    assert load(written(tmp_path, above), preset="paper").training.gradient_clip == 5.0
    assert load(tmp_path / "mine.yaml").training.gradient_clip == 1.0


def test_a_base_that_is_unknown_or_has_a_base_is_one_line(tmp_path: Path) -> None:
    written(tmp_path, {"base": "nvs", "name": "below"}, "below.yaml")
    with pytest.raises(UserError, match=r"base: 'below.yaml' has a base itself; name that one \('nvs'\)"):
        load(written(tmp_path, {"base": "below.yaml", "name": "above"}))
    with pytest.raises(UserError, match="comparison 'nowhere' is unknown"):
        load(written(tmp_path, {"base": "nowhere", "name": "above"}))


def test_a_recipe_is_laid_under_what_stands_beside_it_and_over_what_lies_below(tmp_path: Path) -> None:
    base = {**MINIMAL, "training": {"learning_rate": 0.5, "gradient_clip": 7.0, "precision": "bf16"}}
    base["presets"] = {"tiny": {}, "paper": {"training": {"recipe": "lvsm", "learning_rate": 1e-4}}}
    path = written(tmp_path, base)
    assert load(path).training.gradient_skip == 0
    training = load(path, preset="paper").training
    assert (training.learning_rate, training.gradient_clip, training.gradient_skip) == (1e-4, 1.0, 5.0)
    assert (training.reference_batch, training.precision) == (512, "bf16")
    changed = load(path, preset="paper", overrides={"training": {"recipe": "efficient-lvsm", "gradient_clip": 2.0}})
    assert (changed.training.gradient_clip, changed.training.gradient_skip) == (2.0, 50.0)
    assert from_text(dump(changed)) == changed


def test_an_arm_may_have_a_recipe_of_its_own(tmp_path: Path) -> None:
    arm = {"architecture": "efficient-lvsm", "training": {"recipe": "efficient-lvsm"}}
    comparison = load(written(tmp_path, {**MINIMAL, "arms": [arm], "training": {"recipe": "lvsm"}}))
    assert comparison.training.gradient_clip == 1.0
    assert comparison.training_of(comparison.arms[0]).gradient_clip == 5.0


def test_an_unknown_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"training\.recipe.*'mine'"):
        load(written(tmp_path, {**MINIMAL, "training": {"recipe": "mine"}}))


def test_an_arm_may_differ_in_its_training() -> None:
    arms = [{"architecture": "a", "training": {"learning_rate": 9.0}}, "b"]
    comparison = validate(MINIMAL | {"arms": arms, "training": {"weight_decay": 0.3}}, "mine")
    first, second = comparison.arms
    assert (comparison.training_of(first).learning_rate, comparison.training_of(second).learning_rate) == (9.0, 1e-3)
    assert comparison.training_of(first).weight_decay == 0.3
    assert comparison.reference_arm == "a"


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("*.yaml")))
def test_shipped_comparisons_load_under_every_preset_that_they_declare(name: str) -> None:
    assert comparison_names()[name], "a comparison says what it is"
    presets = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()).get("presets", {})
    for preset in presets or [None]:
        comparison = load(name, preset=preset)
        assert comparison.name == name
        assert preset is None or comparison.preset == preset
        assert from_text(dump(comparison)) == comparison


@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_what_is_dumped_is_loaded_again(tmp_path: Path, preset: str) -> None:
    comparison = load(
        "nvs",
        preset=preset,
        overrides={"caption": "Ünïcode: 'quoted' # not a comment\nsecond line", "budget": "7 steps"},
    )
    text = dump(comparison)
    assert from_text(text) == comparison
    assert load(written(tmp_path, text)) == comparison
    assert dump(from_text(text)) == text


@given(
    rate=st.floats(1e-12, 1e12),
    budget=st.one_of(st.floats(1e-3, 1e9), st.integers(1, 10**6).map(lambda n: f"{n} steps")),
    seeds=st.lists(st.integers(0, 10**9), min_size=1, max_size=4, unique=True),
    caption=st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40),
    half_life=st.none() | st.floats(1e-3, 10),
)
def test_any_comparison_comes_back(
    rate: float, budget: Any, seeds: list[int], caption: str, half_life: float | None
) -> None:
    comparison = validate(
        MINIMAL
        | {
            "budget": budget,
            "seeds": seeds,
            "caption": caption,
            "training": {"learning_rate": rate, "ema_half_life": half_life},
        },
        "mine",
    )
    assert from_text(dump(comparison)) == comparison
