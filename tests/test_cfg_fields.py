"""Fields of train_cfg and test_cfg: what is wrong is named before the first step."""

from __future__ import annotations

import pytest
from tiny_centermask import tiny_config

from mmdet_centermask.models.cfg_fields import TEST_CFG, TRAIN_CFG, check_cfg


@pytest.mark.parametrize(
    'field, value, message',
    [
        ('proposal', 3, 'proposal=3 must be a dict with score_thr, nms_pre, nms'),
        ('proposal.nms_pre', 0.5, 'proposal.nms_pre=0.5 must be a whole number'),
        ('proposal.score_thr', True, 'proposal.score_thr=True must be a number'),
        ('proposal.score_thr', 1.0, 'proposal.score_thr=1.0 must lie in 0..1'),
        ('rcnn.mask_size', 'text', "rcnn.mask_size='text' must be a size"),
        ('rcnn.mask_size', [], 'rcnn.mask_size=[] must be one or two whole numbers'),
        ('rcnn.mask_size', [28], 'rcnn.mask_size=[28] must be one or two whole'),
        ('rcnn.mask_size', [28, 'b'], "rcnn.mask_size=[28, 'b'] must be one or two"),
        ('rcnn.mask_size', 0, 'rcnn.mask_size=0 must be one or two whole numbers'),
    ],
)
def test_a_wrong_field_is_named(field, value, message):
    cfg = tiny_config().train_cfg
    *path, name = field.split('.')
    node = cfg
    for part in path:
        node = node[part]
    node[name] = value
    with pytest.raises(ValueError) as error:
        check_cfg(cfg, TRAIN_CFG, 'CenterMask: train_cfg')
    assert str(error.value).startswith(f'CenterMask: train_cfg.{message}')


def test_a_missing_field_is_named():
    cfg = tiny_config().test_cfg
    del cfg.rcnn['mask_thr_binary']
    with pytest.raises(ValueError, match=r'^test_cfg\.rcnn\.mask_thr_binary is miss'):
        check_cfg(cfg, TEST_CFG, 'test_cfg')


@pytest.mark.parametrize('size', [28, [28, 28], (28, 14)])
def test_right_fields_pass(size):
    cfg = tiny_config()
    cfg.train_cfg.rcnn.mask_size = size
    check_cfg(cfg.train_cfg, TRAIN_CFG, 'train_cfg')
    check_cfg(cfg.test_cfg, TEST_CFG, 'test_cfg')
