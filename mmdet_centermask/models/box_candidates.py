"""From the FCOS head's maps to boxes, by the rule CenterMask was trained with.

Stock MMDetection ranks the locations of a level by class score alone and
reports ``cls * centerness``. CenterMask ranks by the product and reports its
square root, which makes the score comparable with the mask IoU it is later
multiplied by. The order of the boxes is the same, the order of the masks is
not, so the root is taken here, once.

Shape shorthand: ``n`` candidates, ``K`` classes, ``H W`` of a level.
"""

from __future__ import annotations

import math

import torch
from mmdet.models.dense_heads import FCOSHead
from mmdet.utils import ConfigType, InstanceList
from mmengine.structures import InstanceData
from torch import Tensor

HeadOutputs = tuple[list[Tensor], list[Tensor], list[Tensor]]


def select_candidates(
    cls_logits: Tensor, centerness: Tensor, score_thr: float, limit: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Choose the locations of one level that may become boxes.

    Args:
        cls_logits: ``(K, H, W)`` class logits.
        centerness: ``(1, H, W)`` centerness logits.
        score_thr: A location counts for a class where ``sigmoid(cls)`` is above.
        limit: At most this many (location, class) pairs are kept, the best by
            ``sigmoid(cls) * sigmoid(centerness)``.

    Returns:
        scores ``(n,)`` (square root of that product), class labels ``(n,)`` and
        locations ``(n,)`` (row-major index in ``H W``), best first.
    """
    logits = cls_logits.flatten(1)
    # Compared as logits, only the few candidates ever pass the sigmoid. Most locations
    # hold nothing, which their best class tells faster than all of them.
    threshold = math.log(score_thr / (1 - score_thr)) if score_thr > 0 else -math.inf
    busy = (logits.amax(0) > threshold).nonzero().squeeze(1)
    rows, labels = (logits[:, busy].t() > threshold).nonzero(as_tuple=True)
    locations = busy[rows]
    classness = logits[labels, locations].sigmoid()
    scores = (classness * centerness.flatten()[locations].sigmoid()).sqrt()
    scores, order = scores.sort(descending=True, stable=True)
    order = order[:limit]
    return scores[:limit], labels[order], locations[order]


def predict_boxes(
    head: FCOSHead, outputs: HeadOutputs, batch_img_metas: list[dict], cfg: ConfigType
) -> InstanceList:
    """Boxes of each picture after NMS.

    Args:
        head: The stock FCOS head that gave ``outputs``; its points, box coder
            and NMS are used.
        outputs: Class logits ``(N, K, H, W)``, distances ``(N, 4, H, W)`` and
            centerness logits ``(N, 1, H, W)`` of each level.
        batch_img_metas: Meta of each picture.
        cfg: ``score_thr``, ``nms_pre``, ``nms``, ``max_per_img``.

    Returns:
        For each picture ``bboxes`` ``(n, 4)`` in network-input pixels, not
        clipped unless the box coder clips, ``scores`` ``(n,)`` =
        sqrt(cls * centerness), ``labels`` ``(n,)``, best first. No gradients.
    """
    cls_logits, distances, centerness = [[m.detach() for m in maps] for maps in outputs]
    distances = distances_in_pixels(head, distances)
    points = head.prior_generator.grid_priors(
        [m.shape[-2:] for m in cls_logits], distances[0].dtype, distances[0].device
    )
    results = []
    for i, img_meta in enumerate(batch_img_metas):
        picture = [
            (c[i], d[i], o[i])
            for c, d, o in zip(cls_logits, distances, centerness, strict=True)
        ]
        results.append(_predict_single(head, picture, points, img_meta, cfg))
    return results


def distances_in_pixels(head: FCOSHead, distances: list[Tensor]) -> list[Tensor]:
    """Undo the stride units that a training FCOS head leaves in its distances.

    With ``norm_on_bbox`` the stock head multiplies the stride back in eval mode
    only; decoded in training, its boxes would be 8 to 128 times too small.
    """
    if head.training and head.norm_on_bbox:
        return [d * stride for d, stride in zip(distances, head.strides, strict=True)]
    return distances


def _predict_single(
    head: FCOSHead,
    levels: list[tuple[Tensor, Tensor, Tensor]],
    points: list[Tensor],
    img_meta: dict,
    cfg: ConfigType,
) -> InstanceData:
    scores, labels, boxes = [], [], []
    for (cls_logits, distances, centerness), level_points in zip(
        levels, points, strict=True
    ):
        level_scores, level_labels, locations = select_candidates(
            cls_logits.float(), centerness.float(), cfg.score_thr, cfg.nms_pre
        )
        scores.append(level_scores)
        labels.append(level_labels)
        boxes.append(
            head.bbox_coder.decode(
                level_points[locations],
                distances.flatten(1).t()[locations],
                max_shape=img_meta['img_shape'],
            )
        )
    candidates = InstanceData(
        bboxes=torch.cat(boxes), scores=torch.cat(scores), labels=torch.cat(labels)
    )
    return head._bbox_post_process(candidates, cfg, img_meta=img_meta)
