"""Before the first step: is the data sound, did the weights load, do numbers fit?"""

from .checking import check_config
from .dataset_check_hook import DatasetCheckHook
from .draw import draw_findings
from .report import as_table, totals
from .startup_check_hook import StartupCheckHook

__all__ = [
    'DatasetCheckHook',
    'StartupCheckHook',
    'as_table',
    'check_config',
    'draw_findings',
    'totals',
]
