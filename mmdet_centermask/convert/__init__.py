"""Turn other projects' checkpoints into ones of this package."""

from .convert import convert_checkpoint
from .report import ConversionError, Report

__all__ = ['ConversionError', 'Report', 'convert_checkpoint']
