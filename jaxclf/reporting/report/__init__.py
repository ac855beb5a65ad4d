"""HTML pages that need no network: the report of a run, and the comparison of several runs."""

from jaxclf.reporting.report.comparison import write_comparison
from jaxclf.reporting.report.findings import EvaluatedSplit
from jaxclf.reporting.report.run_page import write_report

__all__ = ["EvaluatedSplit", "write_comparison", "write_report"]
