"""Mask branch of CenterMask: SAG-Mask and mask IoU on the detector's own boxes.

CenterMask, figure 2 (right half). There is no box branch: the boxes come from
FCOS and are final.
"""

from __future__ import annotations

from typing import Any

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

from .float32 import at_least_float32, float32_island
from .mask_results import (
    MASK_FORMATS,
    RoIMasks,
    finish_instances,
    of_label,
    passing,
)
from .process_share import process_share
from .roi_extractor import image_areas_of
from .sag_mask_head import SAGMaskHead


@MODELS.register_module()
class CenterMaskRoIHead(StandardRoIHead):
    """RoI head with a mask head, a mask-IoU head and no box head.

    Args:
        mask_roi_extractor: :class:`AdaptiveRoIExtractor` in the paper.
        mask_head: :class:`SAGMaskHead` in the paper.
        mask_iou_head: Stock ``MaskIoUHead``; None leaves mask scoring out.
        train_cfg: ``assigner``, ``sampler``, ``mask_size`` and
            ``mask_thr_binary``, which the stock IoU target compares with
            logits: 0.0 is probability 0.5.
        test_cfg: ``mask_thr_binary``, a probability; ``mask_format``, ``'bitmap'`` by
            default, ``'rle'`` or ``'roi'``; ``mask_chunk``, how many boxes pass the
            heads at a time, all by default; ``score_thr``, the least mask score of an
            answer, none by default: boxes that score less get no mask.
        init_cfg: Initialisation.

    Raises:
        ValueError: The heads disagree about the number of classes, or
            ``mask_format`` is unknown.
    """

    def __init__(
        self,
        mask_roi_extractor: ConfigType,
        mask_head: ConfigType,
        mask_iou_head: ConfigType | None = None,
        train_cfg: ConfigType | None = None,
        test_cfg: ConfigType | None = None,
        init_cfg: ConfigType | None = None,
    ) -> None:
        super().__init__(
            mask_roi_extractor=mask_roi_extractor,
            mask_head=mask_head,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
            init_cfg=init_cfg,
        )
        self.mask_iou_head: Any = mask_iou_head and MODELS.build(mask_iou_head)
        if self.mask_iou_head:
            classes = self.mask_head.num_classes, self.mask_iou_head.num_classes
            if classes[0] != classes[1]:
                raise ValueError(
                    f'CenterMaskRoIHead: mask_head.num_classes={classes[0]} but '
                    f'mask_iou_head.num_classes={classes[1]}; both count the classes '
                    'of the data, without background'
                )

        mask_format = (test_cfg or {}).get('mask_format', 'bitmap')
        if mask_format not in MASK_FORMATS:
            raise ValueError(
                f'CenterMaskRoIHead: test_cfg.mask_format={mask_format!r} is unknown, '
                f'choose one of {", ".join(MASK_FORMATS)}'
            )

    def forward(
        self,
        x: tuple[Tensor, ...],
        proposals: InstanceList,
        batch_data_samples: SampleList | None = None,
    ) -> tuple[Tensor, ...]:
        """Raw outputs for given boxes, for FLOPs counters and graph viewers.

        Returns:
            Mask logits ``(n, num_classes, 28, 28)``, then mask IoUs
            ``(n, num_classes)`` where there is an IoU head.
        """
        rois = bbox2roi([p.bboxes for p in proposals])
        areas = None
        if batch_data_samples is not None:
            areas = image_areas_of([s.metainfo for s in batch_data_samples], rois)
        features, logits = self._mask_forward(x, rois, areas)
        if self.mask_iou_head is None:
            return (logits,)
        labels = torch.cat([p.labels for p in proposals])
        return logits, self.mask_iou_head(features, of_label(logits, labels))

    def loss(
        self,
        x: tuple[Tensor, ...],
        proposals: InstanceList,
        batch_data_samples: SampleList,
    ) -> dict[str, Tensor]:
        """Losses on proposals that hit an object, sampled as in section 4.1.

        Args:
            x: Pyramid maps, finest first.
            proposals: ``bboxes`` in network-input pixels for each picture.
            batch_data_samples: Ground truth with masks.

        Returns:
            ``loss_mask`` and, with an IoU head, ``loss_mask_iou``. Exactly 0,
            with a backward pass, where no picture has an object.
        """
        gt_instances, gt_ignored, img_metas = unpack_gt_instances(batch_data_samples)
        samples = [
            self._sample(p, gt, ignored)
            for p, gt, ignored in zip(proposals, gt_instances, gt_ignored, strict=True)
        ]
        rois = bbox2roi([s.pos_priors for s in samples])
        labels = torch.cat([s.pos_gt_labels for s in samples])
        features, logits = self._mask_forward(x, rois, image_areas_of(img_metas, rois))
        with float32_island(logits.device):
            mask = self.mask_head.loss_and_target(
                at_least_float32(logits), samples, gt_instances, self.train_cfg
            )
        share = process_share(len(rois), logits.device)
        losses = dict(loss_mask=mask['loss_mask']['loss_mask'] * share)
        if self.mask_iou_head is not None:
            own = of_label(logits, labels)
            ious = of_label(self.mask_iou_head(features, own), labels)
            losses['loss_mask_iou'] = self._mask_iou_loss(
                ious, own, mask['mask_targets'], samples, gt_instances
            )
        return losses

    def _mask_iou_loss(
        self,
        ious: Tensor,
        own_logits: Tensor,
        mask_targets: Tensor,
        samples: list[SamplingResult],
        gt_instances: InstanceList,
    ) -> Tensor:
        """Loss of the predicted IoUs ``(n,)``, in float32: targets divide by areas."""
        ious, own_logits = at_least_float32(ious), at_least_float32(own_logits)
        with float32_island(ious.device):
            targets = self.mask_iou_head.get_targets(
                samples, gt_instances, own_logits, mask_targets, self.train_cfg
            )
            # As the stock head: a mask that misses its object says nothing about how
            # well IoUs are predicted. 0 / 0, where both are empty, is out too.
            hits = targets > 0
            # Asked in every process, whatever this one has.
            share = process_share(hits.sum(), ious.device)
            if not hits.any():
                return ious.sum() * 0
            return self.mask_iou_head.loss_iou(ious[hits], targets[hits]) * share

    def _sample(
        self, proposals: InstanceData, gt: InstanceData, ignored: InstanceData | None
    ) -> SamplingResult:
        priors = InstanceData(priors=proposals.bboxes)
        assigned = self.bbox_assigner.assign(priors, gt, ignored)
        return self.bbox_sampler.sample(assigned, priors, gt)

    def _mask_forward(
        self,
        x: tuple[Tensor, ...],
        rois: Tensor,
        image_areas: Tensor | None,
        labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """RoI features ``(n, C, 14, 14)`` and logits ``(n, num_classes, 28, 28)``.

        With ``labels``, a SAG-Mask head gives those of one class alone, ``(n, 1, …)``.
        """
        feats = x[: self.mask_roi_extractor.num_inputs]
        features = self.mask_roi_extractor(feats, rois, image_areas=image_areas)
        if labels is not None and isinstance(self.mask_head, SAGMaskHead):
            return features, self.mask_head(features, labels)
        return features, self.mask_head(features)

    def predict(
        self,
        x: tuple[Tensor, ...],
        results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Add masks and mask scores to the boxes of FCOS.

        Args:
            x: Pyramid maps, finest first.
            results_list: ``bboxes`` (network-input pixels, may reach out of the
                picture), ``scores``, ``labels`` of each picture.
            batch_data_samples: Meta of each picture.
            rescale: Give boxes and masks in pixels of the original picture.

        Returns:
            For each picture the instances that score at least ``test_cfg.score_thr``
            and whose box covers some of it: ``bboxes`` clipped to the picture,
            ``scores`` and ``labels`` as they came, ``masks`` ``(n, H, W)`` bool and,
            with an IoU head, ``mask_scores`` = score x predicted mask IoU (not
            clamped). ``test_cfg.mask_format='rle'`` makes ``masks`` an
            :class:`RLEMasks`; ``'roi'`` gives ``roi_masks`` in their place, see
            :func:`finish_instances`.
        """
        img_metas = [sample.metainfo for sample in batch_data_samples]
        boxes = [result[passing(result, self.test_cfg)] for result in results_list]
        masks = self.predict_masks(x, boxes, img_metas)
        return [
            finish_instances(result, mask, meta, self.test_cfg, rescale)
            for result, mask, meta in zip(boxes, masks, img_metas, strict=True)
        ]

    def predict_masks(
        self, x: tuple[Tensor, ...], boxes: InstanceList, img_metas: list[dict]
    ) -> list[RoIMasks]:
        """Masks and their IoUs for given boxes, in the frames of the boxes.

        Args:
            x: Pyramid maps, finest first.
            boxes: ``bboxes`` in network-input pixels and ``labels``, for each picture.
            img_metas: ``img_shape`` of each picture.
        """
        rois = bbox2roi([b.bboxes for b in boxes])
        labels = torch.cat([b.labels for b in boxes])
        areas = image_areas_of(img_metas, rois)
        # 2000 boxes at once would fill gigabytes with what lies between the layers.
        chunk = self.test_cfg.get('mask_chunk') or max(len(rois), 1)
        parts = [
            self._masks_of_rois(x, some_rois, some_labels, areas)
            for some_rois, some_labels in zip(
                rois.split(chunk), labels.split(chunk), strict=True
            )
        ]
        counts = [len(b) for b in boxes]
        masks = torch.cat([part.probabilities for part in parts]).split(counts)
        if self.mask_iou_head is None:
            return [RoIMasks(m) for m in masks]
        ious = torch.cat([p.ious for p in parts if p.ious is not None]).split(counts)
        return [RoIMasks(m, i) for m, i in zip(masks, ious, strict=True)]

    def _masks_of_rois(
        self, x: tuple[Tensor, ...], rois: Tensor, labels: Tensor, image_areas: Tensor
    ) -> RoIMasks:
        features, logits = self._mask_forward(x, rois, image_areas, labels)
        own = of_label(logits, labels)
        if self.mask_iou_head is None:
            return RoIMasks(own.sigmoid())
        ious = of_label(self.mask_iou_head(features, own), labels)
        return RoIMasks(own.sigmoid(), ious)
