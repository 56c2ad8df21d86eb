"""Configs are found by path first, then by name among the package's own."""

import pytest

from mmdet_centermask.config_path import PACKAGE_CONFIGS, find_config


@pytest.fixture
def configs(tmp_path):
    folder = tmp_path / 'configs' / 'family'
    folder.mkdir(parents=True)
    (folder / 'small_fpn_coco.py').write_text('x = 1\n')
    return tmp_path / 'configs'


@pytest.mark.parametrize(
    'name',
    ['small_fpn_coco', 'small_fpn_coco.py', 'configs/elsewhere/small_fpn_coco.py'],
)
def test_name_is_found_below_the_folder(configs, name):
    assert find_config(name, configs) == str(configs / 'family' / 'small_fpn_coco.py')


def test_existing_path_wins_over_the_package(configs, tmp_path, monkeypatch):
    (tmp_path / 'small_fpn_coco.py').write_text('x = 2\n')
    monkeypatch.chdir(tmp_path)
    assert find_config('small_fpn_coco.py', configs) == 'small_fpn_coco.py'


def test_folder_may_be_a_symlink(configs, tmp_path):
    (tmp_path / 'link').symlink_to(configs)
    found = find_config('small_fpn_coco', tmp_path / 'link')
    # The real place, so that the config's relative `_base_` paths hold.
    assert found == str((configs / 'family' / 'small_fpn_coco.py').resolve())


def test_unknown_name_is_one_line_with_similar_names(configs):
    with pytest.raises(FileNotFoundError) as error:
        find_config('smal_fpn_coco.py', configs)
    assert str(error.value) == (
        "config='smal_fpn_coco.py' is neither a file nor a config of "
        'mmdet_centermask; similar names: small_fpn_coco'
    )


def test_names_are_unique_in_the_package():
    # mim refuses a name that two configs share.
    names = [path.name for path in PACKAGE_CONFIGS.resolve().rglob('*.py')]
    leaves = [name for name in names if not name.startswith('_')]
    assert leaves
    assert len(leaves) == len(set(leaves))
