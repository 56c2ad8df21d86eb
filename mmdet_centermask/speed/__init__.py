"""Trained detectors made fast, without a change to what is trained or saved."""

from .fast_inference_hook import FastInferenceHook
from .optimize import optimize

__all__ = ['FastInferenceHook', 'optimize']
