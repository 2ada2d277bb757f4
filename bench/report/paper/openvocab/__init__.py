"""Open-vocabulary segmentation: what CAT-Seg costs, and every published claim beside what can be tested here."""

from bench.report.paper.openvocab.figures import write as write_figures
from bench.report.paper.openvocab.tables import tables as make_tables

__all__ = ["make_tables", "write_figures"]
