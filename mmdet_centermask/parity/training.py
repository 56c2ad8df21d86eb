"""The losses of one training step, by MMDetection's rules and by the reference's.

Three losses differ by rules, not by the network. The reference's own rules for them
are written out here, on the same predictions: what they give has to be the golden's
number, and then the rule is all that differs. Training does not use them.

Shape shorthand: `n` positive RoIs or locations, `m` objects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.detectors import BaseDetector
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import BitmapMasks
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from .network import Call, batch_of, recorded

Polygons = list[list[list[float]]]

# Names in a golden, and here.
LOSSES = {
    'loss_fcos_cls': 'loss_cls',
    'loss_fcos_ctr': 'loss_centerness',
    'loss_fcos_loc': 'loss_bbox',
    'loss_mask': 'loss_mask',
    'loss_maskiou': 'loss_mask_iou',
}


@torch.no_grad()
def training_answers(
    model: BaseDetector, picture: np.ndarray, golden: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Losses on the objects of `golden`; those by the reference's rules end in `*`."""
    polygons: Polygons = json.loads(str(golden['train/polygons']))
    truth = _truth(polygons, golden['train/labels'], picture.shape[:2])
    batch = batch_of(model, picture, truth, training=True)
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()  # the golden's norms are frozen
    torch.manual_seed(0)
    parts = dict(
        heads=model.bbox_head,
        pooled=model.roi_head.mask_roi_extractor,
        logits=model.roi_head.mask_head,
        ious=model.roi_head.mask_iou_head,
    )
    with recorded(**parts) as calls:
        pyramid = model.extract_feat(batch['inputs'])[-len(model.bbox_head.strides) :]
        losses = model.instance_losses(pyramid, batch['data_samples'])
    model.eval()
    answers = {name: losses[ours].reshape(()) for name, ours in LOSSES.items()}
    answers |= _by_the_references_rules(model.bbox_head, calls, truth, polygons)
    return {f'train/{name}': value.numpy() for name, value in answers.items()}


def _by_the_references_rules(
    head, calls: dict[str, list[Call]], truth: InstanceData, polygons: Polygons
) -> dict[str, Tensor]:
    """The three losses, on what the modules were given and returned."""
    rois = calls['pooled'][0].inputs[1][:, 1:]
    objects = bbox_overlaps(rois, truth.bboxes).argmax(1)
    own = torch.arange(len(rois)), truth.labels[objects]
    logits, ious = calls['logits'][0].output[own], calls['ious'][0].output[own]
    targets = polygon_targets(polygons, objects, rois, logits.shape[-1])
    shares = covered_shares(polygons, objects, rois)
    distances = _positives(head, calls['heads'][0].output, truth)
    return {
        'loss_fcos_loc*': smoothed_giou_loss(*distances),
        'loss_mask*': F.binary_cross_entropy_with_logits(logits, targets),
        'loss_maskiou*': mask_iou_loss(ious, logits > 0, targets, shares),
    }


def _truth(polygons: Polygons, labels: np.ndarray, size: tuple) -> InstanceData:
    """Objects with bitmaps, which is what the configs train on."""
    corners = [np.concatenate(parts).reshape(-1, 2) for parts in polygons]
    boxes = np.array([[*xy.min(0), *xy.max(0)] for xy in corners], np.float32)
    masks = [_rasterise(parts, *size) for parts in polygons]
    return InstanceData(
        bboxes=torch.from_numpy(boxes.reshape(-1, 4)),
        labels=torch.from_numpy(labels),
        masks=BitmapMasks(masks, *size),
    )


def _positives(head, outputs, truth: InstanceData) -> tuple[Tensor, Tensor]:
    """Distances `(n, 4)` at the positive locations, predicted and wanted."""
    sizes = [x.shape[-2:] for x in outputs[0]]
    points = head.prior_generator.grid_priors(sizes, device='cpu')
    labels, wanted = (torch.cat(x) for x in head.get_targets(points, [truth]))
    predicted = torch.cat([x[0].flatten(1).t() for x in outputs[1]])
    positive = labels < head.num_classes
    return predicted[positive], wanted[positive]


def smoothed_giou_loss(predicted: Tensor, wanted: Tensor) -> Tensor:
    """GIoU loss with 1 added above and below in the IoU, weighted by centerness.

    Args:
        predicted: `(n, 4)` distances to the left, top, right and bottom side, in
            units of the level's stride: that is what the 1 is added to.
        wanted: `(n, 4)` likewise.
    """

    def area(sides: Tensor) -> Tensor:
        return (sides[:, 0] + sides[:, 2]) * (sides[:, 1] + sides[:, 3])

    inner = area(torch.minimum(predicted, wanted))
    hull = area(torch.maximum(predicted, wanted))
    union = area(predicted) + area(wanted) - inner
    giou = (inner + 1) / (union + 1) - (hull - union) / hull
    across, down = wanted[:, [0, 2]], wanted[:, [1, 3]]
    centerness = torch.sqrt(
        (across.amin(1) / across.amax(1)) * (down.amin(1) / down.amax(1))
    )
    return ((1 - giou) * centerness).sum() / centerness.sum()


def polygon_targets(
    polygons: Polygons, objects: Tensor, rois: Tensor, side: int
) -> Tensor:
    """Each RoI's object `(n, side, side)`, drawn as a polygon in the RoI's frame.

    Args:
        polygons: Of the `m` objects, in pixels.
        objects: `(n,)` the object of each RoI.
        rois: `(n, 4)`.
        side: Of the mask.
    """
    targets = np.zeros((len(rois), side, side), np.float32)
    for k, (x1, y1, x2, y2) in enumerate(rois.double().tolist()):
        scale = side / np.array([x2 - x1, y2 - y1])
        parts = _moved(polygons[objects[k]], (x1, y1), scale)
        targets[k] = _rasterise(parts, side, side)
    return torch.from_numpy(targets)


def covered_shares(polygons: Polygons, objects: Tensor, rois: Tensor) -> Tensor:
    """`(n,)` share of each RoI's object that lies in the RoI, at most 1.

    The reference counts pixels in the RoI, on a canvas of its size cut to whole
    pixels, and divides by the polygon's exact area: a small object that is covered
    wholly comes out up to a percent below 1.
    """
    shares = np.zeros(len(rois), np.float32)
    for k, (x1, y1, x2, y2) in enumerate(rois.double().tolist()):
        parts = polygons[objects[k]]
        pixels = _rasterise(_moved(parts, (x1, y1)), int(y2 - y1), int(x2 - x1)).sum()
        shares[k] = pixels / sum(_polygon_area(part) for part in parts)
    return torch.from_numpy(shares).clamp(max=1)


def mask_iou_loss(
    predicted: Tensor, masks: Tensor, targets: Tensor, shares: Tensor
) -> Tensor:
    """Half the squared error of the mask IoUs.

    Args:
        predicted: `(n,)` mask IoUs.
        masks: `(n, h, w)` bool, predicted.
        targets: `(n, h, w)` 0 or 1.
        shares: `(n,)` of the object, which its RoI covers.
    """
    inner = (masks * targets).sum((1, 2))
    union = masks.sum((1, 2)) + targets.sum((1, 2)) / shares - inner
    wanted = inner / union
    counted = wanted > 0
    return 0.5 * F.mse_loss(predicted[counted], wanted[counted])


def _moved(parts: list[list[float]], origin, scale=1.0) -> list[list[float]]:
    return [
        ((np.reshape(part, (-1, 2)) - origin) * scale).ravel().tolist()
        for part in parts
    ]


def _rasterise(parts: list[list[float]], height: int, width: int) -> np.ndarray:
    return coco_mask.decode(
        coco_mask.merge(coco_mask.frPyObjects(parts, height, width))
    )


def _polygon_area(part: list[float]) -> float:
    x, y = np.reshape(part, (-1, 2)).T
    return abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
