"""Masks in pictures, videos and cameras: `mim run mmdet_centermask infer MODEL INPUT`.

MODEL is a checkpoint, which carries its config, or the name or path of a config, which
then needs --checkpoint. INPUT is a picture, a video, a folder of them, a pattern in
quotes, a URL, or the number of a camera.
"""

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('model', help='a checkpoint, or a config by name or path')
    parser.add_argument('inputs', nargs='+', metavar='input', help='what to look at')
    parser.add_argument('--checkpoint', help='weights for a config, a file or URL')
    parser.add_argument('--out-dir', default='work_dirs/infer', help='(%(default)s)')
    parser.add_argument(
        '--save',
        nargs='*',
        default=['overlay', 'coco'],
        choices=['overlay', 'coco', 'polygons', 'labelme', 'instances'],
        help='pictures or mp4, COCO results, COCO annotations with polygons, labelme '
        'files, 16-bit instance PNGs with a table (overlay coco)',
    )
    parser.add_argument(
        '--score-thr', type=float, default=0.3, help='least mask score (%(default)s)'
    )
    parser.add_argument(
        '--attention',
        action='store_true',
        help="draw SAG-Mask's attention and the pyramid level of each object, too",
    )
    parser.add_argument(
        '--ann-file', metavar='FILE.json', help="write this COCO file's ids"
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='frames at a time (%(default)s)'
    )
    parser.add_argument(
        '--color-by',
        choices=['object', 'class'],
        default='object',
        help='(%(default)s)',
    )
    parser.add_argument('--device', help='such as cpu or cuda:0 (the best there is)')
    parser.add_argument(
        '--no-fast', action='store_true', help='float32, as in training'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, such as model.test_cfg.bbox.max_per_img=400',
    )
    parser.add_argument('--show', action='store_true', help='show overlays in a window')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    # Only now, so that `-h` is quick and needs no torch.
    try:
        from mmdet_centermask.experiment import ExperimentError
        from mmdet_centermask.inference.command import infer
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        infer(args)
    except ExperimentError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
