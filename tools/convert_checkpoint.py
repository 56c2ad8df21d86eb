"""Turn a released or foreign checkpoint into one of this package.

Reads CenterMask2, CenterMask v1, detectron2 detectors with VoVNet, ImageNet VoVNets,
DD3D / PETR / DETR3D backbones and timm's ese_vovnet*, from .pth, .pkl or .safetensors.
Finds out itself what it has been given. Writes nothing unless every tensor fits.
"""

from __future__ import annotations

import argparse
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('src', help='checkpoint to read')
    parser.add_argument('dst', help='checkpoint to write')
    rows = parser.add_mutually_exclusive_group()
    rows.add_argument(
        '--classes',
        type=class_list,
        metavar='0,2,7',
        help='keep these classes, in this order',
    )
    rows.add_argument(
        '--num-classes',
        type=int,
        metavar='N',
        help='leave the class rows out, for a model of N classes',
    )
    parser.add_argument(
        '--backbone-only',
        action='store_true',
        help='write the backbone, for init_cfg; files of a backbone give one anyway',
    )
    parser.add_argument(
        '--fold-rgb',
        action='store_true',
        help="make timm's RGB network one for BGR with std 1, as the configs here have",
    )
    parser.add_argument(
        '--config', help="fit this config's model (default: the one of the paper)"
    )
    parser.add_argument('--source', help='kind of file (default: found out)')
    parser.add_argument(
        '--trust',
        action='store_true',
        help='read a bare pickle (detectron2 .pkl): NumPy arrays, never code',
    )
    return parser.parse_args(argv)


def class_list(text: str) -> list[int]:
    """Read `0,2,7`."""
    return [int(number) for number in text.split(',')]


def main(argv: list[str] | None = None) -> int:
    args = vars(parse_args(argv))
    # After the arguments, so that -h and a wrong option answer at once.
    from mmdet_centermask.convert import ConversionError, convert_checkpoint

    try:
        report = convert_checkpoint(**args)
    except ConversionError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    print(report.headline)
    for line in report.problems():
        print(f'  {line}')
    for note in report.notes:
        print(f'  note: {note}')
    print(f'wrote {report.written}' if report.fits else 'nothing written: not all fits')
    return 0 if report.fits else 1


if __name__ == '__main__':
    sys.exit(main())
