"""One page that says what a run was and what came of it, and one that compares runs: files that need no network."""

from jaxclf.reporting.report.comparison import write_comparison
from jaxclf.reporting.report.findings import Evaluated
from jaxclf.reporting.report.run_page import write_report

__all__ = ["Evaluated", "write_comparison", "write_report"]
