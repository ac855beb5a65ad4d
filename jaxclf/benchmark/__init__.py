"""Benchmarks: configs x settings x seeds, each trained in its own process, and tables of the results.

A setting gives values to some fields of a config. A config with a setting is a variant, and a variant with a seed is a
cell.
"""
