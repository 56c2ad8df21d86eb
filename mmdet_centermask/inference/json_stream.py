"""A JSON list that grows on disk, so that a long video need not fit in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class JsonList:
    """Writes items of a list as they come; :meth:`close` makes the file whole.

    Args:
        path: Replaced if it exists; folders are made.
        field: Make the list this field of an object. :meth:`close` adds the others.
    """

    def __init__(self, path: Path, field: str | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open('w', encoding='utf-8')
        self.in_object = field is not None
        self.separator = '\n'
        self.file.write(f'{{{json.dumps(field)}: [' if self.in_object else '[')

    def append(self, item: Any) -> None:
        self.file.write(self.separator + json.dumps(item))
        self.separator = ',\n'

    def close(self, **fields: Any) -> None:
        """End the list, and the object with these further fields."""
        self.file.write('\n]')
        for name, value in fields.items():
            self.file.write(f',\n{json.dumps(name)}: {json.dumps(value)}')
        self.file.write('}\n' if self.in_object else '\n')
        self.file.close()
