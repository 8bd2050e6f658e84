"""What may run beside a study: its mirrors in other programs, and its page, kept up to date."""

from __future__ import annotations

from collections.abc import Sequence

from .follower import Follower
from .live_page import page_follower
from .mirrors.registry import mirror_followers, mirror_names
from .study import OpenStudy


def beside(
    opened: OpenStudy, command: str, *, mirrors: Sequence[str] = (), page: bool = False
) -> list[Follower]:
    """The followers that are asked for. ``command``: what makes the page again, as it says of itself.

    Raises ``UserError`` for a mirror that is not known, or whose package is not installed.
    """
    if not (names := mirror_names(mirrors)) and not page:
        return []
    followers = mirror_followers(names, opened.study.name, opened.folder, opened.store)
    return [*followers, *([page_follower(opened, command)] if page else [])]
