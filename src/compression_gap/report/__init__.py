"""The report: figures and the one-page HTML."""

from .offline import write_offline_page
from .page import render_page, write_page

__all__ = ["render_page", "write_offline_page", "write_page"]
