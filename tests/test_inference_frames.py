"""What people hand in, and the frames that come of it."""

from __future__ import annotations

import socket
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import cv2
import numpy as np
import pytest
from inference_files import noise, write_video

from mmdet_centermask.inference import frames as frames_module
from mmdet_centermask.inference.frames import (
    Frame,
    decode_with,
    frame_count,
    read_frames,
    to_bgr,
)
from mmdet_centermask.inference.sources import Skipped, Source, find_sources


def read(inputs) -> list[Frame | Skipped]:
    return list(read_frames(find_sources(inputs), decode_with()))


@pytest.fixture
def folder(tmp_path):
    """Two pictures, a damaged one, another file, and a picture further down."""
    (tmp_path / 'deep').mkdir()
    for number, name in enumerate(('b.png', 'a.bmp', 'deep/a.png')):
        cv2.imwrite(str(tmp_path / name), noise(16, 24, seed=number))
    png = (tmp_path / 'b.png').read_bytes()
    (tmp_path / 'c.png').write_bytes(png[: len(png) // 2])
    (tmp_path / 'notes.txt').write_text('not a picture')
    (tmp_path / '._b.png').write_bytes(b'left behind by a file browser')
    return tmp_path


def test_folder_with_other_files_and_a_damaged_picture(folder):
    first, second, third, last = read(folder)
    assert [first.name, second.name] == ['a', 'b']
    np.testing.assert_array_equal(first.pixels, noise(16, 24, seed=1))
    np.testing.assert_array_equal(second.pixels, noise(16, 24, seed=0))
    assert third == Skipped(f'{folder}/c.png', 'not a picture, or damaged')
    assert last == Skipped(str(folder), 'neither picture nor video: notes.txt')


def test_names_are_unique_and_follow_the_fixed_part_of_a_pattern(folder):
    deep = find_sources(f'{folder}/**/*.png')
    assert [source.name for source in deep] == ['b.png', 'c.png', 'deep/a.png']
    twice = find_sources([folder / 'a.bmp', folder / 'deep' / 'a.png', f'{folder}/a*'])
    assert [source.name for source in twice] == ['a.bmp', 'a-2.png', 'a-3.bmp']


def test_what_leads_nowhere_says_so(tmp_path):
    missing, pattern, empty = find_sources(['no.jpg', 'no*.jpg', tmp_path])
    assert missing == Skipped('no.jpg', 'there is no such file')
    assert pattern == Skipped('no*.jpg', 'no picture or video matches')
    assert empty == Skipped(str(tmp_path), 'no picture or video in this folder')


def test_digits_are_a_camera_unless_a_file_is_called_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_sources('3') == find_sources(3) == [Source('camera_3', 3)]
    cv2.imwrite('3.png', noise(8, 8))
    (tmp_path / '3.png').rename(tmp_path / '3')
    assert find_sources('3') == [Source('3', '3')]


def test_urls(folder):
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        root = f'http://127.0.0.1:{server.server_port}'
        found, missing, text = read(
            [f'{root}/b.png', f'{root}/x.png', f'{root}/notes.txt']
        )
        write_video(folder / 'grey.mp4', [np.full((32, 48, 3), 80, np.uint8)] * 3, 5)
        *video, lost = read([f'{root}/grey.mp4', f'{root}/x.mp4'])
    finally:
        server.shutdown()
        server.server_close()
    np.testing.assert_array_equal(found.pixels, noise(16, 24, seed=0))
    assert missing == Skipped(f'{root}/x.png', 'HTTP Error 404: File not found')
    assert text == Skipped(f'{root}/notes.txt', 'not a picture, or damaged')
    # The server cannot send parts of a file, which FFmpeg would ask for.
    assert [frame.name for frame in video] == [f'grey/{k:06d}' for k in range(3)]
    assert {round(frame.pixels.mean() / 20) for frame in video} == {4}
    assert lost == Skipped(f'{root}/x.mp4', 'HTTP Error 404: File not found')


def test_an_unreachable_url_says_why():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        url = f'http://127.0.0.1:{free.getsockname()[1]}/a.jpg'
        (skipped,) = read(url)
    assert skipped.name == url
    assert skipped.reason.startswith('cannot be reached (')
    assert 'refused' in skipped.reason


def test_a_silent_server_is_given_up(monkeypatch):
    monkeypatch.setattr(frames_module, 'URL_TIMEOUT', 0.1)
    with socket.socket() as silent:
        silent.bind(('127.0.0.1', 0))
        silent.listen()
        start = time.monotonic()
        (skipped,) = read(f'http://127.0.0.1:{silent.getsockname()[1]}/a.jpg')
    assert 'timed out' in skipped.reason
    assert time.monotonic() - start < 4


def test_arrays_become_bgr():
    grey = noise(8, 16)[..., 0]
    for array in (grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 4)):
        np.testing.assert_array_equal(to_bgr(array), np.dstack([grey] * 3))
    good, bad = read([noise(8, 16), noise(8, 16).astype(float)])
    assert good.name == 'array_000000'
    assert bad.name == 'array_000001'
    assert bad.reason.startswith('float64 pixels of shape (8, 16, 3) are no picture')
    with pytest.raises(ValueError, match=r'shape \(0, 4, 3\)'):
        to_bgr(np.zeros((0, 4, 3), np.uint8))


def test_video_frames_in_order_with_their_rate(tmp_path):
    """Frame k is grey value 20 k."""
    greys = [np.full((32, 48, 3), 20 * k, np.uint8) for k in range(12)]
    path = write_video(tmp_path / 'grey.mp4', greys, fps=12.5)
    found = read(path)
    assert [frame.index for frame in found] == list(range(12))
    assert [round(frame.pixels.mean() / 20) for frame in found] == list(range(12))
    assert {frame.fps for frame in found} == {12.5}
    assert found[3].name == 'grey/000003'
    assert frame_count(found[0].source) == 12


def test_damaged_frames_are_named_and_the_rest_is_read(tmp_path):
    """Frames of MJPG stand alone, so that a wiped one harms no other."""
    path = write_video(tmp_path / 'a.avi', [noise(64, 64, k) for k in range(10)])
    content = bytearray(path.read_bytes())
    starts = []
    while (at := content.find(b'\xff\xd8\xff', starts[-1] + 1 if starts else 0)) >= 0:
        starts.append(at)
    assert len(starts) == 10
    for start, end in ((starts[4], starts[5] - 8), (starts[5], starts[6] - 8)):
        content[start:end] = bytes(end - start)  # the head of the next is 8 bytes long
    path.write_bytes(content)
    found = read(path)
    skipped = [item for item in found if isinstance(item, Skipped)]
    read_well = [item.index for item in found if isinstance(item, Frame)]
    assert [str(s) for s in skipped] == [f'{path}: frames 4 to 5 cannot be decoded']
    assert read_well == [0, 1, 2, 3, 6, 7, 8, 9]


def test_a_file_that_is_no_video(tmp_path):
    (tmp_path / 'a.mp4').write_text('<html>')
    assert read(tmp_path / 'a.mp4') == [
        Skipped(f'{tmp_path}/a.mp4', 'this video cannot be opened')
    ]


class Camera:
    """Stands in for ``cv2.VideoCapture``: frames 0 to 4, 2 of them lost, then gone."""

    answers = [True, True, False, False, True] + [False] * 100

    def __init__(self, number: int) -> None:
        assert number == 7
        self.reads, self.released = 0, False

    def isOpened(self) -> bool:
        return True

    def get(self, field: int) -> float:
        return {cv2.CAP_PROP_FPS: 0.0, cv2.CAP_PROP_FRAME_COUNT: -1.0}[field]

    def read(self):
        ok = self.answers[self.reads]
        self.reads += 1
        return ok, np.full((8, 8, 3), self.reads, np.uint8) if ok else None

    def release(self) -> None:
        self.released = True


def test_a_camera_survives_lost_frames_and_ends_when_it_is_gone(monkeypatch):
    cameras = []
    monkeypatch.setattr(
        cv2, 'VideoCapture', lambda n: cameras.append(Camera(n)) or cameras[-1]
    )
    found = read(7)
    assert [f.index for f in found if isinstance(f, Frame)] == [0, 1, 4]
    assert [str(s) for s in found if isinstance(s, Skipped)] == [
        'camera_7: frames 2 to 3 cannot be decoded'
    ]
    assert found[0].fps == 30.0
    assert cameras[0].released and cameras[0].reads < 60


def test_a_camera_that_is_not_there():
    (skipped,) = read(63)
    reason = 'there is no such camera, or another program uses it'
    assert skipped == Skipped('camera_63', reason)
