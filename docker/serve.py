"""Serve an exported CenterMask over HTTP: a picture in, its objects as JSON out.

Lies beside model.onnx, model.json and predict.py, and needs what predict.py needs.

    python serve.py --port 8000
    curl --data-binary @street.jpg 'localhost:8000/predict?score_thr=0.5'

Boxes are x1, y1, x2, y2 in pixels of the picture, masks COCO's uncompressed RLE.
"""

from __future__ import annotations

import argparse
import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from threading import Lock
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import numpy as np
from PIL import Image
from predict import Predictor, load_picture

LARGEST = 32 * 2**20  # bytes of a picture's file
SCORE_THR = 0.3  # as in predict.py
# What Pillow raises for files that are damaged, or no pictures at all.
DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


class RefusedError(Exception):
    """A request that cannot be answered: status and one line."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Handler(BaseHTTPRequestHandler):
    """`GET /health` and `POST /predict`."""

    server: Server
    timeout = 60  # seconds for a client to send its picture

    def do_GET(self) -> None:
        if urlsplit(self.path).path != '/health':
            self.answer(HTTPStatus.NOT_FOUND, dict(error='GET /health, POST /predict'))
            return
        classes = self.server.predictor.info['classes']
        self.answer(HTTPStatus.OK, dict(status='ready', classes=classes))

    def do_POST(self) -> None:
        try:
            score_thr = self.score_threshold()
            picture = self.picture()
        except RefusedError as error:
            self.close_connection = True  # its body may not have been read
            self.answer(error.status, dict(error=str(error)))
            return
        # The runtime uses all cores for one picture; two at a time gain nothing.
        with self.server.busy:
            found = self.server.predictor(picture, score_thr)
        height, width = picture.shape[:2]
        objects = as_objects(found, self.server.predictor.info['classes'])
        self.answer(HTTPStatus.OK, dict(height=height, width=width, objects=objects))

    def score_threshold(self) -> float:
        parts = urlsplit(self.path)
        if parts.path != '/predict':
            raise RefusedError(HTTPStatus.NOT_FOUND, 'GET /health, POST /predict')
        text = parse_qs(parts.query).get('score_thr', [str(SCORE_THR)])[0]
        try:
            return float(text)
        except ValueError:
            message = f'score_thr={text!r} is not a number'
            raise RefusedError(HTTPStatus.BAD_REQUEST, message) from None

    def picture(self) -> np.ndarray:
        """RGB pixels `(H, W, 3)` of the body."""
        try:
            length = int(self.headers.get('Content-Length', ''))
        except ValueError:
            message = 'the size of the picture is missing: Content-Length'
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, message) from None
        if not 0 <= length <= LARGEST:
            message = f'Content-Length={length} is beyond 0 to {LARGEST} bytes'
            raise RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, message)
        try:
            return load_picture(BytesIO(self.rfile.read(length)))
        except DAMAGED as error:
            message = f'the body is not a picture: {error}'
            raise RefusedError(HTTPStatus.BAD_REQUEST, message) from None

    def answer(self, status: HTTPStatus, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header('Content-Type', 'application/json')
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    """One network for all requests."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], predictor: Predictor) -> None:
        super().__init__(address, Handler)
        self.predictor = predictor
        self.busy = Lock()


def as_objects(found: dict, classes: list[str]) -> list[dict]:
    """What `Predictor` found, in JSON's types, the surest mask first."""
    order = np.argsort(-found['mask_scores'], kind='stable')
    return [
        dict(
            label=classes[found['labels'][i]],
            score=round(float(found['scores'][i]), 4),
            mask_score=round(float(found['mask_scores'][i]), 4),
            box=[round(float(side), 2) for side in found['boxes'][i]],
            mask=as_rle(found['masks'][i]),
        )
        for i in order
    ]


def as_rle(mask: np.ndarray) -> dict:
    """COCO's RLE of a mask `(H, W)`: runs down the columns, the first one of zeros."""
    column = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(column, prepend=False, append=~column[-1:]))
    counts = np.diff(edges, prepend=0)
    return dict(size=list(mask.shape), counts=counts.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--host', default='127.0.0.1', help='(%(default)s)')
    parser.add_argument('--port', type=int, default=8000, help='(%(default)s)')
    parser.add_argument(
        '--check', action='store_true', help='ask a running server whether it is well'
    )
    args = parser.parse_args()
    if args.check:
        try:
            urlopen(f'http://127.0.0.1:{args.port}/health', timeout=5).close()
        except OSError as error:
            sys.exit(f'no answer: {error}')
        return
    server = Server((args.host, args.port), Predictor(Path(__file__).parent))
    host, port = server.server_address[:2]
    print(f'listening on http://{host}:{port}', flush=True)
    server.serve_forever()


if __name__ == '__main__':
    main()
