"""Find a config by its path, or by its name among the package's own configs."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

PACKAGE_CONFIGS = Path(__file__).parent / '.mim' / 'configs'


def find_config(name: str, folder: Path = PACKAGE_CONFIGS) -> str:
    """Return the path of an existing config file.

    Args:
        name: A path, which wins if it exists, or the basename of a config below
            `folder`, with or without `.py`. A path that does not exist is looked
            up by its basename too, as mim does.
        folder: Where the package keeps its configs.

    Raises:
        FileNotFoundError: One line with `name` and the names that resemble it.
    """
    if Path(name).is_file():
        return name
    basename = Path(name).name.removesuffix('.py')
    # Resolved, because `.mim/configs` is a symlink in a working tree and the
    # `_base_` paths of a config are relative to where the file really is.
    own = {path.stem: path for path in sorted(folder.resolve().rglob('*.py'))}
    if basename in own:
        return str(own[basename])
    similar = get_close_matches(basename, own, n=3)
    hint = f'; similar names: {", ".join(similar)}' if similar else ''
    raise FileNotFoundError(
        f'config={name!r} is neither a file nor a config of mmdet_centermask{hint}'
    )
