"""What a conversion came to, and the one error it raises."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

Shape = tuple[int, ...]


class ConversionError(ValueError):
    """The file cannot be converted; the message is one sentence that says why."""


@dataclass
class Report:
    """How well a file fitted the network. Counts leave out `num_batches_tracked`.

    Attributes:
        arch: Backbone, such as `'V-39'` or `'V-39-dcn'`.
        source: Name of the row of `sources.SOURCES` the file was read as.
        matched: Tensors of the network that the file gave, in the right shape.
        total: Tensors the network has.
        missing: Names of the network that the file has nothing for.
        unexpected: Names of the file that the network has no place for.
        misshapen: `(name in the network, shape in the file, shape wanted)`.
        filled: Names that the file cannot have and that got a neutral value.
        left_out: Names left out on purpose, because they count classes.
        notes: What else was done, and what the config has to say; sentences.
        written: Where the result went; None if nothing was written.
    """

    arch: str
    source: str
    matched: int = 0
    total: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[tuple[str, Shape, Shape]] = field(default_factory=list)
    filled: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    written: Path | None = None

    @property
    def fits(self) -> bool:
        """Whether every tensor found its place and every place its tensor."""
        return not (self.missing or self.unexpected or self.misshapen)

    @property
    def headline(self) -> str:
        """One line such as `'V-39, CenterMask2, 293 of 293 tensors'`."""
        extras = [
            f', {len(names)} {word}'
            for names, word in ((self.filled, 'filled'), (self.left_out, 'left out'))
            if names
        ]
        counts = f'{self.matched} of {self.total} tensors'
        return f'{self.arch}, {self.source}, {counts}{"".join(extras)}'

    def problems(self) -> list[str]:
        """One line for each tensor that did not fit; empty if all did."""
        return [
            *[f'missing     {name}' for name in self.missing],
            *[f'unexpected  {name}' for name in self.unexpected],
            *[
                f'misshapen   {name}: {list(found)} in the file, {list(wanted)} wanted'
                for name, found, wanted in self.misshapen
            ],
        ]
