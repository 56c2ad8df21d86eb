"""CenterMask: FCOS boxes, SAG-Mask masks, mask-IoU scores.

CenterMask: Real-Time Anchor-Free Instance Segmentation,
https://arxiv.org/abs/1911.06667. Figure 2 of the paper reads as
:meth:`CenterMask.predict`.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from mmdet.models.backbones import ResNet
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmdet.utils import ConfigType, InstanceList, OptConfigType, OptMultiConfig
from mmengine.logging import print_log
from torch import Tensor, nn

from .box_candidates import predict_boxes
from .cfg_fields import TEST_CFG, TRAIN_CFG, check_cfg
from .empty_objects import without_empty_objects
from .float32 import at_least_float32, float32_island
from .pretrained import below_prefix
from .vovnet import VoVNet
from .weight_shares import in_words, is_sharded, unfilled, weight_shares


@MODELS.register_module()
class CenterMask(SingleStageDetector):
    """One-stage instance segmentation: a dense box head, then a mask branch.

    Built on ``SingleStageDetector`` because ``TwoStageDetector`` would train its
    first stage on one class and label every box 0; here the classes of the
    first stage are final.

    Args:
        backbone: Gives the maps the neck expects.
        neck: Gives P3 to P7.
        bbox_head: Stock ``FCOSHead``.
        roi_head: :class:`CenterMaskRoIHead`.
        num_classes: Classes of the data without background, handed to every
            head. A head that states another number is refused.
        train_cfg: ``proposal`` (``score_thr``, ``nms_pre``, ``nms``,
            ``max_per_img`` of the boxes that the mask branch trains on) and
            ``rcnn``. None for a detector that is not to be trained.
        test_cfg: ``bbox`` (the same fields at test time) and ``rcnn``. None for one
            that is not to predict.
        data_preprocessor: Stock ``DetDataPreprocessor``.
        init_cfg: Initialisation.

    Raises:
        ValueError: The parts do not fit: channels of backbone, neck and heads,
            or the numbers of classes. A field of ``train_cfg`` or ``test_cfg`` is
            missing or of the wrong type.
    """

    def __init__(
        self,
        backbone: ConfigType,
        neck: ConfigType,
        bbox_head: ConfigType,
        roi_head: ConfigType,
        num_classes: int | None = None,
        train_cfg: OptConfigType = None,
        test_cfg: OptConfigType = None,
        data_preprocessor: OptConfigType = None,
        init_cfg: OptMultiConfig = None,
    ) -> None:
        for cfg, fields, name in (
            (train_cfg, TRAIN_CFG, 'train_cfg'),
            (test_cfg, TEST_CFG, 'test_cfg'),
        ):
            if cfg is not None:
                check_cfg(cfg, fields, f'CenterMask: {name}')
        super().__init__(
            backbone=backbone,
            neck=neck,
            bbox_head=with_classes(bbox_head, num_classes, 'bbox_head'),
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            data_preprocessor=data_preprocessor,
            init_cfg=init_cfg,
        )
        heads = {
            name: with_classes(roi_head[name], num_classes, f'roi_head.{name}')
            for name in ('mask_head', 'mask_iou_head')
            if roi_head.get(name) is not None
        }
        rcnn_cfgs = dict(
            train_cfg=train_cfg and train_cfg['rcnn'],
            test_cfg=test_cfg and test_cfg['rcnn'],
        )
        self.roi_head = MODELS.build(dict(roi_head, **heads, **rcnn_cfgs))
        self._check_parts_fit()

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Losses of both branches; the mask branch learns on the boxes of now.

        Returns:
            ``loss_cls``, ``loss_bbox``, ``loss_centerness``, ``loss_mask``,
            ``loss_mask_iou``.

        Raises:
            ValueError: There is no ``train_cfg``.
        """
        return self.instance_losses(self.extract_feat(batch_inputs), batch_data_samples)

    def instance_losses(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """:meth:`loss` of the pyramid maps P3 to P7."""
        if self.train_cfg is None:
            raise ValueError('CenterMask: train_cfg=None, training needs one')
        batch_data_samples = without_empty_objects(batch_data_samples)
        outputs = self.bbox_head(x)
        gt_instances, gt_ignored, img_metas = unpack_gt_instances(batch_data_samples)
        # Focal loss, GIoU and centerness: sums over all locations, ratios of areas.
        with float32_island(x[0].device):
            losses = self.bbox_head.loss_by_feat(
                *[[at_least_float32(m) for m in maps] for maps in outputs],
                gt_instances,
                img_metas,
                gt_ignored,
            )
        proposals = predict_boxes(
            self.bbox_head, outputs, img_metas, self.train_cfg.proposal
        )
        losses.update(self.roi_head.loss(x, proposals, batch_data_samples))
        return losses

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Boxes, masks and scores of each picture.

        Args:
            batch_inputs: ``(N, 3, H, W)``, normalised and padded.
            batch_data_samples: Meta of each picture.
            rescale: Give results in pixels of the original picture.

        Returns:
            The samples with ``pred_instances``: ``bboxes`` ``(n, 4)``,
            ``scores`` = sqrt(cls x centerness), ``labels``, ``masks``
            ``(n, H, W)`` bool, ``mask_scores`` = score x predicted mask IoU.

        Raises:
            ValueError: There is no ``test_cfg``.
        """
        x = self.extract_feat(batch_inputs)
        results = self.predict_instances(x, batch_data_samples, rescale)
        return self.add_pred_to_datasample(batch_data_samples, results)

    def predict_instances(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList, rescale: bool
    ) -> InstanceList:
        """:meth:`predict` of the pyramid maps P3 to P7, as instances alone."""
        boxes = self.predict_boxes(x, batch_data_samples)
        return self.roi_head.predict(x, boxes, batch_data_samples, rescale=rescale)

    def predict_boxes(
        self, x: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> InstanceList:
        """Boxes of the maps P3 to P7 after NMS, in network-input pixels, unclipped."""
        if self.test_cfg is None:
            raise ValueError('CenterMask: test_cfg=None, predicting needs one')
        img_metas = [sample.metainfo for sample in batch_data_samples]
        return predict_boxes(
            self.bbox_head, self.bbox_head(x), img_metas, self.test_cfg.bbox
        )

    def _forward(
        self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None
    ) -> tuple:
        """Raw outputs of all heads, the mask branch on the predicted boxes."""
        x = self.extract_feat(batch_inputs)
        return self._forward_heads(x, batch_inputs, batch_data_samples)

    def _forward_heads(
        self,
        x: tuple[Tensor, ...],
        batch_inputs: Tensor,
        batch_data_samples: OptSampleList,
    ) -> tuple:
        """:meth:`_forward` of the pyramid maps P3 to P7."""
        outputs = self.bbox_head(x)
        if batch_data_samples is None:
            img_metas = [dict(img_shape=batch_inputs.shape[-2:])] * len(batch_inputs)
        else:
            img_metas = [sample.metainfo for sample in batch_data_samples]
        boxes = predict_boxes(self.bbox_head, outputs, img_metas, self.test_cfg.bbox)
        return outputs + self.roi_head.forward(x, boxes, batch_data_samples)

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Load, and shout if whole parts of the model are not in the file.

        Whoever loads, ``DetInferencer`` for one, mmengine goes on in silence.
        """
        own = {} if is_sharded(self) else self.state_dict()
        shares = weight_shares(own, below_prefix(state_dict, prefix))
        if unfilled(shares):
            print_log(
                f'CenterMask: the checkpoint does not fit, {in_words(shares)}; the '
                'rest keeps its weights, random ones in a new model '
                '(docs/converting.md)',
                'current',
                logging.WARNING,
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _check_parts_fit(self) -> None:
        """Compare what configs set twice, and say which line is wrong."""
        box_classes = self.bbox_head.num_classes
        mask_classes = self.roi_head.mask_head.num_classes
        if box_classes != mask_classes:
            raise ValueError(
                f'CenterMask: bbox_head.num_classes={box_classes} but '
                f'roi_head.mask_head.num_classes={mask_classes}; both count the '
                'classes of the data, without background'
            )
        neck_out = getattr(self.neck, 'out_channels', None)
        extractor = self.roi_head.mask_roi_extractor
        readers = {
            'bbox_head.in_channels': self.bbox_head.in_channels,
            'roi_head.mask_roi_extractor.out_channels': extractor.out_channels,
            'roi_head.mask_head.in_channels': self.roi_head.mask_head.in_channels,
        }
        if self.roi_head.mask_iou_head is not None:
            iou_channels = self.roi_head.mask_iou_head.in_channels
            readers['roi_head.mask_iou_head.in_channels'] = iou_channels
        for name, channels in readers.items():
            if neck_out is not None and channels != neck_out:
                raise ValueError(
                    f'CenterMask: {name}={channels} but neck.out_channels={neck_out}'
                )
        if isinstance(self.backbone, VoVNet):
            given, wanted = self.backbone.out_channels, self.neck.in_channels
            if list(given) != list(wanted):
                raise ValueError(
                    f'CenterMask: neck.in_channels={wanted} but the backbone gives '
                    f'{list(given)}'
                )
        self._check_levels_fit()

    def _check_levels_fit(self) -> None:
        """Levels are counted in the neck and named by stride in two heads."""
        strides = list(self.bbox_head.strides)
        if not all(isinstance(stride, int) for stride in strides):
            raise ValueError(
                f'CenterMask: bbox_head.strides={strides} must be whole numbers, one '
                'for each level'
            )
        num_outs = getattr(self.neck, 'num_outs', None)
        if num_outs is not None and num_outs < len(strides):
            raise ValueError(
                f'CenterMask: neck.num_outs={num_outs} but bbox_head.strides={strides} '
                f'names {len(strides)} levels'
            )
        start = first_stride(self.backbone, self.neck)
        if num_outs is not None and start is not None:
            indices = self.backbone.out_indices
            # The heads read the last levels of the neck: all, or all but P2 where
            # a semantic head reads that too.
            finest = start * 2 ** (num_outs - len(strides))
            if strides[0] != finest:
                raise ValueError(
                    f'CenterMask: bbox_head.strides={strides} but '
                    f'backbone.out_indices={indices} and neck.num_outs={num_outs} '
                    f'start at stride {finest}'
                )
        roi_strides = list(self.roi_head.mask_roi_extractor.featmap_strides)
        if roi_strides != strides[: len(roi_strides)]:
            raise ValueError(
                'CenterMask: roi_head.mask_roi_extractor.featmap_strides='
                f'{roi_strides} but bbox_head.strides={strides}; both start at the '
                'finest level'
            )


def first_stride(backbone: nn.Module, neck: nn.Module) -> int | None:
    """Stride of the neck's finest level; None where the backbone does not tell."""
    if not isinstance(backbone, (VoVNet, ResNet)):
        return None
    stage = backbone.out_indices[getattr(neck, 'start_level', 0)]
    # Stage 0 follows the stem, at stride 4, and has none of its own.
    later = getattr(backbone, 'strides', (1, 2, 2, 2))[: stage + 1]
    return 4 * math.prod(later)


def with_classes(head: ConfigType, num_classes: int | None, name: str) -> ConfigType:
    """``head`` with ``num_classes``; where both count, they must agree."""
    if num_classes is None:
        return head
    if head.get('num_classes', num_classes) != num_classes:
        raise ValueError(
            f'CenterMask: num_classes={num_classes} but '
            f'{name}.num_classes={head["num_classes"]}; both count the classes of the '
            'data, without background'
        )
    return dict(head, num_classes=num_classes)
