"""What a network's answers must not depend on: company, padding, number of threads.

A picture in a batch is padded to the size of the largest one. Convolutions see that
only at the edge, but eSE and GroupNorm average over the whole map, so padding moves
every number a little. How much is measured here, on a network and pictures of yours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass

import torch
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .models.rle_masks import RLEMasks

Picture = dict
"""``inputs`` ``(3, H, W)`` and ``data_samples``, as ``PackDetInputs`` gives them."""


@dataclass
class Agreement:
    """How far two answers agree, instances of the same label paired by their masks.

    Attributes:
        instances: Of the reference.
        unmatched: Of both, that nothing of the other answer overlaps by half.
        score: Largest difference of a box score in a pair.
        mask_score: The same of the mask scores.
        box: Largest difference of a box side, in pixels.
        mask_iou: Smallest mask IoU of a pair.
    """

    instances: int = 0
    unmatched: int = 0
    score: float = 0.0
    mask_score: float = 0.0
    box: float = 0.0
    mask_iou: float = 1.0

    def __add__(self, other: Agreement) -> Agreement:
        """Of two pairs of answers together."""
        return Agreement(
            self.instances + other.instances,
            self.unmatched + other.unmatched,
            max(self.score, other.score),
            max(self.mask_score, other.mask_score),
            max(self.box, other.box),
            min(self.mask_iou, other.mask_iou),
        )


def predict(model: BaseModel, *pictures: Picture) -> list[InstanceData]:
    """The answers to pictures that go through the network as one batch."""
    batch = dict(
        inputs=[picture['inputs'] for picture in pictures],
        data_samples=[deepcopy(picture['data_samples']) for picture in pictures],
    )
    with torch.no_grad():
        return [sample.pred_instances for sample in model.test_step(batch)]


def compare(
    found: InstanceData, reference: InstanceData, score_thr: float = 0.0
) -> Agreement:
    """How far ``found`` agrees with ``reference``, an answer to the same picture.

    Args:
        found: ``bboxes``, ``labels``, ``scores``, ``masks``, ``mask_scores``.
        reference: The same.
        score_thr: Pairs of which neither scores as much are passed over, as are
            instances without a partner that do not.
    """
    same_label = found.labels[:, None] == reference.labels[None, :]
    ious = mask_ious(found.masks, reference.masks) * same_label
    # Where masks are alike, scores tell them apart.
    scores = (found.scores[:, None] - reference.scores[None, :]).abs()
    rows, columns = linear_sum_assignment((ious - 0.1 * scores).numpy(), maximize=True)
    result = Agreement(instances=int((reference.scores >= score_thr).sum()))
    alone = [set(range(len(found))), set(range(len(reference)))]
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if ious[row, column] < 0.5:
            continue
        alone[0].remove(row)
        alone[1].remove(column)
        one, other = found[row], reference[column]
        if max(one.scores.item(), other.scores.item()) < score_thr:
            continue
        result += Agreement(
            score=difference(one.scores, other.scores),
            mask_score=difference(one.mask_scores, other.mask_scores),
            box=difference(one.bboxes, other.bboxes),
            mask_iou=float(ious[row, column]),
        )
    for rest, instances in zip(alone, (found, reference), strict=True):
        result.unmatched += sum(instances.scores[i].item() >= score_thr for i in rest)
    return result


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max())


def mask_ious(masks: Tensor | RLEMasks, others: Tensor | RLEMasks) -> Tensor:
    """``(n, H, W)`` and ``(m, H, W)`` bool -> IoUs ``(n, m)``; of empty masks 1."""
    one, other = pixels_of(masks), pixels_of(others)
    common = one @ other.t()
    union = one.sum(1)[:, None] + other.sum(1)[None, :] - common
    return torch.where(union > 0, common / union.clamp(min=1), 1.0)


def pixels_of(masks: Tensor | RLEMasks) -> Tensor:
    """``(n, H x W)`` of 0 and 1 in float32, which counts up to 2**24 exactly."""
    if isinstance(masks, RLEMasks):
        masks = masks.to_tensor(torch.bool)
    return masks.flatten(1).float()


def in_company(
    model: BaseModel, pictures: Sequence[Picture], score_thr: float = 0.0
) -> Agreement:
    """All pictures as one batch, against each alone. They have to be of one size."""
    together = predict(model, *pictures)
    return sum_of(
        compare(found, predict(model, picture)[0], score_thr)
        for found, picture in zip(together, pictures, strict=True)
    )


def in_padding(
    model: BaseModel,
    pictures: Sequence[Picture],
    extra: tuple[int, int],
    score_thr: float = 0.0,
) -> Agreement:
    """Each picture beside a black one that is larger, against each alone.

    Args:
        model: In eval mode.
        pictures: Of any size.
        extra: Rows and columns that the other picture has more.
        score_thr: As in :func:`compare`.
    """

    def padded(picture: Picture) -> InstanceData:
        _, height, width = picture['inputs'].shape
        size = (height + extra[0], width + extra[1])
        larger = deepcopy(picture)
        larger['inputs'] = picture['inputs'].new_zeros((3, *size))
        larger['data_samples'].set_metainfo(dict(img_shape=size, ori_shape=size))
        return predict(model, picture, larger)[0]

    return sum_of(compare(padded(p), predict(model, p)[0], score_thr) for p in pictures)


def on_threads(
    model: BaseModel, pictures: Sequence[Picture], threads: int, score_thr: float = 0.0
) -> Agreement:
    """Each picture on ``threads`` threads, against one."""

    def answer(picture: Picture, count: int) -> InstanceData:
        with number_of_threads(count):
            return predict(model, picture)[0]

    return sum_of(
        compare(answer(p, threads), answer(p, 1), score_thr) for p in pictures
    )


@contextmanager
def number_of_threads(count: int) -> Iterator[None]:
    """Let torch compute on ``count`` threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def sum_of(agreements: Iterator[Agreement]) -> Agreement:
    return sum(agreements, start=Agreement())
