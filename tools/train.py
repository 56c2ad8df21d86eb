"""Train a detector from a config: `mim train mmdet_centermask CONFIG`."""

import argparse
import os
import sys


def parse_args() -> argparse.Namespace:
    # mim greps this help for the flags of older packages that pick a device, so
    # no option here may be called like those.
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('--work-dir', help='where logs and checkpoints go')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the real batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint; without a value, from the last in the work dir',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        metavar='KEY=VALUE',
        help='override config fields, such as train_dataloader.batch_size=4',
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
    # Only now, so that `-h`, which mim calls first, is quick and needs no torch.
    try:
        from mmdet_centermask.experiment import ExperimentError, training_runner
        from mmdet_centermask.safe_checkpoints import CheckpointError
    except ImportError as error:
        if error.name not in ('mmcv', 'mmdet_centermask'):
            raise
        sys.exit(str(error))
    try:
        runner = training_runner(args)
        runner.train()
    except (ExperimentError, CheckpointError) as error:
        sys.exit(str(error))


if __name__ == '__main__':
    main()
