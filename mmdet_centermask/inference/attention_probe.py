"""Look into the mask branch while it predicts: spatial attention and RoI levels.

CenterMask, section 3.2: equation 2 assigns each box a pyramid level, equations 3 and 4
say where in the box the mask head looks. Both are computed anyway; forward hooks pick
them up, so that the detector stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.models.roi_heads.roi_extractors import BaseRoIExtractor
from mmdet.structures import DetDataSample, SampleList
from torch import Tensor, nn

from ..experiment import ExperimentError
from ..models.roi_extractor import AdaptiveRoIExtractor
from ..models.sag_mask_head import SpatialAttention


class AttentionProbe:
    """Adds ``attention``, ``rois`` and ``roi_levels`` to predicted instances.

    Args:
        detector: With a SAG-Mask head, in a CenterMask or behind a stock RoI head.

    Raises:
        ExperimentError: It has none.
    """

    def __init__(self, detector: nn.Module) -> None:
        roi_head: Any = getattr(detector, 'roi_head', None)
        mask_head = getattr(roi_head, 'mask_head', None)
        attention = getattr(mask_head, 'spatial_attention', None)
        if not isinstance(attention, SpatialAttention):
            raise ExperimentError(
                f'attention: {type(detector).__name__} has no SAG-Mask head, whose '
                'attention could be shown'
            )
        self.attention = attention
        self.extractor = roi_head.mask_roi_extractor
        self._maps: list[Tensor] = []
        self._rois: list[Tensor] = []
        self._levels: list[Tensor] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what the mask branch does meanwhile."""
        for notes in (self._maps, self._rois, self._levels):
            notes.clear()
        hooks = [
            self.attention.conv.register_forward_hook(self._note_attention),
            self.extractor.register_forward_pre_hook(
                self._note_levels, with_kwargs=True, prepend=True
            ),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def annotate(self, samples: SampleList) -> None:
        """Give each instance what was noted of its box.

        Args:
            samples: Predicted while :meth:`watching`, in pixels of the original
                picture. Instances may have been left out since.
        """
        rois, levels = torch.cat(self._rois), torch.cat(self._levels)
        maps = torch.cat(self._maps)[:, 0]
        for number, sample in enumerate(samples):
            own = (rois[:, 0] == number).nonzero()[:, 0]
            scale = rois.new_tensor(sample.scale_factor).repeat(2)
            seen = rois[own, 1:] / scale
            rows = own[nearest(sample, seen)]
            instances = sample.pred_instances
            instances.rois = (rois[rows, 1:] / scale).to(instances.bboxes)
            instances.roi_levels = levels[rows].to(instances.bboxes.device)
            instances.attention = maps[rows].to(instances.bboxes)

    def _note_attention(self, module: nn.Module, inputs: tuple, logits: Tensor) -> None:
        # The detector's own sigmoid may be in bfloat16, which rounds most of it to 1.
        self._maps.append(logits.float().sigmoid())

    def _note_levels(self, module: BaseRoIExtractor, args: tuple, kwargs: dict) -> None:
        feats, rois = args[:2]
        self._rois.append(rois)
        self._levels.append(levels_of(module, feats, rois, kwargs))


def levels_of(
    extractor: BaseRoIExtractor, feats: tuple[Tensor, ...], rois: Tensor, kwargs: dict
) -> Tensor:
    """Pyramid levels ``(n,)`` that the extractor reads; 3 is P3."""
    if isinstance(extractor, AdaptiveRoIExtractor):
        return extractor.roi_levels(feats, rois, kwargs.get('image_areas'))
    finest = int(extractor.featmap_strides[0]).bit_length() - 1
    return finest + extractor.map_roi_levels(rois, len(feats))


def nearest(sample: DetDataSample, boxes: Tensor) -> Tensor:
    """Rows ``(n,)`` of ``boxes``, clipped to the picture, that are the instances'.

    The box tells: two objects of one box have one RoI, one level and one attention.
    """
    wanted = sample.pred_instances.bboxes.to(boxes)
    if not len(wanted):
        return torch.zeros(0, dtype=torch.long, device=boxes.device)
    height, width = sample.ori_shape[:2]
    limits = boxes.new_tensor([width, height, width, height])
    clipped = torch.minimum(boxes.clamp(min=0), limits)
    return torch.cdist(wanted, clipped, p=float('inf')).argmin(1)
