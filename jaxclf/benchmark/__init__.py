"""Benchmarks of many runs: configs x settings x seeds, and their tables."""
