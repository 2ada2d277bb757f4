"""The command `isochron`: parses, calls, and turns mistakes into one line. The only reader of environment variables."""

# In the order in which help lists them.
from bench.cli import running, reading, tools  # isort: skip
from bench.cli.app import app, main

__all__ = ["app", "main", "reading", "running", "tools"]
