"""Test-time augmentation that yields masks.

mmdet's ``DetTTAModel`` merges boxes and refuses masks. Here every view of a picture
(a flip, a scale) gives boxes; NMS merges them in the original picture; then the mask
branch of every view looks at the merged boxes, and the RoI masks, flipped back, are
averaged. Features are computed once for each view.

Frames: *original* is the picture as it was loaded; *view* is what the network sees,
after resizing by ``scale_factor`` and flipping within ``img_shape``, before padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmcv.ops import batched_nms
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_flip
from mmdet.utils import ConfigType, InstanceList
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor

from .detector_steps import Steps, steps_of
from .mask_results import RoIMasks, finish_instances, passing

FLIPPED_DIMS = dict(horizontal=(-1,), vertical=(-2,), diagonal=(-2, -1))


def boxes_to_original(boxes: Tensor, img_meta: dict) -> Tensor:
    """Boxes ``(n, 4)`` of a view in the original picture, as float64.

    Double precision makes the way back exact: a box that only ever belonged to one
    view returns to it bit by bit.
    """
    boxes = boxes.double()
    if img_meta.get('flip', False):
        boxes = bbox_flip(boxes, img_meta['img_shape'], img_meta['flip_direction'])
    return boxes / _scale_of(boxes, img_meta)


def boxes_to_view(boxes: Tensor, img_meta: dict) -> Tensor:
    """Boxes ``(n, 4)`` of the original picture in a view, as float32."""
    boxes = boxes.double() * _scale_of(boxes, img_meta)
    if img_meta.get('flip', False):
        boxes = bbox_flip(boxes, img_meta['img_shape'], img_meta['flip_direction'])
    return boxes.float()


def _scale_of(boxes: Tensor, img_meta: dict) -> Tensor:
    """``(4,)`` view pixels per original pixel, rounded as elsewhere in mmdet."""
    scale = torch.tensor(img_meta.get('scale_factor', (1.0, 1.0)), dtype=torch.float32)
    return scale.repeat(2).to(boxes)


def unflip_masks(masks: Tensor, img_meta: dict) -> Tensor:
    """RoI masks ``(n, h, w)`` of a view as the unflipped picture would have them."""
    if not img_meta.get('flip', False):
        return masks
    return masks.flip(FLIPPED_DIMS[img_meta['flip_direction']])


def average_masks(views: Sequence[RoIMasks], img_metas: Sequence[dict]) -> RoIMasks:
    """Mean of probabilities and of mask IoUs over the views of one picture."""
    probabilities = torch.stack(
        [
            unflip_masks(view.probabilities, meta)
            for view, meta in zip(views, img_metas, strict=True)
        ]
    ).mean(0)
    ious = [view.ious for view in views if view.ious is not None]
    return RoIMasks(probabilities, torch.stack(ious).mean(0) if ious else None)


def merge_boxes(
    views: InstanceList, img_metas: Sequence[dict], nms: ConfigType, max_per_img: int
) -> InstanceData:
    """NMS over the boxes that the views of one picture gave.

    Args:
        views: ``bboxes`` ``(n_v, 4)`` in pixels of the view, ``scores``, ``labels``.
        img_metas: Of each view.
        nms: NMS between boxes of one class.
        max_per_img: At most this many are kept.

    Returns:
        ``bboxes`` ``(n, 4)``, float64, original pixels; ``scores``, ``labels``; best
        first.
    """
    boxes = torch.cat(
        [boxes_to_original(v.bboxes, m) for v, m in zip(views, img_metas, strict=True)]
    )
    scores = torch.cat([v.scores for v in views])
    labels = torch.cat([v.labels for v in views])
    if len(boxes):
        ranked, kept = batched_nms(boxes.float(), scores, labels, nms)
        boxes, scores, labels = boxes[kept], ranked[:, -1], labels[kept]
    merged = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    return merged[:max_per_img]


class View(NamedTuple):
    """One augmentation of a batch of pictures."""

    features: tuple[Tensor, ...]
    samples: SampleList
    boxes: InstanceList


@MODELS.register_module()
class MaskTTAModel(BaseTTAModel):
    """Instance segmentation with flips and scales: ``--tta`` in ``tools/test.py``.

    Args:
        tta_cfg: ``nms`` and ``max_per_img`` of the merged boxes; what is left out
            comes from the detector's own ``test_cfg``.
        kwargs: ``module`` (and ``data_preprocessor``) of ``BaseTTAModel``.

    Raises:
        TypeError: ``module`` is not a detector that :func:`steps_of` can take apart.
    """

    def __init__(self, tta_cfg: ConfigType | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        cfg = {**steps_of(self.module).box_cfg, **(tta_cfg or {})}
        self.nms, self.max_per_img = cfg['nms'], cfg['max_per_img']

    @torch.no_grad()
    def test_step(self, data: dict) -> SampleList:
        """Predict a batch from its views.

        Args:
            data: What ``TestTimeAug`` and ``pseudo_collate`` make: ``inputs`` and
                ``data_samples``, for each view a list over the pictures.

        Returns:
            The samples of the first view with ``pred_instances`` in pixels of the
            original picture, in the form that the detector itself gives.
        """
        views = [
            self._look(dict(zip(data, view, strict=True)))
            for view in zip(*data.values(), strict=True)
        ]
        return self.merge_preds(views)

    def merge_preds(self, data_samples_list: list[View]) -> SampleList:
        """Merge views; not predictions, as elsewhere: masks need their features."""
        views, steps = data_samples_list, steps_of(self.module)
        metas = [[s.metainfo for s in view.samples] for view in views]
        merged = [
            merge_boxes(
                [v.boxes[i] for v in views], of_picture, self.nms, self.max_per_img
            )
            for i, of_picture in enumerate(zip(*metas, strict=True))
        ]
        merged = [boxes[passing(boxes, steps.mask_cfg)] for boxes in merged]
        masks = [masks_in(view, merged, steps) for view in views]
        for i, sample in enumerate(views[0].samples):
            average = average_masks([m[i] for m in masks], [m[i] for m in metas])
            sample.pred_instances = finish(merged[i], average, sample.metainfo, steps)
        return views[0].samples

    def _look(self, data: dict) -> View:
        """Features and boxes of one view."""
        data = self.module.data_preprocessor(data, False)
        features = self.module.extract_feat(data['inputs'])
        samples = data['data_samples']
        boxes = steps_of(self.module).boxes(features, samples)
        return View(features, samples, boxes)


def masks_in(view: View, merged: InstanceList, steps: Steps) -> list[RoIMasks]:
    """What the mask branch of one view says about the merged boxes."""
    boxes = [
        InstanceData(
            bboxes=boxes_to_view(found.bboxes, sample.metainfo), labels=found.labels
        )
        for found, sample in zip(merged, view.samples, strict=True)
    ]
    return steps.masks(view.features, boxes, view.samples)


def finish(
    merged: InstanceData, masks: RoIMasks, img_meta: dict, steps: Steps
) -> InstanceData:
    """The merged boxes, clipped, with their masks; original pixels."""
    merged.bboxes = merged.bboxes.float()
    original = dict(img_shape=img_meta['ori_shape'])
    return finish_instances(merged, masks, original, steps.mask_cfg, rescale=False)
