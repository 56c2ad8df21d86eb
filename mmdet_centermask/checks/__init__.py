"""Before the first step: is the data sound, and did the weights load?"""

from .check_config import check_config
from .draw import draw_findings
from .report import as_table, totals

__all__ = ['as_table', 'check_config', 'draw_findings', 'totals']
