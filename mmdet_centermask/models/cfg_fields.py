"""What ``train_cfg`` and ``test_cfg`` of CenterMask hold.

They are plain dicts that no constructor takes apart, so a wrong field would fail in
the first step of training or testing, with a message that does not name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Real
from typing import Any

BOXES = dict(score_thr=Real, nms_pre=int, nms=Mapping, max_per_img=int)
TRAIN_CFG = dict(
    proposal=BOXES,
    rcnn=dict(
        assigner=Mapping,
        sampler=Mapping,
        mask_size=(int, list, tuple),
        mask_thr_binary=Real,
    ),
)
TEST_CFG = dict(bbox=BOXES, rcnn=dict(mask_thr_binary=Real))
WORDS: dict[Any, str] = {Real: 'a number', int: 'a whole number', Mapping: 'a dict'}


def check_cfg(cfg: Any, fields: Mapping[str, Any], path: str) -> None:
    """Compare a config with the fields it has to have; others are passed over.

    Args:
        cfg: The config.
        fields: For each field its type, or such a dict where it is a dict itself.
        path: Of ``cfg``, for the message.

    Raises:
        ValueError: A field is missing or of another type, a ``score_thr`` is no
            probability below 1, or a ``mask_size`` has not two sides; names it.
    """
    if not isinstance(cfg, Mapping):
        raise ValueError(f'{path}={cfg!r} must be a dict with {", ".join(fields)}')
    for name, wanted in fields.items():
        where = f'{path}.{name}'
        if name not in cfg:
            raise ValueError(f'{where} is missing')
        value = cfg[name]
        if isinstance(wanted, Mapping):
            check_cfg(value, wanted, where)
        elif not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f'{where}={value!r} must be {WORDS.get(wanted, "a size")}')
        elif name == 'score_thr' and not 0 <= value < 1:
            raise ValueError(f'{where}={value!r} must lie in 0..1, below 1')
        elif name == 'mask_size' and not is_size(value):
            raise ValueError(f'{where}={value!r} must be one or two whole numbers')


def is_size(value: Any) -> bool:
    """A side above 0, or two."""
    sides = value if isinstance(value, list | tuple) else [value, value]
    return len(sides) == 2 and all(isinstance(s, int) and s > 0 for s in sides)
