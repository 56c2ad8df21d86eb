"""Metrics, registered in MMDetection by import."""

from .dense_coco_metric import DenseCocoMetric
from .numpy2_metrics import NumPy2CityScapesMetric, NumPy2LVISMetric

__all__ = ['DenseCocoMetric', 'NumPy2CityScapesMetric', 'NumPy2LVISMetric']
