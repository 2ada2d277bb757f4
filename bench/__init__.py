"""Isochron: what does each architecture make of the same seconds and all the memory?"""

__version__ = "0.1.0"

PROTOCOL = "1.0"
"""Version of the measurement protocol (`docs/protocol.md`).

It is stored in every result. Results whose major.minor differ are never put in one table, so it is bumped whenever a
rule changes that can change a number.
"""

# Bounds of the protocol that both the engine and the report use: one enforces or flags, the other says so in the table.

LEDGER_TOLERANCE = 0.005
"""Share of wall time that a ledger's categories may leave unexplained before the run is invalid."""

SENTINEL_DRIFT_LIMIT = 0.03
"""Largest relative distance of a sentinel reading from the median of its block; above it the block's runs are flagged."""

LOADER_WAIT_LIMIT = 0.02
"""Share of charged time that an arm may spend waiting for data."""

FEW_STEPS = 50
"""A run with fewer optimiser steps says so: at so few, the warm-up alone may decide."""

SKIPPED_STEPS_LIMIT = 0.01
"""Share of its steps that a run may skip because of their gradients' norms without being flagged."""
