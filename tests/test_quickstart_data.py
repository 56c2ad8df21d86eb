"""The quickstart set: repeatable, exact to the pixel, and with every hard case in it.

Oracles: pycocotools reads and decodes, scipy.ndimage counts parts and holes.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

pytest.importorskip('skimage')
COCO = pytest.importorskip('pycocotools.coco').COCO

TOOL = Path(__file__).parents[1] / 'tools' / 'make_quickstart_data.py'
SMALL = ['--train', '16', '--val', '24', '--size', '96']


def load_tool():
    spec = importlib.util.spec_from_file_location('make_quickstart_data', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tool = load_tool()


def contents(folder):
    """Return {relative path: bytes} of all files below a folder."""
    files = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def refusal(*argv):
    """Run the tool where it must refuse; return its message, which is one line."""
    with pytest.raises(SystemExit) as caught:
        tool.main([str(arg) for arg in argv])
    message = caught.value.code
    assert isinstance(message, str) and '\n' not in message
    return message


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp('quickstart') / 'set'
    tool.main([str(out), *SMALL])
    return out


@pytest.fixture(scope='module', params=['train', 'val'])
def coco(request, folder):
    loaded = COCO(str(folder / 'annotations' / f'{request.param}.json'))
    loaded.pictures = folder / request.param
    return loaded


def filled_holes(mask):
    """Return the background that the mask, joined along edges, shuts in."""
    return ndimage.binary_fill_holes(mask, np.ones((3, 3))) & (mask == 0)


def whole(shape, side=64):
    """Rasterise an upright shape of radius 0.4 * side, uncovered: (side, side) bool."""
    axis = (np.arange(side) + 0.5 - side / 2) / (0.4 * side)
    return shape(axis[None], axis[:, None])


def test_same_seed_same_bytes_in_another_process(folder, tmp_path):
    env = dict(os.environ, PYTHONHASHSEED='7', OMP_NUM_THREADS='1')
    command = [sys.executable, TOOL, tmp_path / 'again', *SMALL]
    subprocess.run(command, env=env, check=True, capture_output=True)
    assert contents(tmp_path / 'again') == contents(folder)


def test_seed_changes_pictures_and_masks_and_train_leaves_val_alone(folder, tmp_path):
    tool.main([str(tmp_path / 'seed'), *SMALL, '--seed', '1'])
    tool.main([str(tmp_path / 'train'), *SMALL, '--train', '4'])
    old, other = contents(folder), contents(tmp_path / 'seed')
    assert old.keys() == other.keys()
    assert not [name for name in old if old[name] == other[name]]
    fewer = contents(tmp_path / 'train')
    assert fewer['annotations/val.json'] == old['annotations/val.json']
    assert fewer['val/000024.jpg'] == old['val/000024.jpg']


def test_splits_use_different_photographs():
    assert not set(tool.PHOTOS['train']) & set(tool.PHOTOS['val'])


def test_pictures_and_ids_are_what_the_file_says(coco):
    assert set(coco.dataset) == {
        'info', 'licenses', 'images', 'annotations', 'categories',
    }  # fmt: skip
    names = {image['file_name'] for image in coco.imgs.values()}
    assert names == {path.name for path in coco.pictures.iterdir()}
    for image in coco.imgs.values():
        with Image.open(coco.pictures / image['file_name']) as picture:
            assert picture.size == (image['width'], image['height'])
            assert picture.mode == 'RGB'
    assert len({(i['width'], i['height']) for i in coco.imgs.values()}) == 3
    assert sorted(coco.anns) == list(range(1, len(coco.dataset['annotations']) + 1))
    assert sorted(coco.cats) == list(range(1, len(coco.cats) + 1))
    assert len(coco.cats) >= 4
    assert {ann['category_id'] for ann in coco.anns.values()} == set(coco.cats)


def test_bbox_and_area_are_those_of_the_decoded_mask(coco):
    for ann in coco.anns.values():
        mask = coco.annToMask(ann)
        rows, columns = ndimage.find_objects(mask)[0]
        box = [columns.start, rows.start, columns.stop, rows.stop]
        x, y, width, height = ann['bbox']
        assert [x, y, x + width, y + height] == box
        assert ann['area'] == mask.sum() >= tool.MIN_AREA
        assert ann['iscrowd'] == 0


def test_polygons_and_rle_both_occur(coco):
    kinds = [type(ann['segmentation']) for ann in coco.anns.values()]
    assert min(kinds.count(list), kinds.count(dict)) >= len(kinds) // 5
    for ann in coco.anns.values():
        if isinstance(ann['segmentation'], list):
            mask = coco.annToMask(ann)
            assert ndimage.label(mask)[1] == 1
            assert not filled_holes(mask).any()
        else:
            assert isinstance(ann['segmentation']['counts'], str)
    rle = [ann for ann in coco.anns.values() if isinstance(ann['segmentation'], dict)]
    assert any(tool.exact_polygon(coco.annToMask(ann)) for ann in rle)


@pytest.mark.parametrize('row', tool.CATEGORIES, ids=lambda row: row[0])
def test_polygon_of_a_whole_shape_decodes_to_the_very_mask(row):
    mask = whole(row[1])
    polygon = tool.exact_polygon(mask)
    if row[0] == 'ring':
        assert polygon is None
        return
    image = dict(id=1, height=64, width=64)
    ann = dict(id=1, image_id=1, category_id=1, segmentation=[polygon])
    coco = COCO()
    coco.dataset = dict(images=[image], annotations=[ann], categories=[])
    coco.createIndex()
    assert np.array_equal(coco.annToMask(ann), mask)


def test_no_polygon_where_one_is_not_enough():
    parts = np.zeros((9, 9), bool)
    parts[1:3, 1:3] = parts[5:8, 5:8] = True
    assert tool.exact_polygon(parts) is None
    hole = np.zeros((9, 9), bool)
    hole[1:8, 1:8] = True
    hole[4, 4] = False
    assert tool.exact_polygon(hole) is None


def test_shapes_have_the_areas_of_geometry():
    """Areas in units of the radius squared; a ring of radii 1 and 0.5 has one hole."""
    # Two circles, radii 1 and r, centres d apart: the lens they share.
    side, r, d = 400, 0.75, 0.6
    one = np.arccos((d**2 + 1 - r**2) / (2 * d))
    two = np.arccos((d**2 + r**2 - 1) / (2 * d * r))
    lens = one + r**2 * two - d * np.sin(one)
    areas = dict(
        disc=np.pi,
        ring=np.pi * 0.75,
        star=10 * 0.5 * 1.0 * 0.58 * np.sin(np.pi / 5),
        crescent=np.pi - lens,
        cross=4 * (2 * 0.94 * 0.4) - 4 * 0.4**2,
    )
    masks = {name: whole(shape, side) for name, shape, _ in tool.CATEGORIES}
    for name, area in areas.items():
        assert masks[name].sum() / (0.4 * side) ** 2 == pytest.approx(area, rel=0.01)
    holes = {n: ndimage.label(filled_holes(m))[1] for n, m in masks.items()}
    assert holes == dict(disc=0, ring=1, star=0, cross=0, crescent=0)


def test_rings_show_the_background_through_their_hole(coco):
    ring = coco.getCatIds('ring')
    masks = [coco.annToMask(ann) for ann in coco.loadAnns(coco.getAnnIds(catIds=ring))]
    # A ring cut by the border or a later object is open: most are not.
    assert sum(filled_holes(m).any() for m in masks) >= len(masks) / 2


def test_nothing_is_painted_inside_a_ring():
    rng, seen = np.random.default_rng(3), 0
    for _ in range(30):
        picture, objects = tool.compose(rng, np.full((96, 96, 3), 77.0), 1)
        for category, mask in objects:
            hole = ndimage.binary_erosion(filled_holes(mask))
            assert (picture[hole] == 77).all()
            seen += category == 2 and hole.sum() > 20
    assert seen >= 2


def test_objects_overlap_and_masks_share_no_pixel(coco):
    """A visible-part mask touches its occluder and never holds one of its pixels."""
    occluded = 0
    for image_id, image in coco.imgs.items():
        masks = [coco.annToMask(ann) for ann in coco.imgToAnns[image_id]]
        total = np.zeros((image['height'], image['width']), int)
        for mask in masks:
            total += mask
            grown = [ndimage.binary_dilation(mask, iterations=1) & (m > 0)
                     for m in masks if m is not mask]  # fmt: skip
            occluded += any(touch.sum() >= 8 for touch in grown)
        assert total.max() <= 1
    assert occluded >= 2


def test_compose_paints_later_objects_over_earlier_ones(monkeypatch):
    """The picture and the visible masks follow from the covers alone."""
    flat, drawn, render = np.full((96, 96, 3), 128.0), [], tool.render_object

    def record(rng, category, height, width):
        drawn.append((category + 1, *render(rng, category, height, width)))
        return drawn[-1][1:]

    monkeypatch.setattr(tool, 'render_object', record)
    picture, objects = tool.compose(np.random.default_rng(11), flat, 6)
    assert picture.dtype == np.uint8 and len(objects) >= 4
    kept = [
        next(i for i, (c, cover, _) in enumerate(drawn) if c == category
             and (mask <= (cover >= 0.5)).all())
        for category, mask in objects
    ]  # fmt: skip
    expected = flat.copy()
    for i in kept:
        expected += drawn[i][1][..., None] * (drawn[i][2] - expected)
    assert kept == sorted(kept)
    np.testing.assert_array_equal(picture, np.clip(np.rint(expected), 0, 255))
    covers = [drawn[i][1] >= 0.5 for i in kept]
    for place, (_, mask) in enumerate(objects):
        above = np.any(covers[place + 1 :], axis=0) if covers[place + 1 :] else False
        np.testing.assert_array_equal(mask, covers[place] & ~above)


def test_no_object_is_nearly_hidden():
    rng, flat = np.random.default_rng(0), np.zeros((64, 53, 3))
    for _ in range(40):
        _, objects = tool.compose(rng, flat, 6)
        assert all(mask.sum() >= tool.MIN_AREA for _, mask in objects)


def test_some_images_are_empty_and_listed(coco):
    empty = [i for i in coco.imgs if not coco.imgToAnns[i]]
    assert 1 <= len(empty) <= len(coco.imgs) // 8


def test_sizes_run_from_12_pixels_to_three_quarters_of_the_side():
    rng = np.random.default_rng(0)
    sides = []
    for _ in range(400):
        cover, _ = tool.render_object(rng, 0, 192, 192)
        sides.append(np.sqrt(4 / np.pi * cover.sum()))  # border cuts shrink a few
    assert 8 < min(sides) < 16
    assert 120 < max(sides) < 148
    # Triangular between 0.22, 0.42 and 0.75 of 192, and a twelfth of small ones.
    assert np.median(sides) == pytest.approx(83, abs=6)


def test_a_second_run_returns_at_once_and_force_writes_again(tmp_path, capsys):
    out = tmp_path / 'set'
    argv = [str(out), '--train', '2', '--val', '2', '--size', '64']
    tool.main(argv)
    before = contents(out)
    picture = out / 'train' / '000001.jpg'
    picture.write_bytes(b'')
    capsys.readouterr()
    tool.main(argv)
    assert 'already holds' in capsys.readouterr().out
    assert picture.read_bytes() == b''
    tool.main([*argv, '--force'])
    assert contents(out) == before


def test_other_parameters_and_broken_off_sets_are_replaced(tmp_path):
    out = tmp_path / 'set'
    argv = [str(out), '--train', '2', '--val', '2', '--size', '64']
    tool.main([*argv, '--train', '3'])
    tool.main(argv)
    assert len(list((out / 'train').iterdir())) == 2
    before = contents(out)
    manifest = json.loads((out / tool.MANIFEST).read_text())
    (out / tool.MANIFEST).write_text(json.dumps(dict(manifest, complete=False)))
    (out / 'val' / '000002.jpg').unlink()
    tool.main(argv)
    assert contents(out) == before


def test_foreign_folders_are_left_alone(tmp_path):
    train = tmp_path / 'train'
    train.mkdir()
    (train / 'mine.jpg').write_bytes(b'mine')
    for text in (None, '[]', '{"seed": 0}', 'nonsense'):
        if text is not None:
            (tmp_path / tool.MANIFEST).write_text(text)
        message = refusal(tmp_path, *SMALL, '--force')
        assert str(tmp_path) in message and 'holds other files' in message
        assert (train / 'mine.jpg').read_bytes() == b'mine'


def test_errors_name_field_and_value(tmp_path):
    file = tmp_path / 'file'
    file.write_text('')
    assert 'is a file' in refusal(file)
    assert 'OUT_DIR' in refusal(file / 'below')
    for option, value in (('train', 1), ('val', 0), ('size', 63), ('seed', -1)):
        message = refusal(tmp_path / 'set', f'--{option}', value)
        assert f'--{option} {value}' in message
    assert not (tmp_path / 'set').exists()


def test_missing_scikit_image_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'skimage', None)
    message = refusal(tmp_path / 'set', *SMALL)
    assert 'scikit-image is missing' in message
    assert '-m pip install scikit-image' in message
    assert not (tmp_path / 'set').exists()


def test_help_imports_nothing_heavy():
    code = (
        'import runpy, sys\n'
        'try: runpy.run_path(sys.argv[1], run_name="__main__")\n'
        'except SystemExit: pass\n'
        'sys.exit(str({"PIL", "skimage", "pycocotools", "torch"} & set(sys.modules)))'
    )
    command = [sys.executable, '-c', code, str(TOOL), '-h']
    result = subprocess.run(command, capture_output=True, text=True)
    assert 'OUT_DIR' in result.stdout
    assert result.stderr.strip() == 'set()'
