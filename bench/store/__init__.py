"""Run folders: written while a comparison runs, read by everything that reports on it."""
