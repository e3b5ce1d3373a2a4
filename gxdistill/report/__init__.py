"""One self-contained HTML page on what a job found, with pictures."""

from gxdistill.report.page import write

__all__ = ["write"]
