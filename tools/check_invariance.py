"""Measure what answers do not depend on: `check_invariance.py CONFIG CHECKPOINT`.

Takes the first pictures of the config's test data; all of one size, or only those
that have the size of the first are put into one batch.
"""

import argparse
import sys


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('checkpoint', help='a checkpoint file')
    parser.add_argument(
        '--pictures', type=int, default=8, metavar='N', help='how many pictures'
    )
    parser.add_argument(
        '--threads', type=int, default=2, metavar='N', help='compared with one'
    )
    parser.add_argument(
        '--extra',
        type=int,
        nargs=2,
        default=[64, 96],
        metavar=('ROWS', 'COLUMNS'),
        help='by how much the largest picture of a batch is larger',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='S',
        help='leave out what scores less in both answers',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    # Only now, so that `-h` is quick.
    from mmdet.apis import init_detector
    from mmdet.registry import DATASETS

    from mmdet_centermask.config_path import find_config
    from mmdet_centermask.invariance import in_company, in_padding, on_threads
    from mmdet_centermask.safe_checkpoints import CheckpointError

    try:
        model = init_detector(find_config(args.config), args.checkpoint, device='cpu')
        data = DATASETS.build(model.cfg.test_dataloader.dataset)
    except (CheckpointError, FileNotFoundError) as error:
        sys.exit(str(error))
    pictures = [data[i] for i in range(min(args.pictures, len(data)))]
    size = pictures[0]['inputs'].shape
    rows = {
        'in a batch of one size': in_company(
            model,
            [p for p in pictures if p['inputs'].shape == size],
            args.score_thr,
        ),
        f'padded by {args.extra[0]} x {args.extra[1]}': in_padding(
            model, pictures, tuple(args.extra), args.score_thr
        ),
        f'on {args.threads} threads, not 1': on_threads(
            model, pictures, args.threads, args.score_thr
        ),
    }
    print(
        f'{"":24} {"instances":>9} {"unmatched":>9} {"score":>9} {"mask score":>10} '
        f'{"box, px":>9} {"mask IoU":>9}'
    )
    for name, row in rows.items():
        print(
            f'{name:24} {row.instances:9} {row.unmatched:9} {row.score:9.1e} '
            f'{row.mask_score:10.1e} {row.box:9.1e} {row.mask_iou:9.5f}'
        )


if __name__ == '__main__':
    main()
