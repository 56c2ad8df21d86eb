"""CenterMask as MMDetection's stock parts would run it."""

from __future__ import annotations

from copy import deepcopy

from mmdet.models.roi_heads import MaskScoringRoIHead, StandardRoIHead
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.config import Config
from torch import Tensor

from ..experiment import ExperimentError
from ..models import CenterMask, CenterMaskRoIHead


class StockStyleRoIHead(CenterMaskRoIHead):
    """CenterMask's mask heads under the methods of stock Mask Scoring R-CNN."""

    _mask_forward = StandardRoIHead._mask_forward
    predict_mask = MaskScoringRoIHead.predict_mask


class StockStyleCenterMask(CenterMask):
    """The same network between stock candidates and stock masks.

    Boxes come from ``FCOSHead.predict_by_feat``, masks from
    ``MaskScoringRoIHead.predict_mask``: MMDetection's selection of candidates, its
    mask scoring and its pasting, and scores without CenterMask's root. A baseline for
    speed, not for AP.
    """

    def predict_boxes(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> InstanceList:
        return self.bbox_head.predict_by_feat(
            *self.bbox_head(x),
            batch_img_metas=[sample.metainfo for sample in batch_data_samples],
            cfg=self.test_cfg.bbox,
        )

    def predict_instances(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, rescale: bool
    ) -> InstanceList:
        boxes = self.predict_boxes(x, batch_data_samples)
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.roi_head.predict_mask(x, metas, boxes, rescale=rescale)


def in_stock_style(cfg: Config) -> Config:
    """The config of the same detector in stock style.

    Raises:
        ExperimentError: It is not a CenterMask with a mask-IoU head; MMDetection's own
            detectors are in stock style as they are.
    """
    model = cfg.model
    if model.type != 'CenterMask' or not model.roi_head.get('mask_iou_head'):
        raise ExperimentError(
            f'model.type={model.type!r} has no stock style, only CenterMask with a '
            'mask_iou_head has'
        )
    cfg = deepcopy(cfg)
    cfg.model.type = StockStyleCenterMask
    cfg.model.roi_head.type = StockStyleRoIHead
    return cfg
