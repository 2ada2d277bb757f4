import pytest

from bench.report import page
from bench.report.page import beside
from tests.report import fake_page
from tests.report.fake_page import Reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fake_page.write(tmp_path_factory.mktemp("beside") / "cpu-2core" / "nvs-tiny", pictures=False)


def test_every_published_table_stands_in_the_page_with_ours_beside_it(folder):
    made = beside.gather([folder])
    read = Reader(page.render([folder]))
    for table, behind, _ in made.tables:
        assert [column.heading for column in table.shown] in read.rows
        assert all(row in read.rows for row in table.cells())
        assert len(behind) == len(table.rows)
        bold = [str(table.rows[number][key]) for number, key in table.bold]
        assert all(value in read.bold for value in bold)
    assert {"#beside", "#nvs-tiny"} <= {attributes.get("href") for _, attributes in read.elements}


def test_a_row_names_our_runs_or_says_that_there_are_none(folder):
    made = beside.gather([folder])
    ours = 0
    for table, behind, name in made.tables:
        for row, number in zip(table.rows, behind, strict=True):
            source = made.data["sources"][number]
            if name and row.get("arm") and "learns nothing" not in row["arm"]:
                ours += 1
                assert source["runs"][0].startswith(f"{row['arm']}.")
                assert source["runs"][0].endswith("seeds 0, 1, 2")
                assert list(folder.glob(source["files"][0].split(":")[0]))
                assert source["origin"]["folder"] == "cpu-2core/nvs-tiny"
            else:
                assert source["runs"][0] in ("no run of ours stands beside it", "learns nothing: no run")
    assert ours > 0


def test_without_a_comparison_there_is_no_such_part(tmp_path):
    from tests.report.planted_curves import write_costs

    assert 'id="beside"' not in page.render([write_costs(tmp_path / "scaling", {"linear": lambda x: 3 * x})])
