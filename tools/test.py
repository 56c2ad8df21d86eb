"""Evaluate a checkpoint: `mim test mmdet_centermask CONFIG --checkpoint FILE`."""

import argparse
import os
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('checkpoint', help='a checkpoint file or URL')
    parser.add_argument('--work-dir', help='where logs and metrics go')
    parser.add_argument('--out', metavar='FILE.pkl', help='save the predictions')
    parser.add_argument('--show', action='store_true', help='show predictions')
    parser.add_argument(
        '--show-dir',
        help='draw predictions into this folder; a relative one lies in the run folder',
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='seconds a picture is shown'
    )
    parser.add_argument(
        '--tta', action='store_true', help="use the config's test-time augmentation"
    )
    parser.add_argument(
        '--fast',
        action='store_true',
        help='fold norms, compute in the shortest format the device has units for',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, such as test_dataloader.batch_size=4',
    )
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none'
    )
    # torch.distributed.launch writes it with either sign.
    parser.add_argument('--local-rank', '--local_rank', type=int, default=0)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    # Only now, so that `-h` is quick and needs no torch.
    try:
        from mmdet_centermask.experiment import ExperimentError, testing_runner
        from mmdet_centermask.safe_checkpoints import CheckpointError
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        runner = testing_runner(args)
        runner.test()
    except (ExperimentError, CheckpointError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
