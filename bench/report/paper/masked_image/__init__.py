"""Masked image modelling: what MAE and CrossMAE cost, beside the published numbers."""

from bench.report.paper.masked_image.figures import write as write_figures
from bench.report.paper.masked_image.tables import tables as make_tables

__all__ = ["make_tables", "write_figures"]
