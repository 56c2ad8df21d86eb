"""Compare a network, number by number, with what the reference computes.

CONFIG is built and filled with the stand-in weights that MANIFEST.json lists; its
maps, boxes, scores, masks and losses on a fixed picture are held against GOLDEN.npz.
Prints a table; leaves with 1 if a limit is broken. See docs/fidelity.md.
"""

from __future__ import annotations

import argparse
import json
import sys


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='a config file, or the name of one of ours')
    parser.add_argument('golden', help="the reference's answers, .npz")
    parser.add_argument('manifest', help='names and shapes of its parameters, .json')
    parser.add_argument(
        '--image',
        metavar='FILE.npy',
        help='the picture (default: made from one that comes with scikit-image)',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    args = parse_args(argv)
    try:
        # After the arguments, so that -h and a wrong option answer at once.
        from mmdet_centermask.config_path import find_config
        from mmdet_centermask.parity import as_table, check, load_golden, parity_picture

        config = find_config(args.config)
        golden = load_golden(args.golden)
        with open(args.manifest, encoding='utf-8') as file:
            manifest = json.load(file)
        rows = check(config, golden, manifest, parity_picture(args.image))
    except (ImportError, OSError, ValueError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    print(as_table(rows))
    failed = [row.quantity for row in rows if row.verdict == 'FAIL']
    print(f'{len(rows)} rows, {len(failed)} beyond their limit')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
