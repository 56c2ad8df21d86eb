"""Write a small COCO instance segmentation set, in seconds and without a network.

Textured objects of five classes lie on crops of real photographs, which
scikit-image carries in its wheel (all CC0 or public domain; train and val use
different ones). Later objects cover earlier ones, and a mask is the part one can
see, exact to the pixel. One random generator per split: the same seed writes the
same bytes under the same library versions, and val does not depend on ``--train``.

    python tools/make_quickstart_data.py data/quickstart

writes ``{train,val}/*.jpg``, ``annotations/{train,val}.json`` and ``quickstart.json``.
With ``--panoptic`` the same pictures also come in COCO's panoptic format, with the
background as stuff: ``annotations/panoptic_{train,val}.json`` and a folder of PNGs of
the same name each.

Shape shorthand: H, W: height and width of a picture in pixels; pixel (row i, column
j) has its centre at (x, y) = (j + 0.5, i + 0.5). Object frame: (u, v) with the origin
at the object's centre, the radius as its unit and the object's own rotation.
"""

import argparse
import colorsys
import json
import math
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np

VERSION = 2  # raise it when the same parameters would give another set
MANIFEST = 'quickstart.json'  # the parameters; written by this script alone
PHOTOS = dict(
    train=('astronaut', 'cat', 'rocket', 'hubble_deep_field', 'grass', 'gravel'),
    val=('coffee', 'camera', 'brick'),
)
GROUND = ('grass', 'gravel', 'brick')  # one even texture; the others show a scene
MIN_DIAMETER = 12  # pixels
MIN_AREA = 32  # pixels of an object that can be seen
MIN_VISIBLE = 0.5  # of what could be seen before later objects came
SAMPLES = 3  # per pixel and axis, for smooth edges
OPTIONS = dict(  # default, lowest, highest
    seed=(0, 0, 2**32), train=(600, 2, 10**5), val=(60, 2, 10**5), size=(160, 64, 1024)
)
NEEDS = dict(PIL='pillow', pycocotools='pycocotools', skimage='scikit-image')


# Names of what is behind the objects; the ids go on from those of CATEGORIES.
STUFF = ('scene', 'ground')


# Shapes: (u, v) in the object frame -> bool array, True inside.
def disc(u, v, radius=1.0):
    return u * u + v * v <= radius * radius


def cross(u, v):
    u, v = np.abs(u), np.abs(v)
    return (np.minimum(u, v) <= 0.4) & (np.maximum(u, v) <= 0.94)


def star(u, v):
    turns = [(1.0 if k % 2 else 0.58, k * math.pi / 5) for k in range(10)]
    corners = [(r * math.sin(t), r * math.cos(t)) for r, t in turns]
    inside = np.zeros(np.broadcast(u, v).shape, bool)
    for (u0, v0), (u1, v1) in zip(corners, corners[1:] + corners[:1], strict=True):
        inside ^= ((v0 > v) != (v1 > v)) & (u < (u1 - u0) * (v - v0) / (v1 - v0) + u0)
    return inside


# Textures: (u, v) in cells of the pattern and rng -> share of the first colour.
def noise(u, v, rng):
    rows, columns = ((2 * t // 1).astype(int) % 16 for t in (u, v))
    return rng.random((16, 16))[rows, columns]


# Name, shape, texture; the category id is the place in the table, from 1.
CATEGORIES = (
    ('disc', disc, lambda u, v, rng: u // 1 % 2),  # stripes
    (
        'ring',
        lambda u, v: disc(u, v) & ~disc(u, v, radius=0.5),
        lambda u, v, rng: ~disc(u % 1 - 0.5, v % 1 - 0.5, radius=0.32),  # dots
    ),
    ('star', star, noise),
    ('cross', cross, lambda u, v, rng: (u // 1 + v // 1) % 2),  # checker
    (
        'crescent',
        lambda u, v: disc(u, v) & ~disc(u - 0.6, v, radius=0.75),
        lambda u, v, rng: np.abs(v / 2 % 2 - 1),  # soft bands
    ),
)


def draw_colours(rng, category):
    """Return two contrasting RGB colours, (2, 3) in [0, 255].

    Each class has a hue of its own, give or take, as fruit does; the second colour
    is a light or a dark one of the same hue.
    """
    hue = category / len(CATEGORIES) + rng.uniform(-0.06, 0.06)
    first = colorsys.hsv_to_rgb(hue, rng.uniform(0.8, 1), rng.uniform(0.8, 1))
    second = colorsys.hsv_to_rgb(
        hue, *((0.15, 1.0) if rng.random() < 0.5 else (0.9, 0.35))
    )
    return 255 * np.array([first, second])


def render_object(rng, category, height, width):
    """Draw one object at a random place, size, rotation and colour.

    Returns its cover of each pixel, (H, W) in [0, 1], and its colour, (H, W, 3).
    """
    _, shape, texture = CATEGORIES[category]
    side = min(height, width)
    radius = rng.triangular(side * 0.22, side * 0.42, side * 0.75) / 2
    if rng.random() < 1 / 12:
        radius = rng.uniform(MIN_DIAMETER, 2 * MIN_DIAMETER) / 2
    x = rng.uniform(radius / 2, width - radius / 2)
    y = rng.uniform(radius / 2, height - radius / 2)
    angle = rng.uniform(0, 2 * math.pi)
    cos, sin = math.cos(angle) / radius, math.sin(angle) / radius

    left, top = max(0, int(x - radius)), max(0, int(y - radius))
    right, bottom = min(width, int(x + radius) + 1), min(height, int(y + radius) + 1)
    dx = (np.arange((right - left) * SAMPLES) + 0.5) / SAMPLES + left - x
    dy = ((np.arange((bottom - top) * SAMPLES) + 0.5) / SAMPLES + top - y)[:, None]
    u, v = cos * dx + sin * dy, cos * dy - sin * dx

    def per_pixel(samples):
        canvas = np.zeros((height, width))
        blocks = samples.reshape(bottom - top, SAMPLES, right - left, SAMPLES)
        canvas[top:bottom, left:right] = blocks.mean(axis=(1, 3))
        return canvas

    cell = max(2.5 / radius, rng.uniform(0.25, 0.4))
    share = per_pixel(texture(u / cell, v / cell, rng))[..., None]
    first, second = draw_colours(rng, category)
    shade = per_pixel(1.05 - 0.3 * np.minimum(u * u + v * v, 1))[..., None]
    return per_pixel(shape(u, v)), shade * (share * first + (1 - share) * second)


def compose(rng, background, count):
    """Lay up to ``count`` objects on a picture, later ones over earlier ones.

    A place where the object, or one below it, could hardly be seen is not taken.

    Args:
        background: (H, W, 3) in [0, 255].

    Returns the picture, (H, W, 3) uint8, and a list of (category id, mask), where
    the mask, (H, W) bool, is the object's visible part.
    """
    image, ids, masks = background, [], []
    least = []  # pixels of each object so far that have to stay in sight
    for _ in range(count):
        category = int(rng.integers(len(CATEGORIES)))
        for _ in range(10):
            cover, colour = render_object(rng, category, *image.shape[:2])
            top = cover >= 0.5
            visible = [mask & ~top for mask in masks] + [top]
            limits = [*least, MIN_AREA]
            if all(m.sum() >= n for m, n in zip(visible, limits, strict=True)):
                image = image + cover[..., None] * (colour - image)
                ids.append(category + 1)
                masks = visible
                least.append(max(MIN_AREA, MIN_VISIBLE * top.sum()))
                break
    image = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return image, list(zip(ids, masks, strict=True))


def draw_background(rng, photo, height, width):
    """Cut a random window from a photograph and change its light a little.

    Returns (H, W, 3) float in [0, 255].
    """
    from PIL import Image

    zoom = rng.uniform(0.5, 1) * min(photo.width / width, photo.height / height)
    w, h = zoom * width, zoom * height
    x, y = rng.uniform(0, photo.width - w), rng.uniform(0, photo.height - h)
    box = (x, y, x + w, y + h)
    crop = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR, box))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    contrast, light = rng.uniform(0.5, 0.9), rng.uniform(-20, 20)
    tint = rng.uniform(0.8, 1.2, 3)
    return np.clip(((crop - 128.0) * contrast + 128 + light) * tint, 0, 255)


def exact_polygon(mask):
    """Return a mask, (H, W) bool, as a flat polygon [x0, y0, x1, y1, ...].

    Returns None where one polygon cannot say it: holes, several parts, or any pixel
    that pycocotools would fill otherwise.
    """
    from pycocotools import mask as coco_mask
    from skimage.measure import find_contours

    outlines = find_contours(np.pad(mask, 1).astype(float), 0.5)
    # Closed, (row, column) of padded pixel centres -> (x, y), a pixel's edge at 0.
    points = outlines[0][:-1, ::-1] - 0.5
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    corner = before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]
    polygon = points[corner].ravel().tolist()
    filled = coco_mask.decode(coco_mask.frPyObjects([polygon], *mask.shape))[..., 0]
    return polygon if np.array_equal(filled, mask) else None


def annotate(rng, mask):
    """Return segmentation, bbox and area of a visible mask, (H, W) bool.

    Half of the masks that a polygon describes exactly get one, all others RLE.
    """
    from pycocotools import mask as coco_mask

    polygon = exact_polygon(mask) if rng.random() < 0.5 else None
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    rle['counts'] = rle['counts'].decode()
    return dict(
        segmentation=[polygon] if polygon else rle,
        bbox=bounding_box(mask),
        area=int(mask.sum()),
        iscrowd=0,
    )


def bounding_box(mask):
    """Return [x, y, width, height] of a mask, (H, W) bool, that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]


def write_segments(path, segments):
    """Write a panoptic PNG; return its segments as COCO lists them.

    Args:
        path: The id of a pixel's segment is red + 256 green + 65536 blue, 0 is none.
        segments: (category id, mask) of each, masks (H, W) bool without overlap.
    """
    from PIL import Image

    ids, infos = np.zeros(segments[0][1].shape, int), []
    for number, (category_id, mask) in enumerate(segments, 1):
        ids[mask] = number
        area = int(mask.sum())
        info = dict(id=number, category_id=category_id, area=area, iscrowd=0)
        infos.append(dict(info, bbox=bounding_box(mask)))
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(path)
    return infos


def with_background(objects, shape, stuff_id):
    """Return objects, (category id, mask), and the pixels they leave, as stuff."""
    free = ~np.any([np.zeros(shape, bool), *[mask for _, mask in objects]], axis=0)
    return [*objects, (stuff_id, free)] if free.any() else objects


def write_split(out_dir, split, count, size, rng, panoptic=False):
    """Write ``count`` pictures and their annotation files into ``out_dir``."""
    from PIL import Image
    from skimage import data

    arrays = [getattr(data, name)() for name in PHOTOS[split]]
    photos = [Image.fromarray(array).convert('RGB') for array in arrays]
    images, annotations, segmented = [], [], []
    (out_dir / split).mkdir()
    panoptic_dir = out_dir / 'annotations' / f'panoptic_{split}'
    if panoptic:
        panoptic_dir.mkdir()
    empty = set(rng.choice(count, max(1, count // 20), replace=False).tolist())
    for index in range(count):
        short = size * 5 // 6
        height, width = ((size, size), (short, size), (size, short))[rng.integers(3)]
        photo = rng.integers(len(photos))
        background = draw_background(rng, photos[photo], height, width)
        wanted = 0 if index in empty else int(rng.integers(1, 5))
        picture, objects = compose(rng, background, wanted)
        image = dict(id=index + 1, file_name=f'{index + 1:06d}.jpg')
        images.append(dict(image, height=height, width=width, license=1))
        path = out_dir / split / image['file_name']
        Image.fromarray(picture).save(path, quality=95, subsampling=0)
        for category_id, mask in objects:
            ids = dict(image_id=index + 1, category_id=category_id)
            ids['id'] = len(annotations) + 1
            annotations.append(dict(ids, **annotate(rng, mask)))
        if panoptic:
            stuff_id = len(CATEGORIES) + 1 + (PHOTOS[split][photo] in GROUND)
            segments = with_background(objects, (height, width), stuff_id)
            name = f'{index + 1:06d}.png'
            infos = write_segments(panoptic_dir / name, segments)
            entry = dict(image_id=index + 1, file_name=name, segments_info=infos)
            segmented.append(entry)
    categories = [
        dict(id=i, name=name, supercategory='object')
        for i, (name, _, _) in enumerate(CATEGORIES, 1)
    ]
    coco = dict(
        info=dict(description='CenterMask quickstart data', version=str(VERSION)),
        licenses=[dict(id=1, name='CC0 or public domain', url='')],
        images=images,
        annotations=annotations,
        categories=categories,
    )
    (out_dir / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
    if panoptic:
        kinds = [dict(c, isthing=1) for c in categories]
        for i, name in enumerate(STUFF, len(CATEGORIES) + 1):
            kinds.append(dict(id=i, name=name, supercategory='background', isthing=0))
        coco.update(annotations=segmented, categories=kinds)
        panoptic_dir.with_suffix('.json').write_text(json.dumps(coco))
    print(f'{out_dir / split}: {count} images, {len(annotations)} objects')


def make_set(out_dir, manifest):
    """Write both splits in the place of an earlier set; mark it complete at the end."""
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / MANIFEST).write_text(json.dumps(dict(manifest, complete=False)))
    for name in ('train', 'val', 'annotations'):
        shutil.rmtree(out_dir / name, ignore_errors=True)
    (out_dir / 'annotations').mkdir()
    for stream, split in enumerate(('train', 'val')):
        rng = np.random.default_rng([manifest['seed'], stream])
        sizes = manifest[split], manifest['size']
        write_split(out_dir, split, *sizes, rng, 'panoptic' in manifest)
    (out_dir / MANIFEST).write_text(json.dumps(dict(manifest, complete=True)))


def read_manifest(out_dir):
    """Return the manifest in ``out_dir``; {} where there is nothing yet.

    Raises:
        SystemExit: ``out_dir`` is a file or holds something else; nothing is touched.
    """
    if out_dir.exists() and not out_dir.is_dir():
        sys.exit(f'OUT_DIR {out_dir} is a file: name a folder')
    if not out_dir.exists() or not any(out_dir.iterdir()):
        return {}
    try:
        manifest = dict(json.loads((out_dir / MANIFEST).read_text()))
        manifest['complete']
    except (OSError, ValueError, TypeError, KeyError):
        sys.exit(f'OUT_DIR {out_dir} holds other files: name a new or an empty folder')
    return manifest


def parse_args(argv):
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('out_dir', metavar='OUT_DIR', type=Path)
    for name, (default, low, high) in OPTIONS.items():
        text = f'{low} to {high}, default: {default}'
        parser.add_argument(f'--{name}', type=int, default=default, help=text)
    parser.add_argument(
        '--force', action='store_true', help='write again what is there'
    )
    parser.add_argument(
        '--panoptic', action='store_true', help='write panoptic annotations too'
    )
    args = parser.parse_args(argv)
    for name, (_, low, high) in OPTIONS.items():
        if not low <= getattr(args, name) <= high:
            sys.exit(f'--{name} {getattr(args, name)}: give {low} to {high}')
    return args


def main(argv=None):
    args = parse_args(argv)
    manifest = {name: getattr(args, name) for name in OPTIONS}
    manifest['version'] = VERSION
    if args.panoptic:
        manifest['panoptic'] = True
    for module, package in NEEDS.items():
        if find_spec(module) is None:
            command = f'{sys.executable} -m pip install {package}'
            sys.exit(f'{package} is missing: run `{command}`')
    try:
        present = read_manifest(args.out_dir)
        if present == dict(manifest, complete=True) and not args.force:
            print(f'{args.out_dir} already holds this set (--force writes it again)')
        else:
            make_set(args.out_dir, manifest)
    except OSError as error:
        sys.exit(f'OUT_DIR {args.out_dir}: {error}')


if __name__ == '__main__':
    main()
