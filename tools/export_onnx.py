"""Export a trained CenterMask: network, facts and a program that needs no torch.

Writes OUT_DIR/model.onnx, model.json and predict.py; see docs/deployment.md.
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
    parser.add_argument('out_dir', type=Path, help='the folder to write')
    parser.add_argument(
        '--int8',
        action='store_true',
        help="add model_int8.onnx, calibrated on the config's training pictures, if "
        'neither AP on its test pictures falls by more than a point',
    )
    parser.add_argument(
        '--calibration-pictures', type=int, default=64, metavar='N', help='(64)'
    )
    parser.add_argument(
        '--test-pictures', type=int, metavar='N', help='judge by the first N (all)'
    )
    parser.add_argument(
        '--torch-export',
        action='store_true',
        help='add model.pt2, for torch.export.load',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    # Only now, so that `-h` is quick and needs no torch.
    try:
        from mmdet_centermask.deploy.export_folder import write_folder
        from mmdet_centermask.deploy.trained import load_trained
        from mmdet_centermask.experiment import ExperimentError
    except ImportError as error:
        print(
            f'error: {error} (pip install "mmdet_centermask[export]")', file=sys.stderr
        )
        return 2
    try:
        trained = load_trained(args.config, args.checkpoint)
        write_folder(trained, args.out_dir)
        if args.torch_export:
            add_program(trained.model, args.out_dir / 'model.pt2')
        offered = not args.int8 or add_int8(trained.config, args)
    except ExperimentError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for path in sorted(args.out_dir.glob('*.*')):
        print(f'{path}  {path.stat().st_size / 1000:.0f} kB')
    return 0 if offered else 1


def add_program(model, path: Path) -> None:
    from mmdet_centermask.deploy.exportable_centermask import ExportableCenterMask
    from mmdet_centermask.deploy.torch_program import write_program

    write_program(ExportableCenterMask(model), path)


def add_int8(config, args: argparse.Namespace) -> bool:
    """Whether the 8-bit network is good enough; says by how much."""
    from mmdet_centermask.deploy.int8 import write_int8

    verdict = write_int8(
        args.out_dir, config, args.calibration_pictures, args.test_pictures
    )
    for name, value in verdict.floats.items():
        if name.endswith('_mAP'):
            print(f'{name}: {value:.3f} in floats, {verdict.int8[name]:.3f} in 8 bits')
    if not verdict.holds:
        print('int8: not offered, an AP has fallen by more than a point')
    return verdict.holds


if __name__ == '__main__':
    sys.exit(main())
