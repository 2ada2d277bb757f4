"""Hydrology: the notes' cost claims beside what is counted and measured at their shapes."""

from bench.report.paper.hydrology.figures import write as write_figures
from bench.report.paper.hydrology.tables import tables as make_tables

__all__ = ["make_tables", "write_figures"]
