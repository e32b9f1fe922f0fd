"""Measurements of speed and quality, each a module: ``python -m benchmarks.memory``."""
