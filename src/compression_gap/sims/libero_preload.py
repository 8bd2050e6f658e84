"""Imported by the fork server: LIBERO, robosuite and numba once for all workers (1.5 s and 180 MB each)."""

from contextlib import suppress

from ..errors import UserError
from .libero_assets import import_libero

with suppress(UserError):  # a worker reports it properly
    import_libero()
