"""Ground truth at the edge of what makes sense: finite losses, finite gradients."""

import math

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData
from tiny_centermask import batch_of, picture, talkative, tiny_model, total

from mmdet_centermask.models import empty_objects
from mmdet_centermask.models.empty_objects import has_area, without_empty_objects

SIDE = 96
GOOD = (8.0, 8.0, 40.0, 48.0)


@pytest.fixture(autouse=True)
def counter():
    """A counter of one's own."""
    hub = MessageHub.get_current_instance()
    hub.runtime_info.pop(empty_objects.COUNTER, None)
    yield lambda: hub.runtime_info.get(empty_objects.COUNTER, 0)
    hub.runtime_info.pop(empty_objects.COUNTER, None)
    hub.log_scalars.pop(f'train/{empty_objects.COUNTER}', None)


def objects(boxes, masks=None, side=SIDE):
    """Instances with those boxes; masks fill them where none are given."""
    if masks is None:
        masks = np.zeros((len(boxes), side, side), np.uint8)
        for mask, box in zip(masks, boxes, strict=True):
            if all(map(math.isfinite, box)):
                x1, y1, x2, y2 = (round(min(max(v, 0), side)) for v in box)
                mask[y1:y2, x1:x2] = 1
    return InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.arange(len(boxes)) % 3,
        masks=BitmapMasks(masks, side, side),
    )


def scene(instances, ignored=None, side=SIDE):
    pixels, sample = picture(side, side, boxes=())
    sample.gt_instances = instances
    if ignored is not None:
        sample.ignored_instances = ignored
    return pixels, sample


def many(count=500):
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, SIDE - 12, (count, 2))
    return np.hstack([corners, corners + rng.uniform(2, 12, (count, 2))]).tolist()


ONE_PIXEL = (50.0, 60.0, 51.0, 61.0)
SCENES = {
    'no objects': lambda: scene(objects([])),
    'crowds only': lambda: scene(objects([]), objects([GOOD, (50, 50, 80, 90)])),
    'one pixel': lambda: scene(objects([ONE_PIXEL])),
    'one pixel among others': lambda: scene(objects([GOOD, ONE_PIXEL])),
    'a mask of one pixel in a large box': lambda: scene(
        objects([GOOD], objects([ONE_PIXEL]).masks.masks)
    ),
    '500 objects': lambda: scene(objects(many())),
    'outside of the picture': lambda: scene(
        objects([GOOD, (200, 200, 240, 260), (-90, -50, -40, -10)])
    ),
    'partly outside': lambda: scene(objects([(-40, -30, 20, 25), (80, 70, 150, 190)])),
    'the whole picture': lambda: scene(objects([(0, 0, SIDE, SIDE)])),
    'thinner than a pixel': lambda: scene(
        objects([(10, 10, 10.01, 60)], objects([(10, 10, 11, 60)]).masks.masks)
    ),
    'without width': lambda: scene(objects([GOOD, (20, 20, 20, 60)])),
    'turned inside out': lambda: scene(objects([GOOD, (60, 60, 20, 20)])),
    'not a number': lambda: scene(objects([GOOD, (math.nan, 1, 9, 9)])),
    'infinite': lambda: scene(objects([GOOD, (0, 0, math.inf, 9)])),
    'the same object fifty times': lambda: scene(objects([GOOD] * 50)),
}
DROPPED = {
    'outside of the picture': 2,
    'without width': 1,
    'turned inside out': 1,
    'not a number': 1,
    'infinite': 1,
}


@pytest.fixture(scope='module')
def model():
    return talkative(tiny_model()).train()


@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', SCENES)
def test_losses_and_gradients_are_finite(model, name, precision, counter):
    batch = batch_of(model, SCENES[name](), training=True)
    model.zero_grad()
    amp = precision == 'bfloat16'
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=amp):
        losses = model(*batch, mode='loss')
    assert all(value.isfinite().all() for value in losses.values()), losses
    total(losses).backward()
    grads = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in grads)
    assert counter() == DROPPED.get(name, 0)


def test_dropped_objects_change_nothing(model):
    """The same losses as without them, to the last bit."""
    torch.manual_seed(0)
    without = model(
        *batch_of(model, scene(objects([GOOD])), training=True), mode='loss'
    )
    for name in DROPPED:
        torch.manual_seed(0)
        batch = batch_of(model, SCENES[name](), training=True)
        losses = model(*batch, mode='loss')
        assert all(torch.equal(losses[key], without[key]) for key in without), name
        # The samples that came in are as they were.
        assert len(batch[1][0].gt_instances) > 1


def test_flags_of_boxes_and_masks():
    boxes = [GOOD, (5, 5, 5, 9), (9, 5, 5, 9), (0, 0, 3, math.inf), GOOD]
    masks = objects([GOOD] * 5).masks.masks
    masks[4] = 0
    expected = [True, False, False, False, False]
    assert has_area(objects(boxes, masks)).tolist() == expected
    # Half as wide is still an object, one pixel in the last corner a mask.
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    masks[0, -1, -1] = masks[1, 0, 0] = 1
    assert has_area(objects([(1, 1, 1.5, 2), GOOD], masks)).all()
    assert has_area(objects([])).shape == (0,)


def test_flags_of_polygons():
    square = [np.array([0.0, 0, 4, 0, 4, 4, 0, 4])]
    line = [np.array([0.0, 0, 4, 0, 8, 0])]
    instances = InstanceData(
        bboxes=torch.tensor([GOOD, GOOD]),
        masks=PolygonMasks([square, line], SIDE, SIDE),
    )
    assert has_area(instances).tolist() == [True, False]


def test_boxes_without_masks_are_judged_by_their_box():
    instances = InstanceData(bboxes=torch.tensor([GOOD, (5.0, 5, 5, 9)]))
    assert has_area(instances).tolist() == [True, False]


def test_counter_adds_up_and_warns_once(monkeypatch, counter):
    said = []
    monkeypatch.setattr(empty_objects, 'print_log', lambda text, **_: said.append(text))
    good = DetDataSample(gt_instances=objects([GOOD]), metainfo=dict(img_id=3))
    bad = DetDataSample(
        gt_instances=objects([GOOD, (5, 5, 5, 9), (7, 7, 7, 7)]),
        metainfo=dict(img_id=8),
    )
    assert without_empty_objects([good])[0] is good
    assert counter() == 0 and not said
    for times in (1, 2):
        kept = without_empty_objects([good, bad])
        assert [len(sample.gt_instances) for sample in kept] == [1, 1]
        assert len(bad.gt_instances) == 3
        assert counter() == 2 * times
    assert len(said) == 1 and '{8: 2}' in said[0]
    # The log shows the number so far.
    history = MessageHub.get_current_instance().log_scalars['train/dropped_objects']
    assert history.current() == 4
