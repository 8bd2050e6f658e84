"""The report: figures and the one-page HTML."""

from .page import render_page, write_page

__all__ = ["render_page", "write_page"]
