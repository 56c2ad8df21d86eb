"""The optimized detector answers like the one it came from, which stays as it was."""

import copy
import sys

import pytest
import torch
from mmengine.registry import init_default_scope
from tiny_centermask import batch_of, picture, talkative, tiny_model

from mmdet_centermask import optimize
from mmdet_centermask.speed import FastInferenceHook
from mmdet_centermask.speed.packed_conv import PackedConv2d, can_pack
from mmdet_centermask.speed.separable_roi_extractor import SeparableRoIExtractor


@pytest.fixture(scope='module')
def model():
    return lively(talkative(tiny_model())).eval()


def lively(model):
    """Norms with statistics that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(3)
    for norm in model.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.running_var.uniform_(0.5, 2, generator=generator)
            norm.running_mean.normal_(0, 0.1, generator=generator)
    return model


def predict(model, *pictures):
    data = dict(
        inputs=[pixels for pixels, _ in pictures],
        data_samples=[copy.deepcopy(sample) for _, sample in pictures],
    )
    with torch.no_grad():
        return [sample.pred_instances for sample in model.test_step(data)]


def roi_masks(model, shown):
    """What the mask branch says about the model's own boxes."""
    pixels, samples = batch_of(model, shown)
    with torch.no_grad():
        x = model.extract_feat(pixels)
        boxes = model.predict_boxes(x, samples)
        return model.roi_head.predict_masks(x, boxes, [s.metainfo for s in samples])


def outputs(model, pixels):
    """The dense head's maps."""
    data = model.data_preprocessor(dict(inputs=[pixels]))
    with torch.no_grad():
        return model.bbox_head(model.extract_feat(data['inputs']))


def test_float32_gives_the_same_instances(model):
    fast = optimize(model, 'float32')
    pictures = [picture(96, 128, seed=1), picture(80, 100, seed=2)]
    for expected, found in zip(
        predict(model, *pictures), predict(fast, *pictures), strict=True
    ):
        assert len(expected) > 10
        torch.testing.assert_close(found.labels, expected.labels)
        torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(
            found.mask_scores, expected.mask_scores, rtol=1e-3, atol=1e-4
        )


def test_float32_gives_the_same_masks(model):
    # Probabilities, not pixels: an untrained head leaves many at the threshold.
    (expected,), (found,) = (
        roi_masks(m, picture(96, 128)) for m in (model, optimize(model, 'float32'))
    )
    torch.testing.assert_close(
        found.probabilities, expected.probabilities, rtol=0, atol=1e-5
    )
    torch.testing.assert_close(found.ious, expected.ious, rtol=1e-4, atol=1e-5)


def test_bfloat16_maps_stay_within_two_percent(model):
    fast = optimize(model, 'bfloat16')
    pixels = picture(96, 128)[0]
    for ours, theirs in zip(outputs(fast, pixels), outputs(model, pixels), strict=True):
        for short, exact in zip(ours, theirs, strict=True):
            assert short.dtype == torch.float32
            assert (short - exact).norm() < 0.02 * exact.norm()


def test_box_sides_do_not_move_in_steps_of_bfloat16(model):
    # 300 px in bfloat16 has steps of 2 px; the regression conv computes in float32.
    sides = optimize(model, 'bfloat16')
    distances = outputs(sides, picture(96, 128)[0])[1][0]
    assert not torch.equal(distances, distances.bfloat16().float())


def test_nothing_found(model):
    silent = copy.deepcopy(model)
    silent.bbox_head.conv_cls.bias.data.fill_(-100)
    (found,) = predict(optimize(silent, 'bfloat16'), picture(64, 96))
    assert found.masks.shape == (0, 64, 96)


def test_the_given_detector_is_untouched(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    kinds = [type(module) for module in model.modules()]
    optimize(model, 'bfloat16')
    assert [type(module) for module in model.modules()] == kinds
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor, before[name])


def test_what_is_saved_is_the_detector_that_was_given(model):
    fast = optimize(model, 'bfloat16')
    saved, own = fast.state_dict(), model.state_dict()
    assert saved.keys() == own.keys()
    assert all(torch.equal(saved[name], own[name]) for name in own)
    tiny_model().load_state_dict(saved, strict=True)


def test_training_and_loading_are_refused(model):
    fast = optimize(model, 'float32')
    with pytest.raises(RuntimeError, match='cannot be trained: train the one that'):
        fast.train()
    with pytest.raises(RuntimeError, match='takes no weights: load them into'):
        fast.load_state_dict(model.state_dict())
    assert not fast.eval().training


def test_it_says_what_it_chose(model, monkeypatch):
    said = []
    # The function stands before its module under the package's name.
    module = sys.modules['mmdet_centermask.speed.optimize']
    monkeypatch.setattr(module, 'print_log', lambda line, logger: said.append(line))
    optimize(model, 'float32')
    (line,) = said
    assert line.startswith(
        'optimize: CenterMask in float32 (as asked), 22 norms folded'
    )
    assert '\n' not in line


def test_what_it_is_made_of(model):
    fast = optimize(model, 'bfloat16')
    assert isinstance(fast.roi_head.mask_roi_extractor, SeparableRoIExtractor)
    # Not packed on a CPU without AVX-512, where the plain conv is left.
    kind = PackedConv2d if can_pack(torch.bfloat16) else torch.nn.Conv2d
    assert isinstance(fast.backbone.stem[0].conv, kind)
    assert fast.bbox_head.conv_reg.bias.dtype == torch.float32
    assert fast.bbox_head.conv_cls.bias.dtype == torch.bfloat16


@pytest.mark.parametrize(
    'name',
    [
        'centermask/centermask_v39-dcn_fpn_ms-3x_coco',
        'panoptic_centermask/panoptic-centermask_r50_fpn_ms-3x_coco',
        'centermask_lite/centermask-lite_mv2_fpn_ms-4x_coco',
        'vovnet/cascade-mask-rcnn_v19-slim-dw_fpn_ms-3x_coco',
        'vovnet/retinanet_v19-slim-dw_fpn_ms-3x_coco',
        'vovnet/rtmdet-ins_v19-slim-dw_ms-3x_coco',
    ],
)
@pytest.mark.slow
def test_other_detectors(repository, name):
    from mmdet.registry import MODELS
    from mmengine.config import Config

    init_default_scope('mmdet')
    cfg = Config.fromfile(repository / 'configs' / f'{name}.py').model
    cfg.backbone.init_cfg = None
    torch.manual_seed(0)
    model = lively(MODELS.build(cfg)).eval()
    shown = picture(96, 128)
    exact, short = optimize(model, 'float32'), optimize(model, 'bfloat16')
    pixels = model.data_preprocessor(dict(inputs=[shown[0]]))['inputs']
    with torch.no_grad():
        maps = [m.extract_feat(pixels) for m in (model, exact, short)]
    for own, same, near in zip(*maps, strict=True):
        assert (same - own).norm() < 1e-4 * own.norm()
        assert (near.float() - own).norm() < 0.03 * own.norm()
    (expected,), (found,), (rough,) = (predict(m, shown) for m in (model, exact, short))
    assert len(found) == len(expected)
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-3, atol=1e-4)
    assert abs(len(rough) - len(expected)) <= 0.3 * len(expected)


class Loop:
    """As much of a runner as the hook touches."""

    def __init__(self, model):
        self.model = model


def test_hook_swaps_the_model_for_the_epoch_and_back(model):
    runner, hook = Loop(model), FastInferenceHook('float32')
    hook.before_val_epoch(runner)
    assert runner.model is not model
    assert isinstance(runner.model.backbone.stem[0].conv, PackedConv2d)
    hook.after_val_epoch(runner, {})
    assert runner.model is model
    hook.before_test_epoch(runner)
    assert runner.model is not model
    hook.after_test_epoch(runner, {})
    assert runner.model is model


@pytest.mark.slow
def test_compiled_gives_the_same_and_sizes_share_a_compilation(model):
    fast = optimize(model, 'float32', compile=True)
    statistics = torch._dynamo.utils.counters['stats']
    graphs = []
    # All three are padded to 128 x 128.
    for height, width in ((96, 128), (80, 100), (128, 65)):
        shown = picture(height, width)
        (found,) = predict(fast, shown)
        (padded,) = predict(padding_to(model, 128), shown)
        assert len(found) == len(padded) > 10
        torch.testing.assert_close(found.scores, padded.scores, rtol=1e-3, atol=1e-4)
        graphs.append(statistics['unique_graphs'])
    assert graphs[0] > 0
    assert graphs == graphs[:1] * 3


def padding_to(model, divisor):
    padded = copy.deepcopy(model)
    padded.data_preprocessor.pad_size_divisor = divisor
    return padded
