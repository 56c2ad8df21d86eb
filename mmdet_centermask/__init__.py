"""CenterMask for MMDetection 3.x: importing this package registers its modules."""

from .environment import check_environment, doctor_is_called

__version__ = '0.1.0'

__all__ = ['__version__']

if not doctor_is_called():
    # mmdet fails in its depths where mmcv is not fit, so nothing may import it first.
    check_environment()

    from . import checks, engine, evaluation, models  # noqa: F401
    from .named_images import name_images_in_errors
    from .safe_checkpoints import make_checkpoints_safe
    from .speed import optimize  # noqa: F401

    make_checkpoints_safe()
    name_images_in_errors()

    __all__ += ['checks', 'engine', 'evaluation', 'models', 'optimize']
