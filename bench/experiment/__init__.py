"""The one place where things meet: configuration -> task, arms, blocks, runs."""
