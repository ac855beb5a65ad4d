"""Figures, reports, tables and statistics of runs."""
