"""A backbone file fits or is refused; nothing trains on from a silent mismatch."""

import pytest
import torch

from mmdet_centermask.models.pretrained import find_misfits
from mmdet_centermask.models.vovnet import VoVNet


def make_backbone(checkpoint, **kwargs):
    init_cfg = dict(type='Pretrained', checkpoint=str(checkpoint), **kwargs)
    return VoVNet('V-19-slim-dw', init_cfg=init_cfg)


@pytest.fixture
def source():
    torch.manual_seed(0)
    backbone = VoVNet('V-19-slim-dw')
    backbone.init_weights()
    return backbone


def test_a_full_file_is_loaded_bit_by_bit(tmp_path, source):
    torch.save(dict(state_dict=source.state_dict()), tmp_path / 'b.pth')
    backbone = make_backbone(tmp_path / 'b.pth')
    backbone.init_weights()
    for key, tensor in source.state_dict().items():
        assert torch.equal(backbone.state_dict()[key], tensor), key


def test_prefix_takes_the_backbone_out_of_a_detector(tmp_path, source):
    state = {f'backbone.{k}': v for k, v in source.state_dict().items()}
    torch.save(dict(state, **{'neck.x': torch.ones(1)}), tmp_path / 'd.pth')
    backbone = make_backbone(tmp_path / 'd.pth', prefix='backbone')
    backbone.init_weights()
    key = 'stem.0.conv.weight'
    assert torch.equal(backbone.state_dict()[key], source.state_dict()[key])
    with pytest.raises(ValueError, match=r'prefix=None.*stem\.0\.conv\.weight is miss'):
        make_backbone(tmp_path / 'd.pth').init_weights()


def test_misfits_are_named_and_nothing_is_loaded(tmp_path, source):
    state = source.state_dict()
    del state['stem.0.bn.bias']
    state['stages.0.blocks.0.ese.fc.bias'] = torch.zeros(7)
    torch.save(state, tmp_path / 'b.pth')
    backbone = make_backbone(tmp_path / 'b.pth')
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(ValueError) as error:
        backbone.init_weights()
    assert 'stem.0.bn.bias is missing' in str(error.value)
    assert 'stages.0.blocks.0.ese.fc.bias is (7,) instead of (112,)' in str(error.value)
    assert f', 2 of {len(before)} tensors' in str(error.value)
    for key, tensor in backbone.state_dict().items():
        assert torch.equal(before[key], tensor), key


def test_a_missing_file_says_how_to_come_by_one(tmp_path):
    with pytest.raises(FileNotFoundError, match='convert_checkpoint.*init_cfg=None'):
        make_backbone(tmp_path / 'none.pth').init_weights()


def test_what_a_file_may_miss():
    one, two = torch.zeros(1), torch.zeros(2)
    own = {
        'a.weight': one,
        'bn.num_batches_tracked': one,
        'c.conv_offset.weight': one,
        'c.conv_offset.bias': one,
    }
    assert find_misfits(own, {'a.weight': one}) == []
    assert find_misfits(own, {}) == ['a.weight is missing']
    # What is there has to fit all the same.
    wrong = {'a.weight': one, 'c.conv_offset.bias': two}
    assert find_misfits(own, wrong) == ['c.conv_offset.bias is (2,) instead of (1,)']
