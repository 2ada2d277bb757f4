"""`python -m bench` is the command `isochron`."""

from bench.cli import main

main()
