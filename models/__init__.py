"""Designs under test. They know torch, and nothing of ``bench``."""
