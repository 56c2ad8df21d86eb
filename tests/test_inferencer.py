"""`CenterMaskInferencer` and `tools/infer.py` on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from inference_files import (
    CLASSES,
    QUICKSTART,
    noise,
    read_video,
    write_checkpoint,
    write_video,
)
from mmdet.apis import DetInferencer
from mmengine.config import Config
from pycocotools import mask as coco_mask
from tiny_centermask import tiny_config

from mmdet_centermask.experiment import ExperimentError
from mmdet_centermask.inference import (
    CenterMaskInferencer,
    Prediction,
    Skipped,
    progress,
)
from mmdet_centermask.inference.frames import Frame
from mmdet_centermask.inference.inferencer import HIGHEST_IOU
from mmdet_centermask.models.rle_masks import RLEMasks


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp('model') / 'iter_2.pth')


@pytest.fixture(scope='module')
def inferencer(checkpoint) -> CenterMaskInferencer:
    return CenterMaskInferencer(checkpoint, fast=False, show_progress=False)


def one_by_one(inferencer, pictures, score_thr=-1.0) -> list:
    """Without threads and batches."""
    samples = []
    for pixels in pictures:
        data = inferencer.collate_fn([inferencer.pipeline(pixels)])
        samples += inferencer.forward(data, score_thr)
    return samples


def assert_same(sample, other) -> None:
    a, b = sample.pred_instances, other.pred_instances
    assert len(a) == len(b)
    np.testing.assert_array_equal(a.labels, b.labels)
    for field in ('bboxes', 'scores', 'mask_scores'):
        torch.testing.assert_close(a[field], b[field], rtol=1e-4, atol=1e-3)
    for mask, other_mask in zip(a.masks, b.masks, strict=True):
        differ = (mask.to_array() != other_mask.to_array()).mean()
        assert differ < 1e-2  # the mask of a random network is frayed


def test_a_checkpoint_alone(inferencer, checkpoint):
    """Same numbers as MMDetection's inferencer, given config and weights."""
    stock = DetInferencer(
        Config.fromstring(torch.load(checkpoint)['meta']['cfg'], '.py'),
        str(checkpoint),
        show_progress=False,
    )
    wanted = stock(noise(96, 128))['predictions'][0]
    found = inferencer(noise(96, 128), score_thr=-1.0)['predictions'][0]
    assert inferencer.model.dataset_meta['classes'] == CLASSES
    assert len(found['scores']) == len(wanted['scores']) > 5
    order = np.argsort(found['scores'])[::-1]
    np.testing.assert_allclose(np.array(found['scores'])[order], wanted['scores'])
    np.testing.assert_allclose(np.array(found['bboxes'])[order], wanted['bboxes'])
    for i, mask in zip(order, wanted['masks'], strict=True):
        assert found['masks'][i] == mask
    assert found['mask_scores'] == sorted(found['mask_scores'], reverse=True)


def test_one_threshold_for_mask_scores(inferencer):
    every = one_by_one(inferencer, [noise(96, 128)])[0].pred_instances
    threshold = float(every.mask_scores[4:6].mean())
    # Box scores and mask scores would keep different ones.
    assert (every.scores >= threshold).sum() != 5
    (found,) = inferencer.stream(noise(96, 128), score_thr=threshold)
    assert len(found.instances) == 5
    torch.testing.assert_close(found.instances.mask_scores, every.mask_scores[:5])
    assert isinstance(found.instances.masks, RLEMasks)


def test_only_boxes_that_pass_the_threshold_get_masks(inferencer):
    every = one_by_one(inferencer, [noise(96, 128)])[0].pred_instances
    third = float(every.scores.sort(descending=True).values[2:4].mean())
    seen = []
    hook = inferencer.model.roi_head.mask_head.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0]))
    )
    # A predicted IoU may be a little above 1, and lift a box over the threshold.
    one_by_one(inferencer, [noise(96, 128)], third * HIGHEST_IOU)
    hook.remove()
    assert seen == [3]


def test_a_stream_in_batches_is_the_sequence(inferencer, tmp_path):
    """Pictures of several sizes and a video, in order, batches across them."""
    frames = [noise(64, 96, k) for k in range(5)]
    video = write_video(tmp_path / 'v.avi', frames)
    pictures = [noise(80, 80, 20), noise(64, 128, 21)]
    mixed = [pictures[0], str(video), np.zeros((4, 4)), pictures[1]]
    stream = list(inferencer.stream(mixed, batch_size=3, score_thr=-1.0))
    names = [p.frame.name if isinstance(p, Prediction) else p.name for p in stream]
    assert names == [
        'array_000000', *(f'v/{k:06d}' for k in range(5)), 'array_000002',
        'array_000003',
    ]  # fmt: skip
    assert isinstance(stream[6], Skipped)
    predictions = [item for item in stream if isinstance(item, Prediction)]
    pixels = [p.frame.pixels for p in predictions]
    np.testing.assert_array_equal(pixels[0], pictures[0])
    for prediction, alone in zip(
        predictions, one_by_one(inferencer, pixels), strict=True
    ):
        assert_same(prediction.sample, alone)
        assert len(prediction.instances) > 0


def test_an_error_of_the_network_reaches_the_caller(inferencer, monkeypatch):
    def fail(*args):
        raise RuntimeError('out of memory')

    stream = inferencer.stream([noise(64, 64)] * 9, batch_size=2)
    monkeypatch.setattr(inferencer.model, 'test_step', fail)
    with pytest.raises(RuntimeError, match='out of memory'):
        list(stream)


def test_attention_is_what_the_mask_head_applies(inferencer):
    """Against equations 2 to 4, by hand, of the boxes' RoI features."""
    pictures = [noise(96, 128), noise(96, 128, 1), noise(128, 96, 2)]
    found = list(
        inferencer.stream(pictures, batch_size=2, score_thr=0.0, attention=True)
    )
    model, head = inferencer.model, inferencer.model.roi_head
    levels_seen = set()
    for pixels, prediction in zip(pictures, found, strict=True):
        instances = prediction.instances
        data = model.data_preprocessor(
            inferencer.collate_fn([inferencer.pipeline(pixels)])
        )
        with torch.no_grad():
            maps = model.extract_feat(data['inputs'])
            rois = torch.cat([torch.zeros(len(instances), 1), instances.rois], 1)
            areas = torch.tensor([96.0 * 128])
            x = head.mask_roi_extractor(maps[:3], rois, image_areas=areas)
            for conv in head.mask_head.convs:
                x = conv(x)
            weight = head.mask_head.spatial_attention.conv.weight
            pooled = torch.stack([x.mean(1), x.max(1).values], 1)
            wanted = torch.nn.functional.conv2d(pooled, weight, padding=1).sigmoid()
        torch.testing.assert_close(
            instances.attention, wanted[:, 0], rtol=1e-3, atol=1e-4
        )
        sides = (instances.rois[:, 2:] - instances.rois[:, :2]).double()
        share = sides.prod(1) / (96 * 128)
        levels = torch.ceil(5 + torch.log2(share)).clamp(3, 5).long()
        assert instances.roi_levels.tolist() == levels.tolist()
        levels_seen |= set(levels.tolist())
        # Two boxes of the batch may be alike, but the maps of the pictures are not.
        clipped = instances.rois.clamp(min=0)
        height, width = pixels.shape[:2]
        clipped = torch.minimum(clipped, torch.tensor([width, height] * 2))
        torch.testing.assert_close(clipped, instances.bboxes)
    assert len(levels_seen) > 1
    hooks = head.mask_head.spatial_attention._forward_hooks
    assert not hooks and not head.mask_roi_extractor._forward_pre_hooks


def test_attention_of_a_detector_without_it(inferencer, monkeypatch):
    monkeypatch.setattr(inferencer, 'model', torch.nn.Linear(1, 1))
    with pytest.raises(ExperimentError, match='Linear has no SAG-Mask head'):
        inferencer.stream(noise(64, 64), attention=True)


def test_video_in_video_out(inferencer, tmp_path):
    video = write_video(tmp_path / 'in.mp4', [noise(64, 96, k) for k in range(9)], 12.5)
    result = inferencer(
        video,
        batch_size=4,
        out_dir=tmp_path / 'out',
        attention=True,
        score_thr=0.0,
        return_vis=True,
    )
    assert len(result['predictions']) == 9 and result['skipped'] == []
    for folder in ('overlays', 'attention'):
        frames, fps = read_video(tmp_path / 'out' / folder / 'in.mp4')
        assert len(frames) == 9
        assert fps == pytest.approx(12.5)
        assert frames[0].shape == (64, 96, 3)
    # Each written frame is the drawn one, but for compression, and no other.
    drawn = np.array(result['visualization'])[..., ::-1].astype(float)
    written, _ = read_video(tmp_path / 'out' / 'overlays' / 'in.mp4')
    differences = np.abs(drawn[:, None] - np.array(written)[None]).mean((2, 3, 4))
    assert differences.argmin(0).tolist() == list(range(9))
    assert differences.diagonal().max() < 35 < differences[0, 1:].min()
    results = json.loads((tmp_path / 'out' / 'coco_results.json').read_text())
    assert {r['image_id'] for r in results} == set(range(1, 10))


def test_nothing_detected(inferencer, tmp_path):
    save = ('overlay', 'coco', 'polygons', 'labelme', 'instances')
    result = inferencer(
        noise(64, 96), score_thr=2.0, out_dir=tmp_path, save=save, attention=True
    )
    (prediction,) = result['predictions']
    assert prediction == dict(labels=[], scores=[], bboxes=[], masks=[], mask_scores=[])
    assert json.loads((tmp_path / 'coco_results.json').read_text()) == []
    polygons = json.loads((tmp_path / 'coco_annotations.json').read_text())
    assert polygons['annotations'] == [] and len(polygons['images']) == 1
    assert (tmp_path / 'overlays' / 'array_000000.jpg').is_file()
    assert not cv2.imread(str(tmp_path / 'instances' / 'array_000000.png'), -1).any()


def test_samples_instead_of_dicts(inferencer):
    result = inferencer(noise(64, 96), return_datasamples=True, score_thr=0.0)
    (sample,) = result['predictions']
    masks = sample.pred_instances.masks
    assert masks.to_tensor(torch.bool).shape == (len(masks), 64, 96)


def test_fast_finds_the_same(checkpoint, inferencer):
    fast = CenterMaskInferencer(checkpoint, show_progress=False)
    assert fast.model is not inferencer.model
    assert fast.model.state_dict().keys() == inferencer.model.state_dict().keys()
    (prediction,) = fast.stream(noise(96, 128), score_thr=0.0, attention=True)
    assert prediction.instances.attention.dtype == torch.float32
    (wanted,) = one_by_one(inferencer, [noise(96, 128)])
    best = wanted.pred_instances
    found = prediction.instances
    # The random network is jumpy in bfloat16; its best answers stay.
    assert abs(float(found.mask_scores[0] - best.mask_scores[0])) < 0.05


def test_config_by_name_needs_its_weights_to_fit(checkpoint):
    with pytest.raises(ExperimentError, match=r'does not fit the config: \d+ of \d+'):
        CenterMaskInferencer('centermask_v39_fpn_ms-3x_coco', checkpoint, fast=False)
    with pytest.raises(ExperimentError, match='similar names: centermask_v39_fpn'):
        CenterMaskInferencer('centermask_v39_fpm_ms-3x_coco', checkpoint)
    with pytest.raises(ExperimentError, match=r"checkpoint='no\.pth' is not a file"):
        CenterMaskInferencer('no.pth')


def test_config_options(checkpoint):
    """Pictures at half the size, and fewer answers."""
    options = {
        'model.test_cfg.bbox.max_per_img': 3,
        'test_dataloader.dataset.pipeline.1.scale_factor': 0.5,
    }
    made = CenterMaskInferencer(
        checkpoint, fast=False, show_progress=False, cfg_options=options
    )
    assert made.pipeline(noise(96, 128))['inputs'].shape == (3, 48, 64)
    (found,) = made.stream(noise(96, 128), score_thr=-1.0)
    assert 0 < len(found.instances) <= 3
    assert found.instances.masks.size == (96, 128)
    with pytest.raises(ExperimentError, match='cfg_options: .*99'):
        bad = {'test_dataloader.dataset.pipeline.99.scale_factor': 1}
        CenterMaskInferencer(checkpoint, fast=False, cfg_options=bad)


def test_config_by_path_with_weights_without_classes(tmp_path, checkpoint):
    """Class names come from the config then, as far as it has them."""
    cfg = Config.fromfile(QUICKSTART)
    cfg.model = tiny_config(len(CLASSES))
    cfg.test_dataloader.dataset.metainfo = dict(classes=('a', 'b'))
    cfg.dump(tmp_path / 'mine.py')
    bare = tmp_path / 'bare.pth'
    torch.save(torch.load(checkpoint)['state_dict'], bare)
    made = CenterMaskInferencer(tmp_path / 'mine.py', bare, fast=False)
    assert list(made.model.dataset_meta['classes']) == ['a', 'b', 'class 2']


@pytest.mark.parametrize('content', [b'<html>', b'', b'PK\x03\x04 cut'])
def test_a_file_that_is_no_checkpoint(tmp_path, content):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=r'a\.pth: truncated, damaged or'):
        CenterMaskInferencer(path)


def load_tool(repository) -> ModuleType:
    path = repository / 'tools' / 'infer.py'
    spec = importlib.util.spec_from_file_location('infer', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('promised', [8, None])
def test_the_bar_ends_whatever_a_video_promised(monkeypatch, capsys, promised):
    """A damaged stretch of four frames is one report."""
    monkeypatch.setattr(progress, 'frame_count', lambda source: promised)
    items = ['frame', 'frame', 'skipped', 'frame', 'frame']
    assert list(progress.with_progress(iter(items), ['a.mp4'])) == items
    assert '100%' in capsys.readouterr().out


def test_the_command(repository, checkpoint, tmp_path, capsys):
    """A folder with a damaged picture and another file, and an unreachable URL."""
    folder = tmp_path / 'in'
    folder.mkdir()
    for k in range(3):
        cv2.imwrite(str(folder / f'{k}.png'), noise(64, 96, k))
    (folder / '1.png').write_bytes(b'\x89PNG')
    (folder / 'notes.txt').write_text('')
    url = 'http://127.0.0.1:9/a.jpg'
    out = tmp_path / 'out'
    load_tool(repository).main(
        [str(checkpoint), str(folder), url, '--out-dir', str(out), '--no-fast',
         '--score-thr', '0', '--save', 'instances', 'coco', '--batch-size', '2']
    )  # fmt: skip
    said = capsys.readouterr()
    results = json.loads((out / 'coco_results.json').read_text())
    counts = [sum(r['category_id'] == i for r in results) for i in (1, 2, 3)]
    for count, name in zip(counts, CLASSES, strict=True):
        assert not count or f'{count} {name}' in said.out
    assert 'in 2 pictures, 0 of them empty' in said.out and '3 skipped' in said.out
    assert f'skipped {folder}/1.png: not a picture, or damaged\n' in said.err
    assert f'skipped {folder}: neither picture nor video: notes.txt\n' in said.err
    assert f'skipped {url}: cannot be reached' in said.err
    first = [r for r in results if r['image_id'] == 1]
    numbers = cv2.imread(str(out / 'instances' / '0.png'), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(
        numbers == 1, coco_mask.decode(first[0]['segmentation'])
    )
    assert not (out / 'overlays').exists()


def test_the_command_refuses_in_one_line(repository, checkpoint, tmp_path):
    main = load_tool(repository).main
    with pytest.raises(SystemExit, match='nothing to look at: no.jpg: there is no'):
        main([str(checkpoint), 'no.jpg'])
    with pytest.raises(SystemExit, match='add --checkpoint'):
        main(['centermask_v39_fpn_ms-3x_coco', str(checkpoint)])


def test_an_absent_camera_is_one_line(repository, checkpoint, tmp_path, capfd):
    """OpenCV has half a page to say about it."""
    out = ['--out-dir', str(tmp_path), '--no-fast']
    with pytest.raises(SystemExit, match='read: camera_63: there is no such camera'):
        load_tool(repository).main([str(checkpoint), '63', *out])
    assert 'VIDEOIO' not in capfd.readouterr().err


def test_ctrl_c_ends_a_run_as_if_it_were_complete(
    repository, checkpoint, tmp_path, capsys, monkeypatch
):
    """A camera gives three frames, then the person stops."""
    from mmdet_centermask.inference import command

    add = command.Tally.add

    def stop_at_three(self, item):
        add(self, item)
        if self.frames == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.Tally, 'add', stop_at_three)
    pictures = tmp_path / 'in'
    pictures.mkdir()
    for k in range(20):
        cv2.imwrite(str(pictures / f'{k:02d}.png'), noise(64, 64, k))
    load_tool(repository).main(
        [
            str(checkpoint),
            str(pictures),
            '--out-dir',
            str(tmp_path / 'out'),
            '--no-fast',
        ]
    )
    assert 'in 3 pictures' in capsys.readouterr().out
    images = json.loads((tmp_path / 'out' / 'coco_images.json').read_text())
    assert [i['file_name'] for i in images['images']] == ['00.png', '01.png', '02.png']
    json.loads((tmp_path / 'out' / 'coco_results.json').read_text())


def test_help_needs_no_torch(repository):
    """mim asks for it; without site-packages only a late import can answer."""
    done = subprocess.run(
        [sys.executable, '-I', '-S', repository / 'tools' / 'infer.py', '-h'],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and '--attention' in done.stdout


def test_frames_are_seen_in_the_order_of_the_config(inferencer):
    """Pixels reach the network as the stock pipeline packs them: BGR planes."""
    pixels = noise(64, 96)
    packed = inferencer.pipeline(pixels)
    np.testing.assert_array_equal(packed['inputs'].permute(1, 2, 0), pixels)
    assert isinstance(next(inferencer.stream(pixels)).frame, Frame)


def test_attention_behind_a_stock_roi_head():
    """Mask R-CNN with SAG-Mask: levels by FPN's rule, k = 4 + log2(side / 224)."""
    made = CenterMaskInferencer(
        'mask-rcnn_v39_fpn_sag-mask_ms-3x_coco',
        fast=False,
        show_progress=False,
        cfg_options={
            'model.backbone.arch': 'V-19-slim-dw',
            'model.backbone.init_cfg': None,
            'model.neck.in_channels': [112, 256, 384, 512],
            'model.test_cfg.rpn.max_per_img': 20,
            'model.test_cfg.rcnn.score_thr': 0.0,
            'model.test_cfg.rcnn.max_per_img': 6,
            'test_dataloader.dataset.pipeline.1.scale': (256, 128),
        },
    )
    (found,) = made.stream(noise(64, 128), score_thr=0.0, attention=True)
    instances = found.instances
    assert 0 < len(instances) <= 6
    assert instances.attention.shape[1:] == (14, 14)
    assert ((instances.attention > 0) & (instances.attention < 1)).all()
    sides = (instances.rois[:, 2:] - instances.rois[:, :2]).prod(1).sqrt() * 2
    wanted = torch.floor(4 + torch.log2(sides / 224 + 1e-6)).clamp(2, 5)
    assert instances.roi_levels.tolist() == wanted.tolist()
    (view,) = made.visualize([found.frame], [found.sample], attention=True)
    assert view.shape == (64, 128, 3)


def test_panoptic():
    """Stuff is tinted, the map comes along, instances are as ever."""
    made = CenterMaskInferencer(
        'panoptic-centermask_v19-slim-dw_fpn_quickstart',
        fast=False,
        show_progress=False,
    )
    pixels = noise(64, 96)
    # Told so, random weights see things everywhere, none of them sure, so void (7);
    # then the second stuff class.
    for bias, label, change in ((-99, 7, 0), (99, 6, 0.9)):
        made.model.semantic_head.conv_logits.bias.data[:2] = torch.tensor([-99, bias])
        result = made(pixels, return_vis=True, score_thr=0.5)
        (prediction,), (drawn,) = result['predictions'], result['visualization']
        assert prediction['labels'] == []
        np.testing.assert_array_equal(
            prediction['panoptic_seg'], np.full((64, 96), label)
        )
        assert (drawn != pixels[..., ::-1]).any(-1).mean() >= change
        assert change or (drawn == pixels[..., ::-1]).all()
