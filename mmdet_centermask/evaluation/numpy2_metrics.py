"""mmdet's LVIS and Cityscapes metrics on today's NumPy.

The packages behind them ask for names that NumPy has dropped: lvis 0.5.3 for
``np.float`` (gone since 1.24), cityscapesscripts 2.3.0 for ``np.in1d`` (gone since
2.4). A training would end in an AttributeError at its first validation. Here the names
exist while a metric is computed, and nowhere else.
"""

from __future__ import annotations

from contextlib import ExitStack
from unittest.mock import patch

import numpy as np
from mmdet.evaluation.metrics import CityScapesMetric, LVISMetric
from mmdet.registry import METRICS

DROPPED = dict(float=float, in1d=np.isin)


def dropped_names() -> ExitStack:
    """Within it, NumPy has the names that it has dropped."""
    stack = ExitStack()
    for name, value in DROPPED.items():
        if not hasattr(np, name):
            stack.enter_context(patch.object(np, name, value, create=True))
    return stack


@METRICS.register_module()
class NumPy2LVISMetric(LVISMetric):
    """``LVISMetric``, whatever NumPy there is."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        with dropped_names():
            return super().compute_metrics(results)


@METRICS.register_module()
class NumPy2CityScapesMetric(CityScapesMetric):
    """``CityScapesMetric``, whatever NumPy there is."""

    def compute_metrics(self, results: list) -> dict[str, float]:
        with dropped_names():
            return super().compute_metrics(results)
