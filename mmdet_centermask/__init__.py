"""CenterMask for MMDetection 3.x: importing this package registers its modules."""

from .environment import check_environment

__version__ = '0.1.0'

# mmdet fails in its depths where mmcv is not fit, so nothing may import it first.
check_environment()

from . import engine, evaluation, models  # noqa: E402
from .safe_checkpoints import allow_mmengine_checkpoints  # noqa: E402
from .speed import optimize  # noqa: E402

allow_mmengine_checkpoints()

__all__ = ['__version__', 'engine', 'evaluation', 'models', 'optimize']
