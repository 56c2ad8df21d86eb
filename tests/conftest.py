"""Settings every test shares: quiet libraries, a known number of threads."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Before torch is imported anywhere: more threads only fight over a small machine's
# cores. `make test` runs two processes of one.
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('MKL_NUM_THREADS', '2')
# A test that draws must not look for a screen.
os.environ.setdefault('MPLBACKEND', 'Agg')

# The fuzz tests: few cases and always the same ones, or as many new ones as asked for.
FUZZ_EXAMPLES = os.environ.get('FUZZ_EXAMPLES')
settings.register_profile(
    'fuzz',
    max_examples=int(FUZZ_EXAMPLES or 10),
    derandomize=FUZZ_EXAMPLES is None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile('fuzz')


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest test first: of two processes one would wait for it in the end."""
    items.sort(key=lambda item: item.path.name != 'test_tutorial.py')


REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def repository() -> Path:
    """The root of the working tree under test."""
    return REPOSITORY


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    """A tiny CenterMask-Lite with three classes, exported once for all tests."""
    from exported_tiny import Exported, finder, write_network
    from tiny_centermask import tiny_config, tiny_model

    from mmdet_centermask.deploy.export_folder import write_folder
    from mmdet_centermask.deploy.trained import load_trained

    root = tmp_path_factory.mktemp('exported')
    model = finder(tiny_model(3))
    config, checkpoint = write_network(root, model, tiny_config(3))
    write_folder(load_trained(str(config), str(checkpoint)), root / 'folder')
    return Exported(config, checkpoint, root / 'folder', model)
