"""CenterMask as a function of tensors alone, for `torch.export` and ONNX.

The network's modules are used as they are. What is written anew are the steps that
choose (candidates, NMS, levels): `CenterMask.predict` loops over pictures and
branches on what it finds, and a graph can do neither. The rules are the same, and
`tests/test_exportable_centermask.py` holds the two against each other.

Shape shorthand: ``N`` pictures, ``S`` candidates of each, ``n`` found objects of all
pictures together, ``K`` classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models import CenterMask
from ..models.mask_results import of_label
from ..models.roi_extractor import adaptive_roi_levels
from .exportable import check_exportable
from .grid_sampled_conv import with_grid_sampled_convs
from .operators import nms, roi_align


class Detections(NamedTuple):
    """What the network answers; the rows of one picture stand together."""

    pictures: Tensor
    """``(n,)`` int64, index in the batch."""

    boxes: Tensor
    """``(n, 4)``: x1, y1, x2, y2 in network-input pixels, within the picture."""

    labels: Tensor
    """``(n,)`` int64."""

    scores: Tensor
    """``(n,)`` sqrt(class score x centerness)."""

    mask_scores: Tensor
    """``(n,)`` score x predicted mask IoU; the score without an IoU head."""

    masks: Tensor
    """``(n, 28, 28)`` probabilities, to be stretched over the box."""


class Candidates(NamedTuple):
    """Boxes before NMS, as many for every picture."""

    boxes: Tensor
    """``(N, S, 4)`` in network-input pixels, not clipped."""

    scores: Tensor
    """``(N, S)``; 0 marks a row that is no candidate."""

    labels: Tensor
    """``(N, S)`` int64."""


class ExportableCenterMask(nn.Module):
    """``CenterMask.predict`` up to the pasting of masks, without its branches.

    Args:
        model: A trained network, in eval mode. Its weights are shared, unless it has
            deformable convs: those are replaced in a copy.

    Raises:
        ExperimentError: The network does something that the graph does not.
    """

    def __init__(self, model: CenterMask) -> None:
        super().__init__()
        check_exportable(model)
        self.model: CenterMask = with_grid_sampled_convs(model).eval()

    def forward(self, images: Tensor, sizes: Tensor) -> Detections:
        """Find the objects of each picture.

        Args:
            images: ``(N, 3, H, W)``, normalised and padded; ``H`` and ``W`` are
                multiples of 32.
            sizes: ``(N, 2)`` int64, height and width of each picture before padding.
        """
        x = self.model.extract_feat(images)
        candidates = self._candidates(*self.model.bbox_head(x))
        pictures, rows = self._suppress(candidates).unbind(1)
        boxes, scores, labels = (field[pictures, rows] for field in candidates)
        clipped = clip(boxes, sizes[pictures])
        seen = (clipped[:, 2:] > clipped[:, :2]).all(1).nonzero().squeeze(1)
        pictures, boxes, clipped, labels, scores = (
            field[seen] for field in (pictures, boxes, clipped, labels, scores)
        )
        masks, ious = self._masks(x, boxes, labels, pictures, sizes)
        return Detections(pictures, clipped, labels, scores, scores * ious, masks)

    def _candidates(
        self,
        cls_logits: list[Tensor],
        distances: list[Tensor],
        centerness: list[Tensor],
    ) -> Candidates:
        """:func:`best_locations` of every level, as boxes."""
        head, cfg = self.model.bbox_head, self.model.test_cfg.bbox
        points = head.prior_generator.grid_priors(
            [m.shape[-2:] for m in cls_logits], distances[0].dtype, distances[0].device
        )
        levels = []
        for logits, sides, centre, own_points in zip(
            cls_logits, distances, centerness, points, strict=True
        ):
            scores, labels, locations = best_locations(
                logits, centre, cfg.score_thr, cfg.nms_pre
            )
            sides = sides.flatten(2).transpose(1, 2)
            sides = sides.gather(1, locations.unsqueeze(2).expand(-1, -1, 4))
            boxes = head.bbox_coder.decode(own_points[locations], sides)
            levels.append((boxes, scores, labels))
        return Candidates(*(torch.cat(part, 1) for part in zip(*levels, strict=True)))

    def _suppress(self, candidates: Candidates) -> Tensor:
        """NMS within each class: ``(n, 2)`` picture and row of what is left."""
        cfg, boxes = self.model.test_cfg.bbox, candidates.boxes
        if not cfg.nms.get('class_agnostic', False):
            # As mmcv does it: every class is moved to a place of its own.
            real = (candidates.scores > 0).unsqueeze(2)
            furthest = torch.where(real, boxes, 0).amax((1, 2))
            shifts = candidates.labels * (furthest.unsqueeze(1) + 1)
            boxes = boxes + shifts.unsqueeze(2)
        return nms(boxes, candidates.scores, cfg.nms.iou_threshold, cfg.max_per_img)

    def _masks(
        self,
        x: tuple[Tensor, ...],
        boxes: Tensor,
        labels: Tensor,
        pictures: Tensor,
        sizes: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Mask probabilities ``(n, 28, 28)`` and mask IoUs ``(n,)``."""
        # OpenVINO refuses a batch of 0, so one row without area comes along.
        boxes, labels, pictures = (
            torch.cat([field, field.new_zeros(1, *field.shape[1:])])
            for field in (boxes, labels, pictures)
        )
        roi_head = self.model.roi_head
        features = self._pool(x, boxes, pictures, sizes)
        own = of_label(roi_head.mask_head(features), labels)
        if roi_head.mask_iou_head is None:
            ious = own.new_ones(own.shape[0])
        else:
            ious = of_label(roi_head.mask_iou_head(features, own), labels)
        return own.sigmoid()[:-1], ious[:-1]

    def _pool(
        self, x: tuple[Tensor, ...], boxes: Tensor, pictures: Tensor, sizes: Tensor
    ) -> Tensor:
        """RoI features, each from the level that equation 2 assigns."""
        extractor = self.model.roi_head.mask_roi_extractor
        levels = adaptive_roi_levels(
            (boxes[:, 2:] - boxes[:, :2]).prod(1),
            sizes.to(boxes).prod(1)[pictures],
            extractor.min_level,
            extractor.max_level,
        )
        parts = []
        for level, layer in enumerate(extractor.roi_layers, extractor.min_level):
            here = (levels == level).unsqueeze(1)
            # An RoI of another level has no area here, so that it costs nothing.
            own = torch.where(here, boxes, 0)
            rois = torch.cat([pictures.to(boxes).unsqueeze(1), own], 1)
            aligned = roi_align(
                x[level - extractor.min_level],
                rois,
                layer.output_size[0],
                layer.spatial_scale,
                layer.sampling_ratio,
            )
            # OpenVINO gives it numbers all the same.
            parts.append(torch.where(here[..., None, None], aligned, 0))
        return torch.stack(parts).sum(0)


def best_locations(
    cls_logits: Tensor, centerness: Tensor, score_thr: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """:func:`~mmdet_centermask.models.box_candidates.select_candidates`, fixed in size.

    Args:
        cls_logits: ``(N, K, H, W)`` class logits of a level.
        centerness: ``(N, 1, H, W)`` centerness logits.
        score_thr: A location counts for a class where ``sigmoid(cls)`` is above.
        limit: The number of rows returned.

    Returns:
        scores, class labels and locations, each ``(N, limit)``, best first. Where
        there are fewer candidates the rest has score 0.
    """
    classes = cls_logits.shape[1]
    logits = cls_logits.flatten(2).transpose(1, 2)
    threshold = math.log(score_thr / (1 - score_thr)) if score_thr > 0 else -math.inf
    products = logits.sigmoid() * centerness.flatten(2).transpose(1, 2).sigmoid()
    products = torch.where(logits > threshold, products, 0).flatten(1)
    # A small map has fewer pairs than `limit`; TensorRT wants that to be constant.
    products, pairs = F.pad(products, (0, limit)).topk(limit)
    pairs = torch.where(products > 0, pairs, 0)
    return products.sqrt(), pairs % classes, pairs // classes


def clip(boxes: Tensor, sizes: Tensor) -> Tensor:
    """Clip ``(n, 4)`` boxes to ``(n, 2)`` sizes, height and width."""
    limits = sizes.to(boxes).flip(1)
    return torch.minimum(boxes.clamp(min=0), torch.cat([limits, limits], dim=1))
