"""From file to file: what is written, what is said, and when nothing is written."""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from convert_names import (
    below,
    centermask1,
    centermask2,
    tagged,
    timm_vovnet,
    vovnet,
)
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmdet_centermask import __version__
from mmdet_centermask.convert import ConversionError, convert_checkpoint
from mmdet_centermask.convert.targets import build, shapes_of
from mmdet_centermask.models.vovnet import VoVNet

PARITY = Path(__file__).resolve().parents[2] / 'shared' / 'parity'
STEM = 'backbone.bottom_up.stem.stem_1/conv.weight'
LITE = 'configs/centermask_lite/centermask-lite_v19-slim-dw_fpn_ms-4x_coco.py'


def random_state(shapes: dict) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.rand(tuple(s), generator=generator) for n, s in shapes.items()}


def backbone_state(names, arch: str = 'V-19-slim-dw', prefix: str = '') -> dict:
    """A file of the backbone `arch`, with the names of a walk of `convert_names`."""
    own = shapes_of(build(dict(type='VoVNet', arch=arch)))
    state = tagged({o: own[n] for o, n in below(prefix, '', names).items()})
    first = next(iter(state))
    return state | random_state({first: state[first].shape})


@pytest.fixture(scope='session')
def lite_names() -> dict[str, str]:
    return centermask2(vovnet('V-19-slim-dw'), 2)


@pytest.fixture(scope='session')
def lite_config(repository) -> Config:
    return Config.fromfile(repository / LITE)


@pytest.fixture(scope='session')
def lite(lite_names, lite_config) -> dict[str, torch.Tensor]:
    """What an official CenterMask-Lite V-19-slim-dw file holds, random numbers."""
    here = shapes_of(build(lite_config.model))
    # The reference keeps a scale as (1,), mmcv as ().
    return random_state({old: here[new] or (1,) for old, new in lite_names.items()})


@pytest.fixture
def convert(tmp_path):
    """Convert a state dict through files; gives the report and what was written."""

    def run(state: dict, **options):
        torch.save({'model': state}, tmp_path / 'src.pth')
        dst = tmp_path / 'out' / 'dst.pth'
        report = convert_checkpoint(tmp_path / 'src.pth', dst, **options)
        assert dst.exists() == report.fits == (report.written == dst)
        assert [p.name for p in tmp_path.glob('out/*')] == ['dst.pth'] * report.fits
        return report, torch.load(dst, weights_only=True) if report.fits else None

    return run


def test_detector(convert, lite, lite_names, lite_config):
    report, result = convert(lite)
    assert report.headline == 'V-19-slim-dw, CenterMask2, 194 of 194 tensors'
    assert report.problems() == []
    for old, new in lite_names.items():
        value = lite[old].reshape(()) if 'scales' in old else lite[old]
        assert torch.equal(result['state_dict'][new], value), f'{old} -> {new}'
    lite_config = lite_config.copy()
    lite_config.model.backbone.init_cfg = None
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(lite_config.model)
    model.load_state_dict(result['state_dict'], strict=True)


def test_meta(convert, lite, tmp_path):
    report, result = convert(lite)
    meta = result['meta']
    assert (
        meta['sha256']
        == hashlib.sha256((tmp_path / 'src.pth').read_bytes()).hexdigest()
    )
    assert meta['source'] == 'CenterMask2' and meta['source_file'] == 'src.pth'
    assert meta['arch'] == 'V-19-slim-dw'
    assert meta['mmdet_centermask'] == __version__
    names = meta['dataset_meta']['classes']
    assert len(names) == meta['num_classes'] == 80
    assert (names[0], names[2], names[79]) == ('person', 'car', 'toothbrush')
    assert meta['notes'] == report.notes == [f'config: {Path(LITE).name}']


@pytest.mark.skipif(not PARITY.exists(), reason='needs ../shared/parity')
def test_official_stand_in(tmp_path, monkeypatch, lite_names, repository):
    """The file that official_weights.py writes, through the command."""
    monkeypatch.syspath_prepend(str(PARITY))
    import official_weights

    manifest = PARITY / 'manifests' / 'centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x.json'
    src, dst = tmp_path / 'official.pth', tmp_path / 'mine.pth'
    monkeypatch.setattr(sys, 'argv', ['official_weights.py', str(manifest), str(src)])
    official_weights.main()
    assert load_tool(repository).main([str(src), str(dst)]) == 0
    state = torch.load(dst, weights_only=True)['state_dict']
    for old, new in lite_names.items():
        wanted = official_weights.fill(
            old, (1,) if 'scales' in old else state[new].shape
        )
        assert state[new].numpy().tobytes() == wanted.tobytes(), f'{old} -> {new}'


@pytest.mark.parametrize(
    ('change', 'problem'),
    [
        (lambda s: s.pop(STEM), 'missing     backbone.stem.0.conv.weight'),
        (
            lambda s: s.update(
                {'proposal_generator.fcos_head.share_tower.0.bias': s[STEM]}
            ),
            'unexpected  proposal_generator.fcos_head.share_tower.0.bias',
        ),
        (
            lambda s: s.update({'ema.decay': torch.tensor(0.5)}),
            'unexpected  ema.decay',
        ),
        (
            lambda s: s.update({STEM: torch.zeros(64, 4, 3, 3)}),
            'misshapen   backbone.stem.0.conv.weight: [64, 4, 3, 3] in the file, '
            '[64, 3, 3, 3] wanted',
        ),
    ],
    ids=['missing', 'unexpected', 'foreign', 'misshapen'],
)
def test_nothing_is_written_unless_all_fits(
    convert, lite, change, problem, tmp_path, repository, capsys
):
    state = dict(lite)
    change(state)
    report, _ = convert(state)
    assert report.problems() == [problem]
    assert report.matched == (194 if 'unexpected' in problem else 193)
    assert report.total == 194
    dst = tmp_path / 'precious.pth'
    dst.write_text('precious')
    assert load_tool(repository).main([str(tmp_path / 'src.pth'), str(dst)]) == 1
    printed = capsys.readouterr().out
    assert f'{report.headline}\n  {problem}\n' in printed
    assert printed.endswith('nothing written: not all fits\n')
    assert dst.read_text() == 'precious'


def test_keep_classes(convert, lite):
    report, result = convert(lite, classes=[7, 0, 2])
    state, meta = result['state_dict'], result['meta']
    assert report.headline == 'V-19-slim-dw, CenterMask2, 194 of 194 tensors'
    for new, old in (
        ('bbox_head.conv_cls', 'proposal_generator.fcos_head.cls_logits'),
        ('roi_head.mask_head.conv_logits', 'roi_heads.mask_head.predictor'),
        ('roi_head.mask_iou_head.fc_mask_iou', 'roi_heads.maskiou_head.maskiou'),
    ):
        for leaf in ('weight', 'bias'):
            rows = lite[f'{old}.{leaf}']
            wanted = torch.stack([rows[7], rows[0], rows[2]])
            assert torch.equal(state[f'{new}.{leaf}'], wanted)
    assert meta['dataset_meta']['classes'] == ('truck', 'person', 'car')
    assert meta['kept_classes'] == [7, 0, 2] and meta['num_classes'] == 3


def test_drop_class_rows(convert, lite):
    report, result = convert(lite, num_classes=4)
    assert report.headline == (
        'V-19-slim-dw, CenterMask2, 188 of 194 tensors, 6 left out'
    )
    assert sorted(report.left_out) == [
        'bbox_head.conv_cls.bias',
        'bbox_head.conv_cls.weight',
        'roi_head.mask_head.conv_logits.bias',
        'roi_head.mask_head.conv_logits.weight',
        'roi_head.mask_iou_head.fc_mask_iou.bias',
        'roi_head.mask_iou_head.fc_mask_iou.weight',
    ]
    assert not set(report.left_out) & set(result['state_dict'])
    assert result['meta']['num_classes'] == 4
    assert 'dataset_meta' not in result['meta']


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(classes=[0, 80]), r'classes=\[80\]: the file has classes 0 to 79'),
        (dict(classes=[-1]), r'classes=\[-1\]'),
        (dict(classes=[1, 1]), 'each once'),
        (dict(classes=[]), 'must name classes'),
        (dict(num_classes=0), 'num_classes=0 must be at least 1'),
        (dict(classes=[1], num_classes=1), 'exclude each other'),
        (dict(classes=[1], backbone_only=True), 'no class rows'),
        (dict(fold_rgb=True), 'CenterMask2 sees BGR pixels already'),
        (dict(source='caffe'), "source 'caffe' is unknown, choose one of panoptic-"),
        (dict(config='no/such.py'), 'no config at'),
    ],
)
def test_options_that_do_not_go(convert, lite, options, message):
    with pytest.raises(ConversionError, match=message):
        convert(lite, **options)


def test_config_of_ones_own(convert, lite, lite_config, tmp_path):
    """A config overrides what the paper has: here three convs in the towers."""
    config = tmp_path / 'mine.py'
    lite_config = lite_config.copy()
    lite_config.model.bbox_head.stacked_convs = 3
    lite_config.dump(config)
    report, _ = convert(lite, config=config)
    assert report.problems() == [
        f'missing     bbox_head.{side}_convs.2.{part}.{leaf}'
        for side in ('cls', 'reg')
        for part in ('conv', 'gn')
        for leaf in ('weight', 'bias')
    ]


def test_backbone_of_a_detector(convert, lite):
    report, result = convert(lite, backbone_only=True)
    assert report.headline == 'V-19-slim-dw, CenterMask2, 132 of 132 tensors'
    state = result['state_dict']
    VoVNet('V-19-slim-dw').load_state_dict(state, strict=True)
    assert torch.equal(state['stem.0.conv.weight'], lite[STEM])


def test_backbone_loads_through_init_cfg(convert, tmp_path):
    """An ImageNet file, flat, becomes what `Pretrained` takes whole."""
    state = backbone_state(vovnet('V-19-slim-dw'), prefix='backbone.bottom_up.')
    report, _ = convert(state | {'fc.weight': torch.zeros(2, 2)})
    assert report.headline == 'V-19-slim-dw, detectron2 backbone, 132 of 132 tensors'
    assert report.notes[0] == '1 tensors stay behind: fc (1)'
    init_cfg = dict(type='Pretrained', checkpoint=str(report.written))
    model = VoVNet('V-19-slim-dw', init_cfg=init_cfg)
    model.init_weights()
    assert torch.equal(model.stem[0].conv.weight, state[STEM])
    gate = 'backbone.bottom_up.stage5.OSA5_1.ese.fc.bias'
    assert torch.equal(model.stages[3].blocks[0].ese.fc.bias, state[gate])


def test_pickle_needs_trust(tmp_path):
    state = backbone_state(vovnet('V-19-slim-dw'), prefix='backbone.bottom_up.')
    src, dst = tmp_path / 'zoo.pkl', tmp_path / 'dst.pth'
    src.write_bytes(pickle.dumps({'model': {n: t.numpy() for n, t in state.items()}}))
    with pytest.raises(ConversionError, match='--trust'):
        convert_checkpoint(src, dst)
    assert not dst.exists()
    assert convert_checkpoint(src, dst, trust=True).matched == 132


def test_pixels_that_the_file_states(convert, lite):
    usual = {
        'pixel_mean': torch.tensor([103.53, 116.28, 123.675]).reshape(3, 1, 1),
        'pixel_std': torch.ones(3, 1, 1),
    }
    report, result = convert(lite | usual)
    assert report.matched == report.total == 194
    assert report.notes == [f'config: {Path(LITE).name}']
    report, result = convert(
        lite | usual | {'pixel_std': torch.full((3, 1, 1), 11.578)}
    )
    assert result['meta']['pixels']['std'] == (11.578, 11.578, 11.578)
    assert report.notes[0] == (
        'data_preprocessor: mean=[103.53, 116.28, 123.675], '
        'std=[11.578, 11.578, 11.578], bgr_to_rgb=False'
    )


def test_centermask1(convert, repository):
    """eps taken off the variance, background off the mask branch, what it needs."""
    names = centermask1('V-39')
    config = 'configs/centermask/centermask_v39_fpn_ms-3x_coco.py'
    here = shapes_of(build(Config.fromfile(repository / config).model))
    shapes = {old: here[new] or (1,) for old, new in names.items()}
    predictors = (
        'roi_heads.mask.predictor.mask_fcn_logits.bias',
        'roi_heads.mask.predictor.mask_fcn_logits.weight',
        'roi_heads.maskiou.predictor.maskiou.bias',
        'roi_heads.maskiou.predictor.maskiou.weight',
    )
    shapes |= {name: (81, *shapes[name][1:]) for name in predictors}
    var = 'backbone.body.stage4.OSA4_2.layers.3.OSA4_2_3/norm.running_var'
    some = {name: shapes[name] for name in (var, *predictors)}
    file = tagged(shapes) | random_state(some)
    report, result = convert({f'module.{n}': t for n, t in file.items()})
    state = result['state_dict']
    assert report.headline == 'V-39, CenterMask v1, 293 of 293 tensors'
    for name in predictors:
        assert torch.equal(state[names[name]], file[name][1:])
    logits = 'rpn.head.cls_logits.weight'
    assert torch.equal(state['bbox_head.conv_cls.weight'], file[logits])
    wanted = (file[var].double() - 1e-5).float()
    assert (state[names[var]] - wanted).abs().max() < 1e-7
    said = '\n'.join(report.notes)
    assert 'norm_on_bbox=False' in said
    assert 'mean=[102.9801, 115.9465, 122.7717], std=[1.0, 1.0, 1.0]' in said


def test_things_of_the_semantic_head():
    """detectron2 counts `things` first, MMDetection last."""
    from mmdet_centermask.convert.draft import start

    names = centermask2(vovnet('V-19-slim'), panoptic=True)
    own = shapes_of(build(dict(type='VoVNet', arch='V-19-slim')), 'backbone.')
    tensors = {o: torch.zeros(own.get(n, (1,))) for o, n in names.items()}
    tensors['sem_seg_head.predictor.bias'] = torch.arange(54.0)
    state = start(tensors).state
    assert state['semantic_head.conv_logits.bias'].tolist() == [*range(1, 54), 0]


def test_timm_gates_and_folding(convert, tmp_path):
    """V-39 out of timm: the gates it lacks are open, the first conv sees BGR."""
    file = backbone_state(timm_vovnet('V-39'), 'V-39')
    report, result = convert(file, fold_rgb=True)
    assert report.headline == 'V-39, timm, 203 of 207 tensors, 4 filled'
    state = result['state_dict']
    # checkpoints.md: OSA4_1 and OSA5_1 have no gate in timm.
    for gate in ('stages.2.blocks.0.ese.fc', 'stages.3.blocks.0.ese.fc'):
        assert not state[f'{gate}.weight'].any()
        assert (state[f'{gate}.bias'] == 3).all()
    conv = file['stem.0.conv.weight']
    blue = conv[:, 2] / 57.375
    torch.testing.assert_close(state['stem.0.conv.weight'][:, 0], blue)
    assert result['meta']['pixels'] == dict(
        mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0), bgr_to_rgb=False
    )
    assert set(state) == set(shapes_of(build(dict(type='VoVNet', arch='V-39'))))


def test_timm_without_folding_says_which_pixels(convert):
    report, _ = convert(backbone_state(timm_vovnet('V-19-dw'), 'V-19-dw'))
    assert report.headline == 'V-19-dw, timm depthwise, 137 of 137 tensors'
    assert report.notes[0] == (
        'data_preprocessor: mean=[123.675, 116.28, 103.53], '
        'std=[58.395, 57.12, 57.375], bgr_to_rgb=True'
    )


def test_timm_57b_is_not_folded(convert):
    with pytest.raises(ConversionError, match='cannot be folded exactly'):
        convert(backbone_state(timm_vovnet('V-57'), 'V-57'), fold_rgb=True)


def test_damaged_gate_of_timm_is_missing_not_filled(convert):
    file = backbone_state(timm_vovnet('V-39'), 'V-39')
    del file['stages.2.blocks.1.attn.fc.bias']
    report, _ = convert(file)
    assert report.problems() == ['missing     backbone.stages.2.blocks.1.ese.fc.bias']


def test_counters_of_batch_norm(convert):
    """Kept where the file has them, zero where it does not; never a misfit."""
    file = backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim')
    file['stem.0.bn.num_batches_tracked'] = torch.tensor(1 << 33)
    report, result = convert(file)
    assert report.headline == 'V-19-slim, timm, 103 of 103 tensors'
    counters = {
        n: t.item() for n, t in result['state_dict'].items() if n.endswith('tracked')
    }
    assert counters.pop('stem.0.bn.num_batches_tracked') == 1 << 33
    assert len(counters) == 18 and set(counters.values()) == {0}


def test_source_is_never_overwritten(tmp_path):
    src = tmp_path / 'src.pth'
    torch.save(backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim'), src)
    before = src.read_bytes()
    for dst in (src, tmp_path / '.' / 'src.pth', tmp_path):
        with pytest.raises(ConversionError, match='no place to write'):
            convert_checkpoint(src, dst)
    assert src.read_bytes() == before


def test_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    src, dst = tmp_path / 'src.pth', tmp_path / 'dst.pth'
    torch.save(backbone_state(timm_vovnet('V-19-slim'), 'V-19-slim'), src)
    dst.write_text('precious')

    def fail(content, path):
        Path(path).write_bytes(b'half of it')
        raise OSError('No space left on device')

    monkeypatch.setattr(torch, 'save', fail)
    with pytest.raises(OSError, match='No space'):
        convert_checkpoint(src, dst)
    assert dst.read_text() == 'precious'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['dst.pth', 'src.pth']


def test_not_a_known_backbone(convert):
    state = backbone_state(vovnet('V-19-slim'), 'V-19-slim')
    with pytest.raises(ConversionError, match='the backbone is none of V-19-slim-dw, '):
        convert({n: t[..., :1] for n, t in state.items()})


def load_tool(repository: Path):
    path = repository / 'tools' / 'convert_checkpoint.py'
    spec = importlib.util.spec_from_file_location('convert_checkpoint', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_says_one_sentence(repository, tmp_path, capsys):
    (tmp_path / 'a.pth').write_text('<html>')
    code = load_tool(repository).main(
        [str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')]
    )
    assert code == 1
    assert capsys.readouterr().err == (
        f'error: {tmp_path}/a.pth: not a checkpoint but a web page, '
        'so the download failed\n'
    )
    assert not (tmp_path / 'b.pth').exists()


def test_command_passes_options(repository):
    args = load_tool(repository).parse_args(
        ['a', 'b', '--classes', '0,2,7', '--fold-rgb', '--trust', '--backbone-only']
    )
    assert vars(args) == dict(
        src='a', dst='b', classes=[0, 2, 7], num_classes=None, fold_rgb=True,
        trust=True, backbone_only=True, config=None, source=None,
    )  # fmt: skip


def test_help_needs_no_torch(repository):
    """mim asks for it; without site-packages only a late import can answer."""
    tool = repository / 'tools' / 'convert_checkpoint.py'
    done = subprocess.run(
        [sys.executable, '-I', '-S', str(tool), '-h'], capture_output=True, text=True
    )
    assert done.returncode == 0 and '--fold-rgb' in done.stdout
