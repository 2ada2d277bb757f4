"""The published tables that are shipped: they resolve, quote alike, and a damaged one is one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench import config
from bench.errors import UserError
from bench.report.claims import Claim, read_claims
from bench.report.claims.commands import understand
from bench.report.claims.measures import Paired
from bench.report.paper.published import read_published
from bench.report.paper.trained.published import FAMILIES, FOLDER, NOT_SET, PublishedTable, read_not_set, read_tables
from bench.store.read import open_comparison
from tests.report.published_tables import ROWS, a_table

PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "cpu-2core"

TABLES = [table for tables in read_tables().values() for table in tables]


@pytest.fixture(scope="module")
def claims() -> dict[str, Claim]:
    return {claim.id: claim for claim in read_claims()}


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_shipped_tables_name_arms_metrics_and_baselines_that_exist(table):
    shipped = {preset: config.load(table.comparison, preset=preset) for preset in ("tiny", "small", "paper")}
    arms = {preset: {arm.name for arm in made.arms} for preset, made in shipped.items()}
    for row in table.rows:
        assert not row.arm or any(row.arm in names for names in arms.values()), row.label
    reference = next((row for row in table.rows if row.label == table.reference), None)
    assert reference is None or not reference.arm or all(reference.arm in names for names in arms.values())
    assert not table.policy or table.policy in shipped["tiny"].batch
    result = open_comparison(PUBLISHED / f"{table.comparison}-tiny")
    metrics = {metric.name for metric in result.metrics}
    assert {measure.ours for measure in table.measures if measure.ours} <= metrics
    assert {row.baseline for row in table.rows if row.baseline} <= {entry.name for entry in result.learn_nothing}


QUOTED_BY_CLAIMS = {
    "nvs-re10k-lvsm": ("nvs-re10k-256", "LVSM decoder-only", "PSNR"),
    "nvs-re10k-encoder-decoder": ("nvs-re10k-256", "LVSM encoder-decoder", "PSNR"),
    "nvs-re10k-efficient": ("nvs-re10k-256", "Efficient-LVSM", "PSNR"),
    "nvs-re10k-512": ("nvs-re10k-512", "Efficient-LVSM", "PSNR"),
    "nvs-objects": ("nvs-objects", "Efficient-LVSM", "ABO, 512 px"),
    "nvs-self-cross": ("nvs-blocks", "cross-attention alone (12)", "PSNR"),
    "nvs-co-refinement": ("nvs-input-update", "all first, the last layer read", "PSNR"),
    "nvs-repa-efficient": ("nvs-repa", "Efficient-LVSM with REPA", "PSNR"),
    "nvs-repa-lvsm": ("nvs-repa", "LVSM with REPA", "PSNR"),
    "mae-linear-probe": ("mae-linear-probe", "CrossMAE", "linear probe, ViT-B"),
    "mae-psnr-all": ("mae-reconstruction", "CrossMAE, all masked patches predicted", "masked PSNR"),
    "vos-topk-quality": ("vos-topk", "top-K", "J&F at 60 s"),
    "tracking-accuracy": ("tracking-benchmarks", "MixCvT(-L)", "AO, GOT-10k"),
    "openvocab-unseen": ("ovseg-seen-unseen", "feature, CLIP tuned", "mIoU, unseen"),
    "openvocab-decoder": ("ovseg-decoder", "without it", "mIoU, A-847"),
}
QUOTED_BY_EFFICIENCY = {
    ("openvocab", "volume-accuracy"): ("ovseg-volume", {
        "feature A-847": ("feature aggregation", "mIoU, A-847"), "feature PC-459": ("feature aggregation", "mIoU, PC-459"),
        "cost A-847": ("cost aggregation", "mIoU, A-847"), "cost PC-459": ("cost aggregation", "mIoU, PC-459"),
    }),
    ("openvocab", "seen-unseen"): ("ovseg-seen-unseen", {
        f"{volume} {classes} {clip}": (f"{volume}, CLIP {clip}", f"mIoU, {classes}")
        for volume in ("cost", "feature") for classes in ("seen", "unseen") for clip in ("tuned", "frozen")
    }),
    ("openvocab", "decoder-accuracy"): ("ovseg-decoder", {
        "without A-847": ("without it", "mIoU, A-847"), "without PC-459": ("without it", "mIoU, PC-459"),
        "with A-847": ("with the decoder", "mIoU, A-847"), "with PC-459": ("with the decoder", "mIoU, PC-459"),
    }),
    ("openvocab", "parts-accuracy"): ("ovseg-parts", {
        "none A-847": ("none of them", "mIoU, A-847"), "none PC-459": ("none of them", "mIoU, PC-459"),
        "all A-847": ("space, classes and guidance", "mIoU, A-847"),
        "all PC-459": ("space, classes and guidance", "mIoU, PC-459"),
    }),
    ("openvocab", "metric-versions"): ("ovseg-definitions", {
        "miou-gt": ("CAT-Seg", "mIoU, classes in the ground truth"), "miou-union": ("CAT-Seg", "mIoU, classes in either"),
    }),
    ("vos", "mivos-topk"): ("vos-topk", {
        "AUC, dense": ("dense", "AUC"), "AUC, top-K": ("top-K", "AUC"),
        "J&F@60s, dense": ("dense", "J&F at 60 s"), "J&F@60s, top-K": ("top-K", "J&F at 60 s"),
    }),
    ("masked-image", "accuracy"): ("mae-decoder", {
        "vit-b/mae-8": ("MAE (self-attention)", "fine-tuned accuracy"),
        "vit-b/crossmae-12": ("CrossMAE, cross-attention alone", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps": ("CrossMAE, 12 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps-p25": ("CrossMAE, 25 % of the patches predicted", "fine-tuned accuracy"),
        "vit-b/crossmae-12-maps-p15": ("CrossMAE, 15 % of the patches predicted", "fine-tuned accuracy"),
        "vit-b/crossmae-8-maps": ("CrossMAE, 8 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-4-maps": ("CrossMAE, 4 blocks", "fine-tuned accuracy"),
        "vit-b/crossmae-1-maps": ("CrossMAE, 1 block", "fine-tuned accuracy"),
    }),
    ("tracking", "accuracy"): ("tracking-benchmarks", {
        f"{tracker} {theirs}": (row, column)
        for tracker, row in (("MixCvT(-L)", "MixCvT(-L)"), ("MixViT-L", "MixViT-L"))
        for theirs, column in (("VOT2020", "EAO, VOT2020"), ("LaSOT", "norm. precision, LaSOT"),
                               ("GOT-10k", "AO, GOT-10k"), ("TrackingNet", "norm. precision, TrackingNet"))
    }),
}  # fmt: skip


def quoted(name: str, label: str, column: str) -> tuple[float | None, float | None, float]:
    """Published value, published difference, and the factor of ours, of a shipped table."""
    (table,) = [table for table in TABLES if table.name == name]
    (row,) = [row for row in table.rows if row.label == label]
    (measure,) = [measure for measure in table.measures if measure.column == column]
    return row.value(measure), table.published_difference(row, measure), measure.factor


@pytest.mark.parametrize("claim_id", QUOTED_BY_CLAIMS)
def test_numbers_that_claims_quote_too_are_the_same(claims, claim_id):
    claim = claims[claim_id]
    value, difference, factor = quoted(*QUOTED_BY_CLAIMS[claim_id])
    theirs = difference if isinstance(claim.measure, Paired) else value
    assert claim.value is not None
    assert theirs == pytest.approx(claim.value * factor, abs=1e-9)


@pytest.mark.parametrize(("task", "entry"), QUOTED_BY_EFFICIENCY)
def test_numbers_that_efficiency_tables_quote_too_are_the_same(task, entry):
    name, keys = QUOTED_BY_EFFICIENCY[task, entry]
    values = read_published(task)[entry].values
    for key, (label, column) in keys.items():
        assert quoted(name, label, column)[0] == values[key], key


def test_what_is_not_set_names_claims_and_commands_that_are_understood(claims):
    for entry in read_not_set():
        assert not entry.claim or entry.claim in claims, entry.table
        assert not (entry.claim and entry.commands), entry.table
        for command in entry.commands:
            assert understand(command).comparison is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"source": "a blog"}, "source"),
        ({"reference": "nobody"}, "reference: 'nobody' is no row"),
        ({"rows": [*ROWS, ROWS[0]]}, "two have the same label"),
        ({"rows": [{**ROWS[1], "values": {"SSIM": 0.9}}]}, "'SSIM' is no column"),
        ({"rows": [{**ROWS[1], "uncertainty": {"SSIM": 0.9}}]}, "'SSIM' is no column"),
        ({"rows": [{**ROWS[1], "against": "nobody"}]}, "'nobody' is no row"),
        ({"rows": [{**ROWS[1], "baseline": "nearest-view"}]}, "an arm or a baseline, not both"),
        ({"rows": [{"label": "LVSM", "values": {"PSNR": 1.0}}]}, "none has an arm of ours"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_table_is_one_line_that_names_file_entry_and_field(tmp_path, change, said):
    for family in FAMILIES:
        (tmp_path / f"{family}.yaml").write_text("[]")
    entry = {**a_table().model_dump(mode="json"), **change}
    (tmp_path / "vos.yaml").write_text(yaml.safe_dump([entry]))
    with pytest.raises(UserError, match=r"vos\.yaml: entry 1: ") as caught:
        read_tables(tmp_path)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_example_of_the_documentation_is_a_table():
    page = (FOLDER.parents[2] / "docs" / "paper-tables.md").read_text(encoding="utf-8")
    (entry,) = yaml.safe_load(page.split("```yaml")[1].split("```")[0])
    table = PublishedTable.model_validate(entry)
    assert table.published_difference(table.rows[1], table.measures[0]) == -2.07


def test_a_name_that_is_taken_and_a_file_that_is_gone_are_told(tmp_path):
    for family in FAMILIES:
        (tmp_path / f"{family}.yaml").write_text("[]")
    (tmp_path / "vos.yaml").write_text(yaml.safe_dump([a_table().model_dump(mode="json")] * 2))
    with pytest.raises(UserError, match="the name 'a-table' is taken twice"):
        read_tables(tmp_path)
    with pytest.raises(UserError, match=rf"{NOT_SET}: cannot be read"):
        read_not_set(tmp_path)
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*FAMILIES, Path(NOT_SET).stem}
