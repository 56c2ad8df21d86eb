"""Semantic branch of Panoptic FPN (https://arxiv.org/abs/1901.02446, section 3.1)."""

from __future__ import annotations

from mmdet.models.seg_heads import PanopticFPNHead
from mmdet.registry import MODELS


@MODELS.register_module()
class FullResolutionSemanticHead(PanopticFPNHead):
    """Stock head, with the loss taken at the resolution of the picture.

    The stock head shrinks the ground truth to a quarter, which drops 15 of 16
    pixels and most of a thin object; the paper and the released models enlarge
    the logits. Layers, weights and predictions are the stock ones.

    Takes the arguments of :class:`mmdet.models.PanopticFPNHead`.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.seg_rescale_factor = 1.0
