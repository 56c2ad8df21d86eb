"""A copied VoVNet file of a 3D project against this backbone: same weights, same maps.

The oracle is the network of the two papers, written once more with plain functions
over a dict of weights in the names that the 3D projects' checkpoints have.
"""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from mmdet_centermask.convert.convert import convert_checkpoint
from mmdet_centermask.convert.rename import VOVNET, rename
from mmdet_centermask.models import VoVNet

PREFIX = 'img_backbone.'
SLIM = ((64, 80, 96, 112), (112, 256, 384, 512))
FULL = ((128, 160, 192, 224), (256, 512, 768, 1024))
# spec_name: stem, (conv, out) widths, layers per block, blocks per stage, depthwise
SPECS = {
    'V-19-slim-dw-eSE': ((64, 64, 64), SLIM, 3, (1, 1, 1, 1), True),
    'V-19-slim-eSE': ((64, 64, 128), SLIM, 3, (1, 1, 1, 1), False),
    'V-99-eSE': ((64, 64, 128), FULL, 5, (1, 3, 9, 3), False),
}


class CopiedVoVNet:
    """Runs on ``weights``, which it makes up as it goes when they are not there."""

    def __init__(self, spec_name: str, out_features=('stage4', 'stage5')):
        self.spec, self.out_features = SPECS[spec_name], out_features
        self.weights: dict[str, torch.Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def weight(self, name: str, *shape: int, low: float, high: float) -> torch.Tensor:
        name = PREFIX + name
        if name not in self.weights:
            value = torch.rand(*shape, generator=self.generator) * (high - low) + low
            self.weights[name] = value
        return self.weights[name]

    def conv(self, x, name, out, k=1, stride=1, groups=1):
        wide = (6.0 / (x.shape[1] // groups * k * k)) ** 0.5
        shape = (out, x.shape[1] // groups, k, k)
        w = self.weight(f'{name}.weight', *shape, low=-wide, high=wide)
        return F.conv2d(x, w, None, stride, k // 2, groups=groups)

    def norm_relu(self, x, name):
        n = x.shape[1]
        gamma = self.weight(f'{name}.weight', n, low=0.5, high=1.5)
        beta = self.weight(f'{name}.bias', n, low=-0.3, high=0.3)
        mean = self.weight(f'{name}.running_mean', n, low=-0.3, high=0.3)
        var = self.weight(f'{name}.running_var', n, low=0.5, high=1.5)
        scale = (gamma / (var + 1e-5).sqrt())[:, None, None]
        return (x * scale + beta[:, None, None] - mean[:, None, None] * scale).relu()

    def conv3(self, x, name, out, depthwise, stride=1):
        if depthwise:
            x = self.conv(x, f'{name}/dw_conv3x3', x.shape[1], 3, stride, x.shape[1])
            return self.norm_relu(
                self.conv(x, f'{name}/pw_conv1x1', out), f'{name}/pw_norm'
            )
        return self.norm_relu(
            self.conv(x, f'{name}/conv', out, 3, stride), f'{name}/norm'
        )

    def block(self, x, name, tag, width, out, layers, depthwise, identity):
        kept, y = [x], x
        if depthwise and x.shape[1] != width:
            reduce = f'{name}.conv_reduction.{tag}_reduction_0'
            y = self.norm_relu(self.conv(x, f'{reduce}/conv', width), f'{reduce}/norm')
        for i in range(layers):
            y = self.conv3(y, f'{name}.layers.{i}.{tag}_{i}', width, depthwise)
            kept.append(y)
        concat = f'{name}.concat.{tag}_concat'
        y = self.conv(torch.cat(kept, 1), f'{concat}/conv', out)
        y = self.norm_relu(y, f'{concat}/norm')
        gate = self.conv(y.mean((2, 3), keepdim=True), f'{name}.ese.fc', out)
        gate = (
            gate
            + self.weight(f'{name}.ese.fc.bias', out, low=-1, high=1)[:, None, None]
        )
        y = y * (F.relu6(gate + 3) / 6)
        return y + x if identity else y

    def __call__(self, x):
        stem, (widths, outs), layers, blocks, depthwise = self.spec
        for i, (width, stride) in enumerate(zip(stem, (2, 1, 2), strict=True)):
            x = self.conv3(x, f'stem.stem_{i + 1}', width, depthwise and i > 0, stride)
        maps = {}
        for s in range(4):
            if s > 0:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for b in range(blocks[s]):
                tag = f'OSA{s + 2}_{b + 1}'
                name = f'stage{s + 2}.{tag}'
                x = self.block(
                    x, name, tag, widths[s], outs[s], layers, depthwise, identity=b > 0
                )
            maps[f'stage{s + 2}'] = x
        return [maps[name] for name in self.out_features]


def ours(spec_name: str, out_indices=(2, 3)) -> VoVNet:
    """The config of docs/vovnet_for_3d.md."""
    return VoVNet(
        arch=spec_name.removesuffix('-eSE'),
        out_indices=out_indices,
        in_channels=3,
        frozen_stages=-1,
        norm_eval=True,
        with_cp=True,
    ).eval()


def assert_same_maps(model, expected, x):
    with torch.no_grad():
        found = model(x)
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * b.abs().max().item())


@pytest.mark.parametrize('spec_name', SPECS)
def test_same_weights_same_maps(spec_name):
    copied = CopiedVoVNet(spec_name, ('stage2', 'stage3', 'stage4', 'stage5'))
    x = torch.rand(1, 3, 70, 106, generator=torch.Generator().manual_seed(1))
    expected = copied(x)
    assert expected[-1].std() > 0.1, 'the test shows nothing'
    state = {
        rename(name.removeprefix(PREFIX), VOVNET): w
        for name, w in copied.weights.items()
    }
    model = ours(spec_name, (0, 1, 2, 3))
    outcome = model.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys
    assert all(key.endswith('num_batches_tracked') for key in outcome.missing_keys)
    assert_same_maps(model, expected, x)


def test_a_pretrained_backbone_is_converted(tmp_path):
    copied = CopiedVoVNet('V-19-slim-dw-eSE')
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = copied(x)
    file, done = tmp_path / 'dd3d.pth', tmp_path / 'v19.pth'
    other = {'fcos3d_head.weight': torch.zeros(2)}
    torch.save(dict(state_dict={**copied.weights, **other}), file)
    assert convert_checkpoint(file, done).fits
    model = ours('V-19-slim-dw-eSE')
    model.init_cfg = dict(type='Pretrained', checkpoint=str(done))
    model.init_weights()
    assert_same_maps(model, expected, x)


def test_the_docs_lines_rename_a_trained_detector(tmp_path, monkeypatch, repository):
    text = (repository / 'docs' / 'vovnet_for_3d.md').read_text()
    marked = text.split('<!-- tests/test_vovnet_for_3d.py runs this block -->')[1]
    code = re.search(r'```python\n(.*?)```', marked, flags=re.DOTALL).group(1)
    copied = CopiedVoVNet('V-19-slim-dw-eSE')
    x = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    expected = copied(x)
    other = {'pts_bbox_head.weight': torch.ones(2)}
    monkeypatch.chdir(tmp_path)
    torch.save(dict(state_dict={**copied.weights, **other}), 'petr.pth')
    exec(code, {})
    state = torch.load('petr_renamed.pth', weights_only=True)['state_dict']
    assert torch.equal(state.pop('pts_bbox_head.weight'), torch.ones(2))
    detector = torch.nn.Module()
    detector.img_backbone = ours('V-19-slim-dw-eSE')
    outcome = detector.load_state_dict(state, strict=False)
    assert not outcome.unexpected_keys
    assert_same_maps(detector.img_backbone, expected, x)


def test_the_docs_config_builds(repository):
    text = (repository / 'docs' / 'vovnet_for_3d.md').read_text()
    code = re.search(r'```python\n(.*?)```', text, flags=re.DOTALL).group(1)
    scope: dict = {}
    exec(code, scope)
    from mmengine.registry import MODELS

    assert 'mmdet_centermask' in scope['custom_imports']['imports']
    with torch.device('meta'):
        backbone = MODELS.build(scope['img_backbone'])
    assert isinstance(backbone, VoVNet)
    assert backbone.out_channels == (768, 1024)
