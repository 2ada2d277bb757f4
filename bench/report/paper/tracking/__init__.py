"""Tracking: what MixFormer costs, kept templates or not, and every published claim beside what can be tested here."""

from bench.report.paper.tracking.figures import write as write_figures
from bench.report.paper.tracking.tables import tables as make_tables

__all__ = ["make_tables", "write_figures"]
