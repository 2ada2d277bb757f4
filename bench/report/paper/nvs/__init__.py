"""View synthesis: the tables of LVSM and Efficient-LVSM that need no training."""

from bench.report.paper.layout import PaperTable
from bench.report.paper.nvs import counted, timed
from bench.report.paper.nvs.figures import write as write_figures
from bench.report.paper.quantities import Theirs
from bench.store.efficiency import Efficiency


def make_tables(efficiency: Efficiency, published: Theirs) -> list[PaperTable]:
    """All of them: what is counted, then what is timed."""
    return [*counted.tables(efficiency, published), *timed.tables(efficiency, published)]


__all__ = ["make_tables", "write_figures"]
