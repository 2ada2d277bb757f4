"""Video object segmentation: what reading the memory costs, and every published claim beside what can be tested here."""

from bench.report.paper.vos.figures import write as write_figures
from bench.report.paper.vos.tables import tables as make_tables

__all__ = ["make_tables", "write_figures"]
