"""Compare an exported folder with the PyTorch model it was made from.

Every picture passes both; prints a row for each, and leaves with 1 if a difference is
beyond its limit: boxes 0.05 pixels, scores 0.001, IoU of masks 0.99, or if an object is
missing from either answer.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('checkpoint', help='a checkpoint file or URL')
    parser.add_argument('folder', type=Path, help='written by tools/export_onnx.py')
    parser.add_argument('pictures', nargs='+', type=Path)
    parser.add_argument(
        '--runtimes',
        nargs='+',
        choices=['onnxruntime', 'openvino'],
        default=['onnxruntime', 'openvino'],
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='objects with fainter masks may be missing: which of them is the last '
        'to be kept can hang on the last bit (0.3)',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # Only now, so that `-h` is quick and needs no torch.
    from mmdet_centermask.deploy.parity import TorchPredictor, difference
    from mmdet_centermask.deploy.predict import Predictor, load_picture
    from mmdet_centermask.deploy.trained import load_trained
    from mmdet_centermask.experiment import ExperimentError

    try:
        trained = load_trained(args.config, args.checkpoint)
    except ExperimentError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    exported = {name: Predictor(args.folder, name) for name in args.runtimes}
    reference = TorchPredictor(trained.model, exported[args.runtimes[0]].info)
    print('| picture | size | runtime | objects | box | score | mask IoU | |')
    print('|---|---|---|---|---|---|---|---|')
    failed = 0
    for path in args.pictures:
        picture = load_picture(path)
        height, width = picture.shape[:2]
        truth = reference(picture, float('-inf'))
        for name, predictor in exported.items():
            found = predictor(picture, float('-inf'))
            row = difference(truth, found, args.score_thr)
            failed += not row.within_limits
            verdict = 'ok' if row.within_limits else 'FAIL'
            counts = ' / '.join(map(str, row.counts))
            print(
                f'| {path.name} | {width} x {height} | {name} | {counts} | '
                f'{row.box:.5f} | {row.score:.6f} | {row.mask_iou:.4f} | {verdict} |'
            )
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
