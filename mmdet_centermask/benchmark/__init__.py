"""Measuring: learning, speed and memory of this package's detectors and others'."""
