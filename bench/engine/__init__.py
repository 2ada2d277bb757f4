"""Spends a budget on an architecture and a task that it knows only by contract."""
