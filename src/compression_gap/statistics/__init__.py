"""Intervals, contrasts, power and the bottleneck: arrays in, arrays out."""
