"""`tools/convert_checkpoint.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from convert_files import load_tool
from convert_names import centermask2, vovnet

PARITY = Path(__file__).resolve().parents[2] / 'shared' / 'parity'


@pytest.mark.skipif(not PARITY.exists(), reason='needs ../shared/parity')
def test_official_stand_in(tmp_path, monkeypatch, repository):
    """The file that official_weights.py writes, through the command."""
    monkeypatch.syspath_prepend(str(PARITY))
    import official_weights

    manifest = PARITY / 'manifests' / 'centermask_lite_V_19_slim_dw_eSE_FPN_ms_4x.json'
    src, dst = tmp_path / 'official.pth', tmp_path / 'mine.pth'
    monkeypatch.setattr(sys, 'argv', ['official_weights.py', str(manifest), str(src)])
    official_weights.main()
    assert load_tool(repository).main([str(src), str(dst)]) == 0
    state = torch.load(dst, weights_only=True)['state_dict']
    for old, new in centermask2(vovnet('V-19-slim-dw'), 2).items():
        wanted = official_weights.fill(
            old, (1,) if 'scales' in old else state[new].shape
        )
        assert state[new].numpy().tobytes() == wanted.tobytes(), f'{old} -> {new}'


def test_command_says_one_sentence(repository, tmp_path, capsys):
    (tmp_path / 'a.pth').write_text('<html>')
    code = load_tool(repository).main(
        [str(tmp_path / 'a.pth'), str(tmp_path / 'b.pth')]
    )
    assert code == 1
    assert capsys.readouterr().err == (
        f'error: {tmp_path}/a.pth: not a checkpoint but a web page, '
        'so the download failed\n'
    )
    assert not (tmp_path / 'b.pth').exists()


def test_command_passes_options(repository):
    args = load_tool(repository).parse_args(
        ['a', 'b', '--classes', '0,2,7', '--fold-rgb', '--trust', '--backbone-only']
    )
    assert vars(args) == dict(
        src='a', dst='b', classes=[0, 2, 7], num_classes=None, fold_rgb=True,
        trust=True, backbone_only=True, config=None, source=None,
    )  # fmt: skip


def test_help_needs_no_torch(repository):
    """mim asks for it; without site-packages only a late import can answer."""
    tool = repository / 'tools' / 'convert_checkpoint.py'
    done = subprocess.run(
        [sys.executable, '-I', '-S', str(tool), '-h'], capture_output=True, text=True
    )
    assert done.returncode == 0 and '--fold-rgb' in done.stdout
