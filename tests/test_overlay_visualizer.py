"""Colours, labels and layers of the overlays, pixel by pixel."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from inference_files import CLASSES, instances_of
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData
from skimage.color import deltaE_ciede2000, rgb2lab

from mmdet_centermask.inference.label_plates import place_labels, plate_of
from mmdet_centermask.inference.object_colours import (
    assign_colours,
    distinct_colours,
    neighbours,
)
from mmdet_centermask.inference.overlay_visualizer import (
    HEAT_OPACITY,
    OverlayVisualizer,
    draw_heat,
    draw_labels,
    label_texts,
    line_width,
)

NOTHING = (np.zeros((0, 4), np.float32), np.zeros(0, int))


def visualizer(color_by: str = 'object', classes=CLASSES) -> OverlayVisualizer:
    made = OverlayVisualizer(color_by=color_by)
    palette = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    made.dataset_meta = dict(classes=classes, palette=palette)
    return made


def sample_of(masks: np.ndarray, labels, scores, rle: bool = True) -> DetDataSample:
    return DetDataSample(pred_instances=instances_of(masks, labels, scores, rle))


def test_colours_differ_as_people_see_them():
    """A CIEDE2000 difference of 10 is plain to see at a glance."""
    colours = distinct_colours()
    assert colours.shape == (12, 3)
    lab = rgb2lab(colours / 255)
    differences = deltaE_ciede2000(lab[:, None], lab[None])
    assert differences[~np.eye(12, dtype=bool)].min() > 10
    assert min(deltaE_ciede2000(a, b) for a, b in pairwise(lab)) > 25


def test_neighbours_get_different_colours():
    """A chessboard of 200 boxes that touch."""
    ys, xs = np.mgrid[:10, :20] * 10.0
    boxes = np.stack([xs, ys, xs + 10, ys + 10], -1).reshape(-1, 4)
    colours = assign_colours(boxes, *NOTHING, 12)
    touching = neighbours(boxes)
    assert touching.sum(1).max() == 8
    assert not (touching & (colours[:, None] == colours[None])).any()
    assert set(colours) == set(range(12))


def test_a_moving_object_keeps_its_colour_when_ranks_change():
    first = np.array([[0, 0, 20, 20], [50, 0, 70, 20], [0, 50, 20, 70]], np.float32)
    colours = assign_colours(first, *NOTHING, 12)
    np.testing.assert_array_equal(colours, [0, 1, 2])
    # All moved by 4 pixels, in another order, with a new one at the front.
    second = np.array([[90, 90, 99, 99], *(first[[2, 0, 1]] + 4)], np.float32)
    np.testing.assert_array_equal(
        assign_colours(second, first, colours, 12), [3, 2, 0, 1]
    )


def test_layers_mask_under_outline_under_box():
    """One mask of 40 x 40 in the middle, on grey 100; its box is its border."""
    masks = np.zeros((1, 100, 100), np.uint8)
    masks[0, 30:70, 30:70] = 1
    masks[0, 30:40, 30:40] = 0  # the box's corner is no mask
    sample = sample_of(masks, [0], [0.9])
    grey = np.full((100, 100, 3), 100, np.uint8)
    drawn = visualizer().draw(grey, sample)
    first = distinct_colours()[0].astype(float)
    tint = np.rint(0.55 * 100 + 0.45 * first)
    np.testing.assert_array_equal(drawn[60, 60], tint)
    np.testing.assert_array_equal(drawn[35, 35], (100, 100, 100))
    np.testing.assert_array_equal(drawn[70, 50], first)  # the lower side of the box
    np.testing.assert_array_equal(drawn[50, 30], first)  # the left one, and outline
    np.testing.assert_allclose(drawn[40, 35], first, atol=20)  # outline inside the box
    np.testing.assert_array_equal(grey, 100)


def test_bitmaps_and_rle_draw_the_same():
    masks = np.zeros((2, 60, 60), np.uint8)
    masks[0, 10:40, 10:40], masks[1, 20:50, 25:55] = 1, 1
    grey = np.full((60, 60, 3), 100, np.uint8)
    drawn = [
        visualizer().draw(grey, sample_of(masks, [0, 1], [0.9, 0.8], rle))
        for rle in (True, False)
    ]
    np.testing.assert_array_equal(*drawn)


def test_small_masks_lie_on_large_ones():
    masks = np.zeros((2, 90, 90), np.uint8)
    masks[0, 40:60, 40:60], masks[1, 20:80, 20:80] = 1, 1
    # The small one is the better one, and drawn last nevertheless.
    drawn = visualizer().draw(
        np.zeros((90, 90, 3), np.uint8), sample_of(masks, [0, 0], [0.9, 0.8])
    )
    first, second = distinct_colours()[:2].astype(float)
    np.testing.assert_allclose(
        drawn[50, 50], 0.55 * np.rint(0.45 * second) + 0.45 * first, atol=0.51
    )


def test_color_by_class_takes_the_palette():
    masks = np.zeros((2, 60, 60), np.uint8)
    masks[0, 5:25, 5:25], masks[1, 35:55, 35:55] = 1, 1
    drawn = visualizer('class').draw(
        np.zeros((60, 60, 3), np.uint8), sample_of(masks, [2, 2], [0.9, 0.8])
    )
    np.testing.assert_array_equal(drawn[15, 15], (0, 0, 90))
    np.testing.assert_array_equal(drawn[40, 45], (0, 0, 90))
    with pytest.raises(ValueError, match="color_by='size'"):
        OverlayVisualizer(color_by='size')


@pytest.mark.parametrize('color_by', ['object', 'class'])
def test_nothing_detected_leaves_the_picture(color_by):
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    sample = sample_of(np.zeros((0, 40, 50), np.uint8), [], [])
    np.testing.assert_array_equal(visualizer(color_by).draw(noise, sample), noise)


def test_classes_beyond_the_palette_get_a_colour():
    masks = np.ones((1, 30, 30), np.uint8)
    made = visualizer('class', classes=[*CLASSES, 'd', 'e', 'f'])
    drawn = made.draw(np.zeros((30, 30, 3), np.uint8), sample_of(masks, [5], [0.9]))
    assert drawn[15, 25].any()


def test_mmdet_draws_through_it_too():
    """`add_datasample` is what MMDetection's hooks and tools call."""
    masks = np.zeros((1, 64, 64), np.uint8)
    masks[0, 20:60, 20:60] = 1
    made, sample = visualizer(), sample_of(masks, [0], [0.9])
    grey = np.full((64, 64, 3), 100, np.uint8)
    made.add_datasample('a', grey, sample, draw_gt=False)
    through_mmdet = made.get_image()
    made.forget_colours()
    np.testing.assert_array_equal(through_mmdet, made.draw(grey, sample))
    truth = DetDataSample(gt_instances=sample.pred_instances)
    del truth.gt_instances.scores
    made.add_datasample('a', grey, truth, draw_pred=False)
    assert (made.get_image() != 100).any()


def test_stuff_is_tinted_and_things_are_left_to_the_instances():
    """Rows: stuff class 2, void (3), a thing of class 0."""
    segments = torch.tensor([2, 3, 1000]).repeat_interleave(20)[:, None].expand(60, 60)
    sample = sample_of(np.zeros((0, 60, 60), np.uint8), [], [])
    sample.pred_panoptic_seg = PixelData(sem_seg=segments[None])
    drawn = visualizer().draw(np.full((60, 60, 3), 100, np.uint8), sample)
    tint = np.rint(0.65 * 100 + 0.35 * np.array([0, 0, 200]))
    np.testing.assert_array_equal(drawn[10, 30], tint)
    assert (drawn[20:] == 100).all()


def test_in_a_crowd_only_large_objects_are_labelled():
    """41 boxes of 9 x 9 and one of 90 x 90; with 40 all would be."""
    corners = np.stack(np.mgrid[:6, :7], -1).reshape(-1, 2)[:41] * 20.0
    boxes = np.vstack([np.hstack([corners, corners + 9]), [[150, 20, 240, 110]]])
    colours = np.full((42, 3), 255, np.uint8)
    for count in (42, 40):
        image = np.zeros((140, 260, 3), np.uint8)
        draw_labels(image, boxes[-count:], ['0.9'] * count, colours)
        labelled = image.any(-1)
        assert labelled[:20, 150:].any()
        assert labelled[:, :145].any() == (count == 40)


def test_label_texts():
    masks = np.ones((2, 9, 9), np.uint8)
    instances = instances_of(masks, [1, 0], [0.876, 0.5])
    assert label_texts(instances, CLASSES) == ['ring 0.88', 'disc 0.50']
    assert label_texts(instances, ['nucleus'] * 2)[0] == 'nucleus 0.88'
    instances.labels[:] = 0
    assert label_texts(instances, ['nucleus']) == ['0.88', '0.50']
    assert label_texts(instances, None)[0] == 'class 0 0.88'
    del instances.scores
    assert label_texts(instances, CLASSES) == ['disc', 'disc']


def test_letters_stand_out_from_their_plate():
    for colour in distinct_colours():
        plate = plate_of('cat', 16, colour).reshape(-1, 3).astype(float)
        brightness = plate @ (0.299, 0.587, 0.114)
        own = colour @ np.array((0.299, 0.587, 0.114))
        farthest = brightness[np.abs(brightness - own).argmax()]
        assert abs(farthest - own) > 115
        # The plate itself is of the colour.
        assert (plate == colour).all(1).mean() > 0.3


def test_labels_lie_in_the_picture_and_on_no_other():
    """Boxes everywhere, some at the edges and some on each other."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(-5, 190, (60, 2))
    boxes = np.hstack([corners, corners + rng.uniform(5, 60, (60, 2))])
    sizes = np.tile([40, 12], (60, 1))
    places = place_labels(boxes, sizes, height=200, width=220)
    found = np.array([[*p, p[0] + 40, p[1] + 12] for p in places if p is not None])
    assert places[0] is not None and len(found) >= 10
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2] <= 220).all() and (found[:, 3] <= 200).all()
    meet = (found[:, None, :2] < found[None, :, 2:]).all(-1)
    meet &= meet.T
    assert meet.sum() == len(found)


def test_where_a_label_goes():
    size = np.array([[30, 10]])
    above, below, inside = (
        place_labels(np.array([box]), size, 100, 100)[0]
        for box in ([20.4, 40, 60, 80], [20, 3, 60, 80], [20, 3, 60, 97])
    )
    assert above == (20, 30)
    assert below == (20, 80)
    assert inside == (20, 3)
    # Moved left, so as not to leave the picture.
    assert place_labels(np.array([[90, 50, 99, 60]]), size, 100, 100) == [(70, 40)]
    assert place_labels(np.array([[0, 0, 8, 8]]), size, 8, 100) == [None]


def test_lines_grow_with_the_picture():
    sides = (100, 600, 1000, 2160)
    assert [line_width(np.zeros((s, 2 * s, 3))) for s in sides] == [1, 2, 2, 5]


def test_attention_near_one_is_told_apart():
    """Colours are even in the logits: 2 and 8 give 0.88 and 0.9997, 5 is between."""
    image = np.zeros((30, 90, 3), np.uint8)
    attention = torch.tensor([2.0, 5.0, 8.0]).sigmoid().repeat_interleave(5)
    draw_heat(image, attention.expand(5, 15), torch.tensor([0.0, 0, 90, 30]))
    shown = image[15, [15, 45, 75]].astype(float) / HEAT_OPACITY
    colours = cv2.applyColorMap(
        np.array([[0, 128, 255]], np.uint8), cv2.COLORMAP_INFERNO
    )
    np.testing.assert_allclose(shown, colours[0, :, ::-1], atol=4)


def test_attention_is_stretched_over_the_box():
    """Bright on the left, dark on the right; the RoI reaches out of the picture."""
    masks = np.zeros((1, 80, 120), np.uint8)
    masks[0, 20:60, 60:120] = 1
    instances = instances_of(masks, [0], [0.9])
    instances.rois = torch.tensor([[60.0, 20, 140, 60]])
    instances.roi_levels = torch.tensor([4])
    row = torch.linspace(0.6, 0.2, 14)
    instances.attention = row.expand(14, 14)[None]
    grey = np.full((80, 120, 3), 100, np.uint8)
    drawn = visualizer().draw_attention(grey, instances).astype(int)
    assert (drawn[5, :50] == 50).all()  # outside: grey, darkened
    middle = drawn[50, 64:116].sum(-1)
    assert (np.diff(middle) <= 6).all() and middle[0] - middle[-1] > 250
    # 120 is three quarters of the way, so that it is not yet darkest there.
    assert drawn[50, 116].sum() > 60
    # The frame tells the level: P4 is yellow.
    np.testing.assert_array_equal(drawn[60, 90], (255, 220, 60))
