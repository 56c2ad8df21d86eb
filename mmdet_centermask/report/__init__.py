"""A test run as one HTML page: what was right, what was wrong, how it looks."""

from .evaluated_run import EvaluatedRun, read_run
from .page import render_page

__all__ = ['EvaluatedRun', 'read_run', 'render_page']
