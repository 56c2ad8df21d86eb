"""Inference: pictures, videos and cameras in, masks and overlays out."""

from .inferencer import CenterMaskInferencer
from .overlay_visualizer import OverlayVisualizer
from .prediction import Prediction
from .sources import Skipped

__all__ = ['CenterMaskInferencer', 'OverlayVisualizer', 'Prediction', 'Skipped']
