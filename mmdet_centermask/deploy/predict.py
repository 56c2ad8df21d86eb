"""Find objects in pictures with an exported CenterMask.

Needs model.onnx and model.json beside it, numpy, Pillow and onnxruntime (or openvino).
`python predict.py street.jpg` prints a line for each object and writes
found/street.png, the picture with boxes and masks, and found/street_masks.png, 16 bits:
1 in the pixels of the first object, 2 in those of the second, and so on.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageOps

RUNTIMES = 'onnxruntime', 'openvino'


class Predictor:
    """The network in a folder, in one of RUNTIMES; see `open_session` for the rest."""

    def __init__(
        self, folder: str | Path, runtime=RUNTIMES[0], model='model.onnx', **options
    ) -> None:
        self.info = json.loads(Path(folder, 'model.json').read_text(encoding='utf-8'))
        self.run = open_session(str(Path(folder, model)), runtime, **options)

    def __call__(self, picture: np.ndarray, score_thr: float = 0.0) -> dict:
        """Objects of a uint8 RGB picture `(H, W, 3)` whose masks score above.

        Returns:
            Best masks first: `boxes` `(n, 4)` x1, y1, x2, y2 in pixels, `labels`,
            `scores` of the boxes, `mask_scores`, and `masks` `(n, H, W)` bool.
        """
        return self.find(*self.prepare(picture), picture.shape[:2], score_thr)

    def prepare(self, picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Resized and normalised `(3, h, w)`, and the factors of width and height."""
        size = np.array(picture.shape[1::-1])  # width, height
        bounds = self.info['scale'] or np.floor(size * self.info['scale_factor'] + 0.5)
        factor = min(np.sort(bounds) / np.sort(size))
        w, h = (size * factor + 0.5).astype(int)
        # As OpenCV resizes: from the nearest four pixels, also where it shrinks. In
        # floats, because Pillow cuts bytes off where OpenCV rounds.
        how = Image.Transform.AFFINE, (size[0] / w, 0, 0, 0, size[1] / h, 0)
        planes = [
            Image.fromarray(plane).transform((w, h), *how, Image.Resampling.BILINEAR)
            for plane in picture.astype(np.float32).transpose(2, 0, 1)
        ]
        pixels = np.rint(np.stack([np.asarray(plane) for plane in planes], axis=-1))
        if self.info['channels'] == 'BGR':
            pixels = pixels[..., ::-1]
        mean, std = (np.float32(self.info[name]) for name in ('mean', 'std'))
        return ((pixels - mean) / std).transpose(2, 0, 1), np.array([w, h]) / size

    def pad(self, image: np.ndarray) -> np.ndarray:
        """`image` with both sides filled up to what the network can take."""
        divisor, fill = self.info['pad_size_divisor'], self.info['pad_value']
        widths = [(0, -side % divisor) for side in image.shape[1:]]
        return np.pad(image, [(0, 0), *widths], constant_values=fill)

    def find(
        self, image: np.ndarray, scale: np.ndarray, size: tuple, score_thr: float
    ) -> dict:
        """Objects of a prepared picture, whose height and width were `size`."""
        outputs = self.run(self.pad(image)[None], np.array([image.shape[1:]]))
        order = np.argsort(-outputs[4], kind='stable')
        kept = order[outputs[4][order] > score_thr]
        _, boxes, labels, scores, mask_scores, masks = (o[kept] for o in outputs)
        boxes = boxes / np.tile(scale, 2)
        pasted = np.zeros((len(boxes), *size), bool)
        for canvas, box, mask in zip(pasted, boxes, masks, strict=True):
            paste(canvas, box, mask, self.info['mask_threshold'])
        found = dict(boxes=boxes, labels=labels, scores=scores)
        return dict(found, mask_scores=mask_scores, masks=pasted)


def open_session(path: str, runtime: str, precision: str = 'f32', threads: int = 0):
    """A function of images and sizes; OpenVINO also has bf16, 0 threads are a guess."""
    if runtime == 'openvino':
        import openvino

        hints = dict(INFERENCE_PRECISION_HINT=precision, INFERENCE_NUM_THREADS=threads)
        network = openvino.Core().compile_model(path, 'CPU', hints)
        return lambda images, sizes: list(network((images, sizes)).values())
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, ['CPUExecutionProvider'])
    return lambda images, sizes: session.run(None, dict(images=images, sizes=sizes))


def paste(canvas: np.ndarray, box: np.ndarray, mask: np.ndarray, threshold: float):
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
    # Steps of the golden angle around the colour wheel: neighbours differ.
    wheel = [f'hsl({137.5 * i % 360}, 90%, 60%)' for i in range(len(captions))]
    pixels = picture.astype(np.float32)
    for mask, colour in zip(found['masks'], wheel, strict=True):
        pixels[mask] = (pixels[mask] + ImageColor.getrgb(colour)) / 2
    image = Image.fromarray(pixels.astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for box, caption, colour in zip(found['boxes'], captions, wheel, strict=True):
        pen.rectangle(box.tolist(), outline=colour, width=2)
        place = float(box[0]) + 2, max(float(box[1]) - 12, 0)
        pen.text(place, caption, colour, stroke_width=1, stroke_fill='black')
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('pictures', nargs='+', type=Path)
    parser.add_argument('--out-dir', type=Path, default=Path('found'))
    parser.add_argument('--score-thr', type=float, default=0.3, help='of the masks')
    parser.add_argument('--runtime', choices=RUNTIMES, default=RUNTIMES[0])
    parser.add_argument('--model', default='model.onnx', help='file in this folder')
    args = parser.parse_args()
    predictor = Predictor(Path(__file__).parent, args.runtime, args.model)
    classes, skipped = predictor.info['classes'], 0
    args.out_dir.mkdir(parents=True, exist_ok=True)
    for path in args.pictures:
        try:
            picture = load_picture(path)
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's, if damaged
            print(f'{path}: skipped, {error}', file=sys.stderr)
            skipped += 1
            continue
        found = predictor(picture, args.score_thr)
        facts = zip(found['labels'], found['mask_scores'], strict=True)
        captions = [f'{classes[label]} {score:.2f}' for label, score in facts]
        print(f'{path}: {len(captions)} found')
        numbered = np.zeros(picture.shape[:2], np.uint16)
        for i, (caption, box) in enumerate(zip(captions, found['boxes'], strict=True)):
            print(f'  {caption}  {" ".join(f"{side:.1f}" for side in box)}')
            numbered[found['masks'][i]] = i + 1
        draw(picture, found, captions).save(args.out_dir / f'{path.stem}.png')
        Image.fromarray(numbered).save(args.out_dir / f'{path.stem}_masks.png')
    sys.exit(1 if skipped else 0)


if __name__ == '__main__':
    main()
