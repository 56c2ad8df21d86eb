"""CenterMask for MMDetection 3.x: importing this package registers its modules."""

from .environment import check_environment

__version__ = '0.1.0'

check_environment()

from . import models  # noqa: E402  (mmdet fails in its depths before the check)

__all__ = ['__version__', 'models']
