"""Compression Gap: which stage of a robot policy binds, in success points and bits, with intervals."""

__version__ = "0.1.0"
