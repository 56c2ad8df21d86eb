"""A failed build is one line: where in the config, which class, what it said."""

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from tiny_centermask import tiny_config, tiny_model

from mmdet_centermask.build_errors import build_error
from mmdet_centermask.experiment import BUILD_ERRORS, ExperimentError, build_runner


def sentence_for(**changes) -> str:
    cfg = tiny_config(**changes)
    with pytest.raises(BUILD_ERRORS) as caught:
        MODELS.build(cfg)
    return build_error(caught.value, {'model': cfg})


@pytest.fixture(autouse=True)
def scope():
    tiny_model()


def test_an_assertion_without_words_shows_its_line():
    assert sentence_for(bbox_head__conv_bias='yes').startswith(
        'model.bbox_head: FCOSHead cannot be built: AssertionError: '
        "conv_bias == 'auto' or isinstance(conv_bias, bool) (anchor_free_head.py, line "
    )


def test_unknown_argument():
    assert sentence_for(backbone__archh='V-39').startswith(
        'model: CenterMask cannot be built: TypeError: VoVNet.__init__() got an '
        "unexpected keyword argument 'archh'"
    )


def test_unknown_class():
    sentence = sentence_for(roi_head__mask_head__type='SAGMaskHed')
    assert sentence.startswith('model.roi_head: CenterMaskRoIHead cannot be built: ')
    assert 'SAGMaskHed is not in the mmdet::model registry' in sentence


def test_own_words_are_kept_and_the_innermost_class_is_named():
    assert sentence_for(backbone__frozen_stages=7).startswith(
        'model.backbone: VoVNet cannot be built: ValueError: '
        'VoVNet: frozen_stages=7 must lie in -1..4 (vovnet.py, line '
    )


def test_the_commands_say_it(tmp_path):
    model = tiny_config(neck__num_outs='five')
    cfg = Config(dict(default_scope='mmdet', model=model, work_dir=str(tmp_path)))
    with pytest.raises(ExperimentError, match=r'^model\.neck: FPN cannot be built: '):
        build_runner(cfg)
