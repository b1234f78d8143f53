"""Benchmarks, each a command of its own; run by `make bench`."""
