"""Repeat a training step that was not finite, and show where it goes wrong."""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='the config that was trained')
    parser.add_argument('batch', help='non_finite_iter_N.pth of its work directory')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, as in the training run',
    )
    parser.set_defaults(launcher='none', work_dir=None)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick and needs no torch.
    try:
        from mmdet_centermask.engine.replay import describe, replay
        from mmdet_centermask.engine.saved_batch import load_batch
        from mmdet_centermask.experiment import load_experiment
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        cfg = load_experiment(args)
        saved = load_batch(args.batch)
        print(describe(saved, replay(cfg, saved)))
    except ValueError as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
