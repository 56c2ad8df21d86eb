"""Predictions drawn on their picture: masks, over them boxes, over those labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer, get_palette
from mmengine.structures import InstanceData, PixelData

from .instances import best_first, extent_of, mask_of, scores_of
from .label_plates import letters_of, place_labels, plate_of
from .object_colours import assign_colours, distinct_colours

MASK_OPACITY = 0.45
STUFF_OPACITY = 0.35
HEAT_OPACITY = 0.7
# So many objects are a crowd, in which a label needs a box this many times its size.
CROWD, ROOM_FOR_LABEL = 40, 4
# Of the frames of --attention, by level from the finest: P3 green, P4 yellow, P5 red.
LEVEL_COLOURS = np.array([[90, 230, 120], [255, 220, 60], [255, 90, 80]], np.uint8)


@VISUALIZERS.register_module()
class OverlayVisualizer(DetLocalVisualizer):
    """mmdet's visualizer with overlays that stay readable, drawn by OpenCV.

    The stock one paints masks over boxes and labels, colours by class, and needs
    matplotlib, half a second for a picture of 1920 x 1080.

    Args:
        color_by: ``'object'``: neighbours differ and, from frame to frame of a video,
            an object keeps its colour. ``'class'``: the palette of the data set.
        kwargs: Of ``DetLocalVisualizer``.
    """

    def __init__(
        self, name: str = 'visualizer', color_by: str = 'object', **kwargs: Any
    ) -> None:
        super().__init__(name, **kwargs)
        if color_by not in ('object', 'class'):
            raise ValueError(f"color_by={color_by!r} is neither 'object' nor 'class'")
        self.color_by = color_by
        self.forget_colours()

    def forget_colours(self) -> None:
        """The next picture has nothing to do with the last: choose colours anew."""
        self._last_boxes = np.zeros((0, 4), np.float32)
        self._last_colours = np.zeros(0, int)

    def draw(self, image: np.ndarray, sample: DetDataSample) -> np.ndarray:
        """Return ``image`` ``(H, W, 3)`` uint8 RGB with all predictions drawn in."""
        classes = self.dataset_meta.get('classes')
        palette = self.dataset_meta.get('palette')
        if 'pred_panoptic_seg' in sample:
            segments = sample.pred_panoptic_seg
            image = self._draw_panoptic_seg(image, segments, classes, palette)
        return self._draw_instances(image, sample.pred_instances, classes, palette)

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: Sequence[str] | None,
        palette: Any,
    ) -> np.ndarray:
        """Called by mmdet for ground truth too, which has no scores."""
        image = image.copy()
        if 'scores' in instances:
            instances = best_first(instances)
        boxes = instances.bboxes.numpy()
        colours = self._colours_of(instances, palette)
        line = line_width(image)
        if 'masks' in instances:
            draw_masks(image, instances, colours, line)
        for box, colour in zip(np.rint(boxes).astype(int), colours, strict=True):
            cv2.rectangle(image, box[:2], box[2:], colour.tolist(), line)
        draw_labels(image, boxes, label_texts(instances, classes), colours)
        return image

    def _draw_panoptic_seg(
        self,
        image: np.ndarray,
        panoptic_seg: PixelData,
        classes: Sequence[str],
        palette: Any,
    ) -> np.ndarray:
        """The stuff only: what instances there are, is drawn as instances."""
        image = image.copy()
        segments = np.asarray(panoptic_seg.sem_seg)[0]
        # Things are numbered from INSTANCE_OFFSET on; the number of classes is void.
        stuff = np.unique(segments[segments < len(classes)])
        for number, colour in zip(stuff, class_colours(palette, stuff), strict=True):
            blend(image, np.uint8(segments == number), colour, STUFF_OPACITY)
        return image

    def _colours_of(self, instances: InstanceData, palette: Any) -> np.ndarray:
        """``(n, 3)`` uint8 RGB."""
        if self.color_by == 'class':
            return class_colours(palette, instances.labels.numpy())
        boxes, colours = instances.bboxes.numpy(), distinct_colours()
        chosen = assign_colours(
            boxes, self._last_boxes, self._last_colours, len(colours)
        )
        self._last_boxes, self._last_colours = boxes, chosen
        return colours[chosen]

    def draw_attention(self, image: np.ndarray, instances: InstanceData) -> np.ndarray:
        """Show where the mask branch looks, object by object.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            instances: With ``attention`` ``(n, h, w)``, ``rois`` ``(n, 4)`` in
                pixels, which may reach out of the picture, and ``roi_levels``
                ``(n,)``.

        Returns:
            The picture in grey; in each box the object's attention before the sigmoid,
            from its own minimum (dark) to its maximum (bright), small objects on top of
            large ones; frame and label tell the pyramid level.
        """
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) // 2
        image = cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB)
        sizes = (instances.rois[:, 2:] - instances.rois[:, :2]).prod(1)
        instances = instances[sizes.argsort(descending=True)]
        boxes = instances.bboxes.numpy()
        levels = instances.roi_levels.numpy()
        colours = LEVEL_COLOURS[(levels - 3) % len(LEVEL_COLOURS)]
        for attention, roi in zip(instances.attention, instances.rois, strict=True):
            draw_heat(image, attention, roi)
        for box, colour in zip(np.rint(boxes).astype(int), colours, strict=True):
            cv2.rectangle(image, box[:2], box[2:], colour.tolist(), line_width(image))
        draw_labels(image, boxes, [f'P{level}' for level in levels], colours)
        return image


def class_colours(palette: Any, labels: np.ndarray) -> np.ndarray:
    """``(n, 3)`` uint8 RGB of each label; ours where mmdet would take random ones."""
    count = int(labels.max(initial=-1)) + 1
    if palette in (None, 'random') or (
        isinstance(palette, (list, tuple)) and len(palette) < count
    ):
        colours = distinct_colours()
        return colours[labels % len(colours)]
    return np.array(get_palette(palette, count), np.uint8).reshape(-1, 3)[labels]


def line_width(image: np.ndarray) -> int:
    """Of boxes and outlines, in pixels."""
    return max(1, round(min(image.shape[:2]) / 400))


def font_size(image: np.ndarray) -> int:
    """In pixels."""
    return int(np.clip(min(image.shape[:2]) / 40, 9, 26))


def label_texts(instances: InstanceData, classes: Sequence[str] | None) -> list[str]:
    """`cat 0.97`; the score alone where there is only one class."""
    names = [classes[i] if classes else f'class {i}' for i in instances.labels]
    if 'scores' not in instances:
        return names
    scores = [f'{score:.2f}' for score in scores_of(instances)]
    if classes is not None and len(classes) == 1:
        return scores
    return [f'{name} {score}' for name, score in zip(names, scores, strict=True)]


def blend(
    image: np.ndarray, mask: np.ndarray, colour: np.ndarray, opacity: float
) -> None:
    """Tint the pixels of ``mask`` ``(H, W)`` uint8 in place."""
    levels = np.arange(256)[:, None] * (1 - opacity) + opacity * np.asarray(colour)
    table = np.rint(levels).astype(np.uint8)[None]
    cv2.copyTo(cv2.LUT(image, table), mask, image)


def draw_masks(
    image: np.ndarray, instances: InstanceData, colours: np.ndarray, line: int
) -> None:
    """Tint and outline every mask in place, large ones first."""
    boxes = instances.bboxes.numpy()
    for i in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(1)).tolist():
        mask, (x, y, width, height) = mask_of(instances, i), extent_of(instances, i)
        rows, columns = slice(y, y + height), slice(x, x + width)
        blend(image[rows, columns], mask[rows, columns], colours[i], MASK_OPACITY)
        outlines = cv2.findContours(
            mask[rows, columns], cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
        )[0]
        cv2.drawContours(
            image, outlines, -1, colours[i].tolist(), line, cv2.LINE_AA, offset=(x, y)
        )


def draw_labels(
    image: np.ndarray, boxes: np.ndarray, texts: Sequence[str], colours: np.ndarray
) -> None:
    """Write in place, each label on a plate of its colour, where there is room.

    In a crowd, small objects go without, or nothing but labels were to be seen.
    """
    size = font_size(image)
    shapes = [letters_of(text, size).shape[::-1] for text in texts]
    sizes: np.ndarray = np.array(shapes).reshape(-1, 2)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    drawn = np.arange(len(boxes))
    if len(boxes) > CROWD:
        drawn = np.flatnonzero(areas >= ROOM_FOR_LABEL * sizes.prod(1))
    places = place_labels(boxes[drawn], sizes[drawn], *image.shape[:2])
    for i, place in zip(drawn.tolist(), places, strict=True):
        if place is not None:
            x, y = place
            plate = plate_of(texts[i], size, colours[i])
            image[y : y + plate.shape[0], x : x + plate.shape[1]] = plate


def draw_heat(image: np.ndarray, attention: torch.Tensor, roi: torch.Tensor) -> None:
    """Stretch an attention map ``(h, w)`` over its box ``(4,)``, in place."""
    # Before the sigmoid: where it saturates, nearly all cells would look the same.
    logits = attention.logit(eps=1e-7)
    low, high = logits.min(), logits.max()
    relative = (logits - low) / (high - low).clamp(min=1e-6)
    # A map of ones tells how much of each pixel the box covers; at its edge the
    # stretched map fades as much.
    both = torch.stack([relative, torch.ones_like(relative)])[:, None].float()
    pasted, (rows, columns) = _do_paste_mask(
        both, roi.float().expand(2, 4), *image.shape[:2], skip_empty=True
    )
    if not pasted.numel():
        return
    heat = pasted[0] / pasted[1].clamp(min=1e-6)
    heat = (255 * heat.clamp(0, 1)).round().byte().numpy()
    colours = cv2.applyColorMap(heat, cv2.COLORMAP_INFERNO)[..., ::-1]
    opacity = HEAT_OPACITY * pasted[1].numpy()[..., None]
    part = image[rows, columns]
    image[rows, columns] = np.rint(part * (1 - opacity) + colours * opacity)
