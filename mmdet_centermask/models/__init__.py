"""Importing this package registers every module of CenterMask in MMDetection."""

from .centermask import CenterMask
from .centermask_roi_head import CenterMaskRoIHead
from .mask_tta import MaskTTAModel
from .panoptic_centermask import PanopticCenterMask
from .roi_extractor import AdaptiveRoIExtractor
from .sag_mask_head import SAGMaskHead
from .semantic_head import FullResolutionSemanticHead
from .vovnet import VoVNet

__all__ = [
    'AdaptiveRoIExtractor',
    'CenterMask',
    'CenterMaskRoIHead',
    'FullResolutionSemanticHead',
    'MaskTTAModel',
    'PanopticCenterMask',
    'SAGMaskHead',
    'VoVNet',
]
