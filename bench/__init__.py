"""Isochron: what does each architecture make of the same seconds and all the memory?"""

__version__ = "0.1.0"

PROTOCOL = "1.0"
"""Version of the measurement protocol (`docs/protocol.md`).

It is stored in every result. Results whose major.minor differ are never put in one table, so it is bumped whenever a
rule changes that can change a number.
"""
