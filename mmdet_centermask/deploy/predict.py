"""Find objects in pictures with an exported CenterMask.

Stands alone beside model.onnx and model.json: numpy, Pillow and onnxruntime (or
openvino) are all it needs. `python predict.py street.jpg` prints a line for each object
and writes found/street.png, the picture with boxes and masks, and
found/street_masks.png, 16 bits, where the pixels of the first object are 1, of the
second 2, and so on.
"""

from __future__ import annotations

import argparse
import colorsys
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageOps

Session = Callable[[np.ndarray, np.ndarray], list[np.ndarray]]
FIELDS = 'boxes', 'labels', 'scores', 'mask_scores', 'masks'


class Predictor:
    """The network of a folder; `precision` is of openvino, 0 threads are its choice."""

    def __init__(
        self,
        folder: str | Path,
        runtime: str = 'onnxruntime',
        model: str = 'model.onnx',
        precision: str = 'f32',
        threads: int = 0,
    ) -> None:
        self.info = json.loads(Path(folder, 'model.json').read_text(encoding='utf-8'))
        path = str(Path(folder, model))
        if runtime == 'openvino':
            self.run = open_openvino(path, precision, threads)
        else:
            self.run = open_onnxruntime(path, threads)

    def __call__(self, picture: np.ndarray, score_thr: float = 0.0) -> dict:
        """Objects of an RGB picture `(H, W, 3)`, uint8, with mask scores above.

        Returns:
            `boxes` `(n, 4)` x1, y1, x2, y2 in pixels, `labels`, `scores` of the boxes,
            `mask_scores`, each `(n,)`, and `masks` `(n, H, W)` bool.
        """
        image, scale = self.prepare(picture)
        return self.find(image, scale, picture.shape[:2], score_thr)

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resized and normalised `(3, h, w)`, and the factors of width and height."""
        height, width = picture.shape[:2]
        bounds = self.info['scale'] or [
            int(side * self.info['scale_factor'] + 0.5) for side in (width, height)
        ]
        long, short = max(height, width), min(height, width)
        factor = min(max(bounds) / long, min(bounds) / short)
        w, h = int(width * factor + 0.5), int(height * factor + 0.5)
        # As OpenCV resizes: from the nearest four pixels, also where it shrinks. In
        # floats, because Pillow cuts bytes off where OpenCV rounds.
        how = Image.Transform.AFFINE, (width / w, 0, 0, 0, height / h, 0)
        planes = [
            Image.fromarray(plane).transform((w, h), *how, Image.Resampling.BILINEAR)
            for plane in picture.astype(np.float32).transpose(2, 0, 1)
        ]
        pixels = np.rint(np.stack([np.asarray(p) for p in planes], axis=-1))
        if self.info['channels'] == 'BGR':
            pixels = pixels[..., ::-1]
        mean, std = (np.float32(self.info[name]) for name in ('mean', 'std'))
        image = ((pixels - mean) / std).transpose(2, 0, 1)
        return image, np.array([w / width, h / height])

    def pad(self, image: np.ndarray) -> np.ndarray:
        """`image` with both sides filled up to what the network can take."""
        divisor, fill = self.info['pad_size_divisor'], self.info['pad_value']
        below, right = (-side % divisor for side in image.shape[1:])
        return np.pad(image, ((0, 0), (0, below), (0, right)), constant_values=fill)

    def find(
        self,
        image: np.ndarray,
        scale: np.ndarray,
        size: tuple[int, int],
        score_thr: float,
    ) -> dict:
        """Objects of a prepared picture, whose height and width were `size`."""
        outputs = self.run(self.pad(image)[None], np.array([image.shape[1:]]))
        kept = outputs[4] > score_thr
        _, boxes, labels, scores, mask_scores, masks = (o[kept] for o in outputs)
        boxes = boxes / np.tile(scale, 2)
        pasted = np.zeros((len(boxes), *size), bool)
        for canvas, box, mask in zip(pasted, boxes, masks, strict=True):
            paste(canvas, box, mask, self.info['mask_threshold'])
        values = boxes, labels, scores, mask_scores, pasted
        return dict(zip(FIELDS, values, strict=True))


def open_onnxruntime(path: str, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    providers = ['CPUExecutionProvider']
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    return lambda images, sizes: session.run(None, dict(images=images, sizes=sizes))


def open_openvino(path: str, precision: str, threads: int) -> Session:
    import openvino

    settings = dict(INFERENCE_PRECISION_HINT=precision, INFERENCE_NUM_THREADS=threads)
    network = openvino.Core().compile_model(path, 'CPU', settings)
    return lambda images, sizes: list(network((images, sizes)).values())


def paste(
    canvas: np.ndarray, box: np.ndarray, mask: np.ndarray, threshold: float
) -> None:
    """Set the pixels of `canvas` where `mask`, stretched over `box`, is not below."""
    x1, y1, x2, y2 = box
    top, left = max(int(y1) - 1, 0), max(int(x1) - 1, 0)
    crop = canvas[top : int(y2) + 2, left : int(x2) + 2]

    def shares(first: int, count: int, start: float, end: float) -> np.ndarray:
        """How much of each cell of the mask `(count, cells)` each pixel takes."""
        centres = np.arange(first, first + count) + 0.5
        places = (centres - start) / (end - start) * len(mask) - 0.5
        return np.clip(1 - np.abs(places[:, None] - np.arange(len(mask))), 0, None)

    rows = shares(top, crop.shape[0], y1, y2)
    columns = shares(left, crop.shape[1], x1, x2)
    crop[:] = rows @ mask @ columns.T >= threshold


def load_picture(path: str | Path) -> np.ndarray:
    """RGB pixels `(H, W, 3)`, turned as the camera says."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))


def draw(picture: np.ndarray, found: dict, captions: list[str]) -> Image.Image:
    """The picture with a coloured mask, a box and a caption for each object."""
    # Steps of the golden ratio around the colour wheel: neighbours differ.
    wheel = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.8, 1) for i in range(len(captions))]
    colours = [tuple(int(255 * part) for part in colour) for colour in wheel]
    pixels = picture.astype(np.float32)
    for mask, colour in zip(found['masks'], colours, strict=True):
        pixels[mask] = 0.5 * pixels[mask] + 0.5 * np.array(colour)
    image = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for box, caption, colour in zip(found['boxes'], captions, colours, strict=True):
        pen.rectangle(box.tolist(), outline=colour, width=2)
        place = float(box[0]) + 2, max(float(box[1]) - 12, 0)
        pen.rectangle(pen.textbbox(place, caption), fill='black')
        pen.text(place, caption, fill=colour)
    return image


def report(path: Path, folder: Path, picture: np.ndarray, found: dict, classes) -> None:
    """Print the objects of one picture and write its two files."""
    facts = zip(found['labels'], found['mask_scores'], strict=True)
    captions = [f'{classes[label]} {score:.2f}' for label, score in facts]
    print(f'{path}: {len(captions)} found')
    for caption, box in zip(captions, found['boxes'], strict=True):
        print(f'  {caption}  {" ".join(f"{side:.1f}" for side in box)}')
    draw(picture, found, captions).save(folder / f'{path.stem}.png')
    numbered = np.zeros(picture.shape[:2], np.uint16)
    for number, mask in enumerate(found['masks'], 1):
        numbered[mask] = number
    Image.fromarray(numbered).save(folder / f'{path.stem}_masks.png')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pictures', nargs='+', type=Path)
    parser.add_argument('--out-dir', type=Path, default=Path('found'))
    parser.add_argument('--score-thr', type=float, default=0.3, help='of the masks')
    runtimes = ['onnxruntime', 'openvino']
    parser.add_argument('--runtime', choices=runtimes, default=runtimes[0])
    parser.add_argument('--model', default='model.onnx', help='file in this folder')
    parser.add_argument('--precision', choices=['f32', 'bf16'], default='f32')
    parser.add_argument('--threads', type=int, default=0)
    args = parser.parse_args()
    options = args.runtime, args.model, args.precision, args.threads
    predictor = Predictor(Path(__file__).parent, *options)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    unreadable = 0
    for path in args.pictures:
        try:
            picture = load_picture(path)
        except OSError as error:
            print(f'{path}: skipped, {error}', file=sys.stderr)
            unreadable += 1
            continue
        found = predictor(picture, args.score_thr)
        report(path, args.out_dir, picture, found, predictor.info['classes'])
    return 1 if unreadable else 0


if __name__ == '__main__':
    sys.exit(main())
