"""What lies on disk afterwards, read back with other libraries."""

from __future__ import annotations

import contextlib
import csv
import io
import json

import cv2
import numpy as np
import pytest
import torch
from inference_files import (
    CLASSES,
    frame_of,
    instances_of,
    noise,
    read_video,
)
from mmdet.structures import DetDataSample
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_centermask.experiment import ExperimentError
from mmdet_centermask.inference.coco_writers import (
    CocoPolygonsWriter,
    CocoResultsWriter,
)
from mmdet_centermask.inference.frames import Frame
from mmdet_centermask.inference.instance_map_writer import InstanceMapWriter
from mmdet_centermask.inference.labelme_writer import LabelmeWriter
from mmdet_centermask.inference.outputs import Outputs
from mmdet_centermask.inference.overlay_writer import OverlayWriter
from mmdet_centermask.inference.prediction import Prediction
from mmdet_centermask.inference.sources import Source


def three_masks(size=(24, 32)) -> np.ndarray:
    """Two that overlap in two columns, one apart."""
    masks = np.zeros((3, *size), np.uint8)
    masks[0, 2:10, 4:12] = 1
    masks[1, 2:10, 10:20] = 1
    masks[2, 14:22, 20:30] = 1
    return masks


def three(rle: bool = True):
    return instances_of(three_masks(), [2, 0, 2], [0.9, 0.8, 0.7], rle)


def quietly(action, *args):
    with contextlib.redirect_stdout(io.StringIO()):
        return action(*args)


@pytest.mark.parametrize('rle', [True, False])
def test_coco_results_are_a_perfect_answer_to_themselves(tmp_path, rle):
    writer = CocoResultsWriter(tmp_path, CLASSES)
    assert writer.write(frame_of('a.jpg'), three(rle)) is None
    assert writer.write(frame_of('b.jpg'), three(rle)[:0]) is None
    writer.close()

    truth = json.loads((tmp_path / 'coco_images.json').read_text())
    assert [i['file_name'] for i in truth['images']] == ['a.jpg', 'b.jpg']
    assert truth['images'][1] == dict(id=2, file_name='b.jpg', width=32, height=24)
    results = json.loads((tmp_path / 'coco_results.json').read_text())
    assert [r['image_id'] for r in results] == [1, 1, 1]
    assert [r['category_id'] for r in results] == [3, 1, 3]
    assert [r['score'] for r in results] == [0.9, 0.8, 0.7]
    assert results[1]['bbox'] == [10, 2, 10, 8]

    truth['annotations'] = [
        dict(id=i, image_id=1, category_id=[3, 1, 3][i - 1], iscrowd=0,
             area=int(mask.sum()), bbox=results[i - 1]['bbox'],
             segmentation=results[i - 1]['segmentation'])
        for i, mask in enumerate(three_masks(), 1)
    ]  # fmt: skip
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    coco = quietly(COCO, str(tmp_path / 'truth.json'))
    found = quietly(coco.loadRes, str(tmp_path / 'coco_results.json'))
    for i, mask in enumerate(three_masks(), 1):
        np.testing.assert_array_equal(found.annToMask(found.anns[i]), mask)
    for kind in ('bbox', 'segm'):
        evaluation = COCOeval(coco, found, kind)
        for step in ('evaluate', 'accumulate', 'summarize'):
            quietly(getattr(evaluation, step))
        assert evaluation.stats[0] == 1


def test_coco_ids_of_a_file(tmp_path):
    """Pictures 17 and 4, classes in another order; `c.jpg` is not among them."""
    ann_file = tmp_path / 'val.json'
    images = [dict(id=17, file_name='x/a.jpg'), dict(id=4, file_name='b.png')]
    categories = [dict(id=9 - i, name=name) for i, name in enumerate(CLASSES)]
    ann_file.write_text(json.dumps(dict(images=images, categories=categories)))
    writer = CocoResultsWriter(tmp_path, CLASSES, str(ann_file))
    for name in ('b.jpg', 'a.jpg'):
        assert writer.write(frame_of(name), three()[:2]) is None
    said = writer.write(frame_of('c.jpg'), three())
    writer.close()
    assert said == 'not in the COCO file, so not in coco_results.json'
    results = json.loads((tmp_path / 'coco_results.json').read_text())
    assert [r['image_id'] for r in results] == [4, 4, 17, 17]
    assert [r['category_id'] for r in results] == [7, 9, 7, 9]
    assert not (tmp_path / 'coco_images.json').exists()


def test_coco_files_that_do_not_fit_are_refused(tmp_path):
    ann_file = tmp_path / 'val.json'
    categories = [dict(id=1, name='disc'), dict(id=2, name='star')]
    ann_file.write_text(json.dumps(dict(images=[], categories=categories)))
    with pytest.raises(ExperimentError, match="val.json' has no class 'ring'"):
        CocoResultsWriter(tmp_path, CLASSES, str(ann_file))
    ann_file.write_text('[1]')
    with pytest.raises(ExperimentError, match='cannot be read as a COCO file'):
        CocoResultsWriter(tmp_path, CLASSES, str(ann_file))
    with pytest.raises(ExperimentError, match='No such file'):
        CocoResultsWriter(tmp_path, CLASSES, str(tmp_path / 'no.json'))


def test_coco_polygons(tmp_path):
    masks = three_masks()
    masks[2, 2:5, 2:4] = 1  # a second part
    masks = np.concatenate([masks, np.zeros((1, 24, 32), np.uint8)])
    writer = CocoPolygonsWriter(tmp_path, CLASSES)
    writer.write(frame_of(), instances_of(masks, [2, 0, 2, 1], [0.9, 0.8, 0.7, 0.6]))
    writer.close()
    coco = quietly(COCO, str(tmp_path / 'coco_annotations.json'))
    assert len(coco.anns) == 3  # the empty mask has no outline
    assert [len(a['segmentation']) for a in coco.anns.values()] == [1, 1, 2]
    for annotation, mask in zip(coco.anns.values(), masks, strict=False):
        drawn = coco.annToMask(annotation)
        assert (drawn & mask).sum() / (drawn | mask).sum() > 0.95
        assert annotation['area'] == mask.sum()
        assert annotation['iscrowd'] == 0
    assert coco.anns[2]['bbox'] == [10, 2, 10, 8]
    assert coco.loadCats(coco.anns[1]['category_id'])[0]['name'] == 'star'


def test_labelme_files(tmp_path):
    """labelme finds the picture from the folder of the file."""
    masks = three_masks()
    masks[2, 2:5, 2:4] = 1
    (tmp_path / 'in').mkdir()
    picture = tmp_path / 'in' / 'a.jpg'
    cv2.imwrite(str(picture), noise(24, 32))
    writer = LabelmeWriter(tmp_path / 'out', CLASSES)
    frame = Frame(Source('a.jpg', str(picture)), noise(24, 32))
    writer.write(frame, instances_of(masks, [2, 0, 2], [0.9, 0.8, 0.7]))
    writer.close()
    path = tmp_path / 'out' / 'labelme' / 'a.json'
    content = json.loads(path.read_text())
    assert (path.parent / content['imagePath']).resolve() == picture
    assert (content['imageHeight'], content['imageWidth']) == (24, 32)
    shapes = content['shapes']
    assert [s['label'] for s in shapes] == ['star', 'disc', 'star', 'star']
    assert [s['group_id'] for s in shapes] == [None, None, 2, 2]
    assert {s['shape_type'] for s in shapes} == {'polygon'}
    assert shapes[0]['description'] == 'score 0.900'
    x, y = np.array(shapes[1]['points']).T
    np.testing.assert_allclose([x.min(), x.max()], [10, 20], atol=0.01)
    np.testing.assert_allclose([y.min(), y.max()], [2, 10], atol=0.01)


def test_labelme_keeps_pictures_that_are_no_files(tmp_path):
    writer = LabelmeWriter(tmp_path, CLASSES)
    writer.write(Frame(Source('array_000000', noise(24, 32)), noise(24, 32)), three())
    writer.write(Frame(Source('v.mp4', 'v.mp4'), noise(24, 32, 1), 5, 25.0), three())
    for name, seed in (('array_000000', 0), ('v/000005', 1)):
        path = tmp_path / 'labelme' / f'{name}.json'
        picture = path.parent / json.loads(path.read_text())['imagePath']
        np.testing.assert_array_equal(cv2.imread(str(picture)), noise(24, 32, seed))


def test_instance_maps(tmp_path):
    """Where two overlap, the better one shows."""
    writer = InstanceMapWriter(tmp_path, CLASSES)
    writer.write(frame_of('a.jpg'), three())
    writer.write(frame_of('b.jpg'), three()[:0])
    writer.close()
    truth = np.zeros((24, 32), int)
    truth[2:10, 4:12], truth[2:10, 12:20], truth[14:22, 20:30] = 1, 2, 3
    picture = Image.open(tmp_path / 'instances' / 'a.png')
    assert picture.mode == 'I;16'
    np.testing.assert_array_equal(np.asarray(picture), truth)
    assert not np.asarray(Image.open(tmp_path / 'instances' / 'b.png')).any()
    with (tmp_path / 'instances.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(r['picture'], r['number'], r['class'], r['pixels']) for r in rows] == [
        ('a', '1', 'star', '64'), ('a', '2', 'disc', '64'), ('a', '3', 'star', '80'),
    ]  # fmt: skip
    assert rows[1]['score'] == '0.8000'
    assert [float(rows[1][k]) for k in ('x1', 'y1', 'x2', 'y2')] == [10, 2, 20, 10]


def test_more_objects_than_a_byte_holds(tmp_path):
    """Each pixel of a row is an object of its own."""
    masks = np.eye(300, dtype=np.uint8).reshape(300, 1, 300)
    writer = InstanceMapWriter(tmp_path, CLASSES)
    scores = np.linspace(1, 0.5, 300).tolist()
    writer.write(frame_of('a.jpg', 1, 300), instances_of(masks, [0] * 300, scores))
    written = np.asarray(Image.open(tmp_path / 'instances' / 'a.png'))
    np.testing.assert_array_equal(written[0], np.arange(1, 301))


def video_frame(index: int, name: str = 'v.mp4') -> Frame:
    pixels = np.zeros((32, 48, 3), np.uint8)
    return Frame(Source(name, name), pixels, index, 23.976)


def test_a_video_has_the_rate_and_the_frames_of_its_source(tmp_path):
    """Frames 3 and 4 could not be decoded: frame 2 stays."""
    writer = OverlayWriter(tmp_path)
    source = video_frame(0).source
    for index in (0, 1, 2, 5, 6):
        frame = Frame(source, video_frame(0).pixels, index, 23.976)
        grey = np.full((32, 48, 3), 30 * index, np.uint8)
        assert writer.write(frame, grey) is None
    writer.close()
    frames, fps = read_video(tmp_path / 'v.mp4')
    assert fps == pytest.approx(23.976, abs=1e-3)
    assert [round(f.mean() / 30) for f in frames] == [0, 1, 2, 2, 2, 5, 6]


def test_two_videos_are_two_files_and_pictures_keep_their_kind(tmp_path):
    writer = OverlayWriter(tmp_path)
    for frame in (
        video_frame(0, 'a.mp4'),
        video_frame(0, 'b.avi'),
        frame_of('c.png'),
        frame_of('d/e.webp'),
    ):
        writer.write(frame, frame.pixels)
    writer.close()
    written = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.*')}
    assert written == {'a.mp4', 'b.mp4', 'c.png', 'd/e.jpg'}
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / 'c.png')), frame_of().pixels
    )


def test_a_video_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / 'v.mp4').mkdir()
    writer = OverlayWriter(tmp_path)
    said = writer.write(video_frame(0), video_frame(0).pixels)
    assert said == f'OpenCV cannot write {tmp_path}/v.mp4 (codec mp4v)'


def test_outputs_refuse_what_they_do_not_know(tmp_path):
    with pytest.raises(ExperimentError, match="save='cocoo' is unknown"):
        Outputs(tmp_path, ['cocoo'], CLASSES)
    boxes_only = three()
    del boxes_only.masks
    prediction = Prediction(frame_of(), DetDataSample(pred_instances=boxes_only))
    for name in ('labelme', 'instances', 'polygons'):
        outputs = Outputs(tmp_path, [name], CLASSES)
        with pytest.raises(ExperimentError, match='gives no masks'):
            list(outputs.add(prediction))
        outputs.close()


def test_a_detector_without_masks_gives_coco_boxes(tmp_path):
    boxes_only = three()
    del boxes_only.masks
    boxes_only.mask_scores = torch.tensor([0.9, 0.8, 0.7])
    outputs = Outputs(tmp_path, ['coco'], CLASSES)
    sample = DetDataSample(pred_instances=boxes_only)
    assert list(outputs.add(Prediction(frame_of(), sample))) == []
    outputs.close()
    results = json.loads((tmp_path / 'coco_results.json').read_text())
    assert [set(r) for r in results] == [
        {'image_id', 'category_id', 'bbox', 'score'}
    ] * 3


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = Outputs('', ['overlay', 'coco', 'instances'], CLASSES)
    sample = DetDataSample(pred_instances=three())
    prediction = Prediction(frame_of(), sample, frame_of().pixels)
    assert list(outputs.add(prediction)) == []
    outputs.close()
    assert not list(tmp_path.iterdir())
