"""VoVNetV2: sizes of the seven archs, the block's formula, MMDetection's options."""

import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import ModulatedDeformConv2dPack
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_centermask.models import VoVNet, vovnet
from mmdet_centermask.models.vovnet import Arch, EffectiveSE, OSABlock, OSAStage

# DESIGN.md section 2: parameters and blocks of stages 2 to 5.
SIZES = {
    'V-19-slim-dw': (1_384_752, (1, 1, 1, 1)),
    'V-19-dw': (5_518_080, (1, 1, 1, 1)),
    'V-19-slim': (2_653_136, (1, 1, 1, 1)),
    'V-19': (10_180_416, (1, 1, 1, 1)),
    'V-39': (25_184_128, (1, 1, 2, 2)),
    'V-57': (41_454_912, (1, 1, 4, 3)),
    'V-99': (69_523_520, (1, 3, 9, 3)),
}
# What timm 1.0.31 computes in float64 for `wave_weights` and `wave_picture`: mean,
# root mean square and last value of each stage. Its V-39 has no gate in all but
# the last block of a stage, which weight 0 and bias 3 make ours equal to.
TIMM = {
    'V-19-slim': [
        ((112, 17, 24), 1.329846581, 3.074588982, 1.913132293),
        ((256, 8, 12), 1.111221162, 2.700121529, 0.0),
        ((384, 4, 6), 2.968533187, 6.946892436, 0.0),
        ((512, 2, 3), 4.38080079, 10.19246065, 0.0),
    ],
    'V-19-slim-dw': [
        ((112, 17, 24), 1.311201925, 3.140522019, 0.0),
        ((256, 8, 12), 2.770149735, 7.647847585, 0.0),
        ((384, 4, 6), 11.36356428, 28.45423657, 0.0),
        ((512, 2, 3), 34.64067781, 83.06153486, 0.0),
    ],
    'V-39': [
        ((256, 17, 24), 0.4219006087, 1.089333553, 0.0),
        ((512, 8, 12), 1.273416509, 3.005939395, 0.0),
        ((768, 4, 6), 26.75223671, 45.85303291, 0.0),
        ((1024, 2, 3), 179.1890016, 312.6375232, 19.35640372),
    ],
}


@pytest.fixture
def tiny_arch(monkeypatch) -> str:
    """Two blocks in stage 3, so identity paths too, within 60,000 parameters."""
    tiny = Arch((8, 8, 16), (8, 12, 8, 8), (16, 24, 32, 40), 2, (1, 2, 1, 1))
    monkeypatch.setitem(vovnet.ARCHS, 'tiny', tiny)
    return 'tiny'


def norms(module: nn.Module) -> list[nn.Module]:
    return [m for m in module.modules() if isinstance(m, _BatchNorm)]


def wave_weights(net: VoVNet) -> None:
    """Fill everything with a formula that another implementation can repeat."""
    for i, (name, value) in enumerate(sorted(net.state_dict().items())):
        if name.endswith('num_batches_tracked'):
            continue
        wave = torch.arange(value.numel(), dtype=torch.float64).mul(1.7).add(i).sin()
        wave = wave.reshape(value.shape)
        if name.endswith(('running_var', 'bn.weight')):
            wave = wave / 2 + 1
        elif value.dim() > 1:
            wave = wave * 2 / value[0].numel() ** 0.5
        value.copy_(wave)


def wave_picture() -> torch.Tensor:
    wave = torch.arange(3 * 65 * 96, dtype=torch.float64).mul(0.37).sin()
    return wave.reshape(1, 3, 65, 96)


@pytest.mark.parametrize('arch', SIZES)
def test_parameters_and_gates(arch):
    with torch.device('meta'):
        net = VoVNet(arch)
    parameters, blocks = SIZES[arch]
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert [len(stage.blocks) for stage in net.stages] == list(blocks)
    for stage in net.stages:
        for i, block in enumerate(stage.blocks):
            # A gate in every block, unlike timm; identity in all but the first.
            assert isinstance(block.ese, EffectiveSE)
            assert block.identity == (i > 0)


def test_all_archs_are_in_the_table():
    assert set(vovnet.ARCHS) == set(SIZES)


@pytest.mark.parametrize('arch', TIMM)
def test_outputs_equal_those_of_timm(arch):
    net = VoVNet(arch).double().eval()
    with torch.no_grad():
        wave_weights(net)
        for stage in net.stages:
            for block in stage.blocks[:-1]:
                block.ese.fc.weight.fill_(0)
                block.ese.fc.bias.fill_(3)
        outs = net(wave_picture())
    for out, (shape, mean, rms, last) in zip(outs, TIMM[arch], strict=True):
        assert out.shape[1:] == shape
        assert out.mean().item() == pytest.approx(mean, rel=1e-8)
        assert out.square().mean().sqrt().item() == pytest.approx(rms, rel=1e-8)
        assert out[0, -1, -1, -1].item() == pytest.approx(last, rel=1e-8)


def test_gate_equals_its_formula():
    gate = EffectiveSE(3)
    weight = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, -1.0], [4.0, 0.0, 0.0]])
    bias = torch.tensor([0.5, -1.0, 2.0])
    gate.load_state_dict({'fc.weight': weight[..., None, None], 'fc.bias': bias})
    x = torch.tensor([[1.0, 3.0], [0.0, -2.0], [-9.0, 1.0]]).reshape(1, 3, 1, 2)
    # Means 2, -1, -4; fc 2.5, 1, 10; relu6(fc + 3) / 6.
    expected = torch.tensor([5.5 / 6, 4 / 6, 1.0]).reshape(1, 3, 1, 1) * x
    assert torch.allclose(gate(x), expected)
    # And shut below -3: relu6 has no floor other than 0.
    gate.fc.bias.data.fill_(-50)
    assert gate(x).abs().max() == 0


def test_block_aggregates_once_gates_and_adds():
    """Concat of input and every layer, gate, then identity: by hand."""
    torch.manual_seed(0)
    block = OSABlock(6, 4, 6, 3, identity=True, norm_cfg=dict(type='BN')).eval()
    x = torch.randn(2, 6, 5, 5)
    maps = [x]
    for layer in block.layers:
        maps.append(layer(maps[-1]))
    mixed = block.concat(torch.cat(maps, 1))
    gate = ((block.ese.fc(mixed.mean((2, 3), True)) + 3) / 6).clamp(0, 1)
    assert torch.allclose(block(x), mixed * gate + x, atol=1e-6)


def test_depthwise_block_reduces_its_input_only_where_widths_differ():
    same = OSABlock(8, 8, 8, 2, depthwise=True, norm_cfg=dict(type='BN'))
    assert isinstance(same.reduction, nn.Identity)
    other = OSABlock(6, 8, 8, 2, depthwise=True, norm_cfg=dict(type='BN'))
    assert other.reduction.conv.weight.shape == (8, 6, 1, 1)
    # The aggregation sees the input itself, not the reduced one.
    assert other.concat.conv.in_channels == 6 + 2 * 8
    assert [m.depthwise.groups for m in other.layers] == [8, 8]


@pytest.mark.parametrize(
    'size, expected',
    [
        ((64, 64), [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((65, 97), [(17, 25), (8, 12), (4, 6), (2, 3)]),
        ((50, 103), [(13, 26), (6, 13), (3, 6), (1, 3)]),
    ],
)
def test_output_sizes(tiny_arch, size, expected):
    outs = VoVNet(tiny_arch)(torch.rand(2, 3, *size))
    assert isinstance(outs, tuple)
    assert [tuple(o.shape[-2:]) for o in outs] == expected
    assert [o.shape[:2] for o in outs] == [(2, c) for c in (16, 24, 32, 40)]


@pytest.mark.parametrize('size', [(8, 8), (9, 9), (10, 7)])
def test_pool_keeps_the_last_row_of_an_even_map(size):
    """Window by window; the exporter's form is equal, padding on all sides is not."""
    x = torch.rand(1, 2, *size)
    pool = OSAStage([], downsample=True)
    rows, columns = [range(0, n - 1, 2) for n in size]
    expected = torch.stack(
        [
            torch.stack([x[..., i : i + 3, j : j + 3].amax((2, 3)) for j in columns], 2)
            for i in rows
        ],
        2,
    )
    assert torch.equal(pool(x), expected)
    # Outputs of a block are >= 0, so a border of zeros never wins.
    assert torch.equal(F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2), expected)
    symmetric = F.max_pool2d(x, 3, 2, padding=1)
    assert symmetric.shape != expected.shape or not torch.equal(symmetric, expected)


@pytest.mark.parametrize('indices', [(3,), (0, 2), (1, 2, 3)])
def test_out_indices_choose_among_all_maps(tiny_arch, indices):
    x = torch.rand(1, 3, 64, 64)
    torch.manual_seed(0)
    every = VoVNet(tiny_arch).eval()
    torch.manual_seed(0)
    some = VoVNet(tiny_arch, out_indices=indices).eval()
    assert some.out_channels == tuple((16, 24, 32, 40)[i] for i in indices)
    outs, expected = some(x), every(x)
    assert len(outs) == len(indices)
    for out, i in zip(outs, indices, strict=True):
        assert torch.equal(out, expected[i])


@pytest.mark.parametrize('in_channels', [1, 4])
def test_in_channels(tiny_arch, in_channels):
    net = VoVNet(tiny_arch, in_channels=in_channels)
    assert net.stem[0].conv.weight.shape == (8, in_channels, 3, 3)
    assert net(torch.rand(1, in_channels, 64, 64))[0].shape == (1, 16, 16, 16)


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages(tiny_arch, frozen_stages):
    net = VoVNet(tiny_arch, frozen_stages=frozen_stages)
    net.eval()
    net.train()  # a detector does this every epoch
    for i, part in enumerate([net.stem, *net.stages]):
        frozen = i <= frozen_stages
        assert all(p.requires_grad != frozen for p in part.parameters())
        assert all(n.training != frozen for n in norms(part))
    before = [b.clone() for b in net.buffers()]
    net(torch.rand(2, 3, 64, 64))
    moved = {
        name.removeprefix('stages.').split('.')[0]
        if name.startswith('stages.')
        else 'stem'
        for (name, after), b in zip(net.named_buffers(), before, strict=True)
        if not torch.equal(after, b)
    }
    # Running statistics move in the parts that learn, and only there.
    assert moved == set(['stem', '0', '1', '2', '3'][frozen_stages + 1 :])


def test_norm_eval_keeps_statistics_and_learns_weights(tiny_arch):
    net = VoVNet(tiny_arch, norm_eval=True)
    net.train()
    assert net.training and net.stages[0].training
    assert not any(n.training for n in norms(net))
    assert all(p.requires_grad for p in net.parameters())
    before = net.stem[0].bn.running_mean.clone()
    net(torch.rand(2, 3, 64, 64))
    assert torch.equal(net.stem[0].bn.running_mean, before)


def test_norm_weights_can_be_frozen_alone(tiny_arch):
    net = VoVNet(tiny_arch, norm_cfg=dict(type='BN', requires_grad=False))
    of_norms = {id(p) for n in norms(net) for p in n.parameters()}
    assert of_norms
    assert all(p.requires_grad == (id(p) not in of_norms) for p in net.parameters())


def test_group_norm(tiny_arch):
    net = VoVNet(tiny_arch, norm_cfg=dict(type='GN', num_groups=4))
    assert not norms(net)
    # Stem 3; 2 layers and the aggregation in each of 5 blocks.
    assert sum(isinstance(m, nn.GroupNorm) for m in net.modules()) == 3 + 5 * 3
    one, both = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 64, 64)
    both = torch.cat([one, both])
    # No picture of the batch sees the other, in training mode too.
    assert torch.allclose(net(both)[3][:1], net(one)[3], atol=1e-5)


def test_sync_batch_norm(tiny_arch):
    torch.manual_seed(0)
    plain = VoVNet(tiny_arch).eval()
    synced = VoVNet(tiny_arch, norm_cfg=dict(type='SyncBN')).eval()
    assert len(norms(synced)) == len(norms(plain))
    assert all(isinstance(n, nn.SyncBatchNorm) for n in norms(synced))
    synced.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(synced(x)[3], plain(x)[3])


def test_checkpointing_recomputes_and_changes_nothing(tiny_arch, monkeypatch):
    calls = []
    aggregate = OSABlock._aggregate

    def counted(self, x):
        calls.append(self)
        return aggregate(self, x)

    monkeypatch.setattr(OSABlock, '_aggregate', counted)
    x = torch.rand(2, 3, 64, 64)
    results = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        net = VoVNet(tiny_arch, with_cp=with_cp)
        calls.clear()
        outs = net(x)
        sum(o.square().sum() for o in outs).backward()
        assert len(calls) == (10 if with_cp else 5)
        results.append([*outs, *(p.grad for p in net.parameters())])
    for plain, recomputed in zip(*results, strict=True):
        assert torch.allclose(plain, recomputed, rtol=1e-4, atol=1e-6)
    calls.clear()
    with torch.no_grad():
        net(x)
    assert len(calls) == 5


def test_every_parameter_gets_a_gradient(tiny_arch):
    net = VoVNet(tiny_arch)
    sum(o.square().sum() for o in net(torch.rand(2, 3, 64, 64))).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize('initialised', [False, True])
def test_deformable_convs_start_as_plain_ones(tiny_arch, initialised):
    net = VoVNet(
        tiny_arch,
        dcn=dict(type='DCNv2', deform_groups=2),
        stage_with_dcn=(False, True, False, True),
    )
    if initialised:
        net.init_weights()
    found = [
        [isinstance(m, ModulatedDeformConv2dPack) for m in stage.modules()].count(True)
        for stage in net.stages
    ]
    # Every layer of the chain: 2 blocks with 2 layers in stage 3, 1 in stage 5.
    assert found == [0, 4, 0, 2]
    assert not any(isinstance(m, ModulatedDeformConv2dPack) for m in net.stem)
    conv = net.stages[1].blocks[1].layers[0].conv
    x = torch.rand(1, 24, 6, 6)
    # Offsets 0, and every sample weighed with sigmoid(0).
    assert torch.allclose(conv(x), F.conv2d(x, conv.weight, padding=1) / 2, atol=1e-5)
    assert [o.shape[-2:] for o in net(torch.rand(1, 3, 64, 64))] == [
        (16, 16),
        (8, 8),
        (4, 4),
        (2, 2),
    ]


def test_pretrained_offsets_survive_initialisation(tiny_arch, tmp_path):
    options = dict(dcn=dict(type='DCNv2'), stage_with_dcn=(False, False, False, True))
    trained = VoVNet(tiny_arch, **options)
    for module in trained.modules():
        if isinstance(module, ModulatedDeformConv2dPack):
            nn.init.constant_(module.conv_offset.weight, 0.25)
    path = tmp_path / 'trained.pth'
    torch.save(trained.state_dict(), path)
    loaded = VoVNet(
        tiny_arch, init_cfg=dict(type='Pretrained', checkpoint=str(path)), **options
    )
    loaded.init_weights()
    offset = loaded.stages[3].blocks[0].layers[0].conv.conv_offset.weight
    assert (offset == 0.25).all()


def test_initialisation_is_kaiming(tiny_arch):
    net = VoVNet(tiny_arch)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 7.0)
    torch.manual_seed(0)
    net.init_weights()
    assert not any((p == 7.0).any() for p in net.parameters() if p.dim() > 1)
    assert all((n.weight == 1).all() and (n.bias == 0).all() for n in norms(net))
    # 3x3, 16 -> 8: fan out 72. 1152 numbers give their spread within 10%.
    weight = net.stages[0].blocks[0].layers[0].conv.weight
    assert weight.std().item() == pytest.approx((2 / 72) ** 0.5, rel=0.1)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(arch='V-38'), "arch='V-38' is unknown, choose one of V-19-slim-dw"),
        (dict(out_indices=(1, 2, 4)), 'out_indices=(1, 2, 4) must be rising'),
        (dict(out_indices=(2, 1)), 'out_indices=(2, 1) must be rising'),
        (dict(out_indices=(-1,)), 'out_indices=(-1,) must be rising'),
        (dict(out_indices=(1, 1)), 'out_indices=(1, 1) must be rising'),
        (dict(out_indices=()), 'out_indices=() must be rising'),
        (dict(out_indices=3), 'out_indices=3 must be rising'),
        (dict(out_indices='12'), 'out_indices=12 must be rising'),
        (dict(out_indices=[[1]]), 'out_indices=[[1]] must be rising'),
        (dict(arch=[39]), 'arch=[39] is unknown'),
        (dict(stage_with_dcn=None), 'stage_with_dcn=None must hold four flags'),
        (dict(frozen_stages=5), 'frozen_stages=5 must lie in -1..4'),
        (dict(frozen_stages=-2), 'frozen_stages=-2 must lie in -1..4'),
        (
            dict(dcn=dict(type='DCNv2'), stage_with_dcn=(True, True, True)),
            'stage_with_dcn=(True, True, True) must hold four flags',
        ),
        (
            dict(stage_with_dcn=(False, False, False, True)),
            'stage_with_dcn=(False, False, False, True) needs dcn',
        ),
        (
            dict(
                arch='V-19-dw',
                dcn=dict(type='DCNv2'),
                stage_with_dcn=(False, False, False, True),
            ),
            "dcn={'type': 'DCNv2'} does not go with the depthwise arch='V-19-dw'",
        ),
    ],
)
def test_bad_arguments_are_one_line_with_field_and_value(options, message):
    with pytest.raises(ValueError) as error:
        VoVNet(**{'arch': 'V-19', **options})
    assert str(error.value).startswith('VoVNet: ' + message)
    assert '\n' not in str(error.value)


def test_is_registered_in_mmdet():
    init_default_scope('mmdet')
    assert type(MODELS.build(dict(type='VoVNet', arch='V-19-slim-dw'))) is VoVNet
