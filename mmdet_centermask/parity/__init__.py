"""Does the network compute what the reference computes, number by number?

A golden (`.npz`) holds the reference's answers for one config, with stand-in weights
that a rule makes from each parameter's name and shape (`.json`, the manifest).

config -> network with the stand-in weights -> answers -> compared with the golden
"""

from .checking import answer, check
from .compare import Row, as_table, compare
from .golden import load_golden
from .picture import parity_picture

__all__ = [
    'Row',
    'answer',
    'as_table',
    'check',
    'compare',
    'load_golden',
    'parity_picture',
]
