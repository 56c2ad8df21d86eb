"""The ONNX file in onnxruntime and OpenVINO, against PyTorch."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
import torch
from exported_tiny import finder, real_pictures, write_network
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from onnx import numpy_helper
from test_exportable_centermask import deformable_model
from tiny_centermask import tiny_config
from torch import nn

from mmdet_centermask.deploy.export_folder import write_folder
from mmdet_centermask.deploy.parity import TorchPredictor, difference
from mmdet_centermask.deploy.predict import Predictor
from mmdet_centermask.deploy.trained import load_trained

RUNTIMES = 'onnxruntime', 'openvino'
ALL = float('-inf')

# What TensorRT 10.15 reads, from the table of its ONNX parser:
# https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md
# Only what a network like this may need; the table has 130 more or less exotic ones.
TENSORRT = frozenset(
    re.findall(
        r'\w+',
        """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat
    Constant ConstantOfShape Conv ConvTranspose DequantizeLinear Div Equal Exp Expand
    Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool
    Greater GreaterOrEqual GridSample GroupNormalization HardSigmoid Identity
    InstanceNormalization Less LessOrEqual Log MatMul Max MaxPool Min Mod Mul Neg
    NonMaxSuppression NonZero Not Or Pad Pow QuantizeLinear Range Reciprocal ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape Resize RoiAlign Round
    ScatterElements ScatterND Shape Sigmoid Size Slice Softmax Split Sqrt Squeeze Sub
    Sum Tile TopK Transpose Unsqueeze Where
    """,
    )
)
TENSORRT_TOPK = 3840  # K has to be less, from the same table


@pytest.fixture(scope='module')
def file(exported) -> onnx.ModelProto:
    return onnx.load(exported.folder / 'model.onnx')


def reference(model: nn.Module, folder) -> TorchPredictor:
    return TorchPredictor(model, json.loads((folder / 'model.json').read_text()))


def test_only_stock_operators_that_tensorrt_reads(file):
    assert [(entry.domain, entry.version) for entry in file.opset_import] == [('', 18)]
    assert not file.functions
    used = {node.op_type for node in file.graph.node}
    assert {'RoiAlign', 'TopK', 'NonMaxSuppression'} <= used
    assert used <= TENSORRT


def test_fixed_numbers_are_constants_where_tensorrt_wants_them(file):
    constants = {t.name: numpy_helper.to_array(t) for t in file.graph.initializer}
    for node in file.graph.node:
        if node.op_type == 'Constant':
            constants[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    counts = {
        int(constants[node.input[1]].item())
        for node in file.graph.node
        if node.op_type == 'TopK'
    }
    assert counts == {1000} and max(counts) < TENSORRT_TOPK
    (nms,) = (n for n in file.graph.node if n.op_type == 'NonMaxSuppression')
    fixed = [constants[name].item() for name in nms.input[2:]]
    assert fixed == [50, pytest.approx(0.6), 0]


def test_heights_widths_and_the_number_of_pictures_are_free(file):
    shapes = {
        value.name: [
            d.dim_value or d.dim_param for d in value.type.tensor_type.shape.dim
        ]
        for value in [*file.graph.input, *file.graph.output]
    }
    assert list(shapes) == [
        *('images', 'sizes', 'pictures', 'boxes', 'labels', 'scores'),
        *('mask_scores', 'masks'),
    ]
    batch, three, height, width = shapes['images']
    assert three == 3
    assert all(isinstance(side, str) for side in (batch, height, width))
    assert shapes['sizes'] == [batch, 2]
    (count,) = shapes['pictures']
    assert isinstance(count, str) and count != batch
    assert shapes['masks'] == [count, 28, 28]
    assert shapes['boxes'] == [count, 4]


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_same_as_pytorch_on_photographs(exported, runtime):
    expected = reference(exported.model, exported.folder)
    predictor = Predictor(exported.folder, runtime, threads=1)
    for name, picture in real_pictures().items():
        apart = difference(expected(picture, ALL), predictor(picture, ALL))
        assert apart.counts[0] > 10, name
        assert apart.within_limits, (name, apart)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_smallest_picture(exported, runtime):
    """32 x 32: the deepest maps have a single pixel."""
    picture = real_pictures()['cat'][60:120, 100:164]
    found = Predictor(exported.folder, runtime, threads=1)(picture, ALL)
    expected = reference(exported.model, exported.folder)(picture, ALL)
    assert difference(expected, found).within_limits


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_batch_is_its_pictures_one_by_one(exported, runtime):
    predictor = Predictor(exported.folder, runtime, threads=1)
    pictures = real_pictures()
    images = [predictor.prepare(pictures[n])[0] for n in ('cat', 'coffee', 'face')]
    sizes = np.array([image.shape[1:] for image in images])
    # The same padding for all, alone and together, so that the maps are the same.
    batch = np.zeros((3, 3, 224, 320), np.float32)
    for slot, image in zip(batch, images, strict=True):
        slot[:, : image.shape[1], : image.shape[2]] = image
    together = predictor.run(batch, sizes)
    assert sorted(set(together[0].tolist())) == [0, 1, 2]
    for i in range(3):
        alone = predictor.run(batch[i : i + 1], sizes[i : i + 1])
        own = together[0] == i
        assert own.sum() == len(alone[0]) > 10
        for one, many in zip(alone[1:], together[1:], strict=True):
            np.testing.assert_allclose(many[own], one, atol=1e-3)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_nothing_found(exported, file, runtime, tmp_path):
    """The same network, silenced by the bias of its class scores."""
    silent = onnx.ModelProto()
    silent.CopyFrom(file)
    (bias,) = (t for t in silent.graph.initializer if t.name.endswith('conv_cls.bias'))
    bias.CopyFrom(numpy_helper.from_array(np.full(3, -50, np.float32), bias.name))
    onnx.save(silent, tmp_path / 'model.onnx')
    (tmp_path / 'model.json').write_bytes((exported.folder / 'model.json').read_bytes())
    found = Predictor(tmp_path, runtime, threads=1)(real_pictures()['cat'])
    assert {name: value.shape for name, value in found.items()} == dict(
        boxes=(0, 4), labels=(0,), scores=(0,), mask_scores=(0,), masks=(0, 300, 451)
    )


def deformable() -> tuple[nn.Module, ConfigDict, tuple[str, ...]]:
    """DCNv2 in VoVNet, one class."""
    cfg = tiny_config(
        1,
        backbone__arch='V-19-slim',
        backbone__dcn=dict(type='DCNv2', deform_groups=1),
        backbone__stage_with_dcn=(False, False, False, True),
    )
    return deformable_model(), cfg, ('nucleus',)


def deep_on_resnet() -> tuple[nn.Module, ConfigDict, tuple[str, ...]]:
    """The four convs a head of CenterMask, on the stock ResNet-18, 80 classes."""
    cfg = tiny_config(
        80,
        neck__in_channels=[128, 256, 512],
        bbox_head__stacked_convs=4,
        roi_head__mask_head__num_convs=4,
        roi_head__mask_iou_head__num_convs=4,
    )
    cfg.backbone = dict(
        type='ResNet',
        depth=18,
        out_indices=(1, 2, 3),
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
    )
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    return finder(model, scale=0.1), cfg, tuple(map(str, range(80)))


@pytest.mark.slow
@pytest.mark.parametrize('network', [deformable, deep_on_resnet])
def test_other_networks(network, tmp_path):
    model, cfg, classes = network()
    files = write_network(tmp_path, model, cfg, classes)
    write_folder(load_trained(*map(str, files)), tmp_path / 'folder')
    used = {n.op_type for n in onnx.load(tmp_path / 'folder/model.onnx').graph.node}
    assert used <= TENSORRT
    expected = reference(model, tmp_path / 'folder')
    pictures = real_pictures()
    for runtime in RUNTIMES:
        predictor = Predictor(tmp_path / 'folder', runtime, threads=1)
        for name in ('cat', 'face'):
            found = predictor(pictures[name], ALL)
            apart = difference(expected(pictures[name], ALL), found)
            assert apart.counts[0] > 10, (runtime, name)
            assert apart.within_limits, (runtime, name, apart)
