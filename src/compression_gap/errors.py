"""The exceptions that others rely on; above all the one that a user can cause, a sentence with a remedy."""

import errno
import os
import re
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 2000  # characters of a sentence


class UserError(Exception):
    """Printed as one sentence on stderr with exit code 2; no traceback unless ``--debug``.

    It may name what a hostile file holds: line ends and what steers a terminal become spaces, and of a sentence
    that is too long the middle is left out.
    """

    failure = "user"  # what the engine calls a step that ends so

    def __init__(self, sentence: object = "") -> None:
        text = "".join(c if c.isprintable() else " " for c in str(sentence)[: 20 * LONGEST])
        super().__init__(text if len(text) <= LONGEST else f"{text[: LONGEST - 501]}…{text[-500:]}")


class Interrupted(Exception):
    """The work was asked to stop; a checkpoint has been written."""


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: "1 task", "2,000 tasks"; ``many``: a plural that is more than an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def unknown_name(what: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known: it names the nearest one and lists those that are."""
    names = sorted(known)
    near = get_close_matches(name, names, n=1)
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    return UserError(f"unknown {what} '{name}'{hint}; known: {', '.join(names)}")


def system_error(error: Exception) -> OSError | None:
    """The system's error that an error is, or that a library tells of in words alone; else None.

    Of Rust (safetensors) the number stands in the text; NumPy counts what it could not write.
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error
    if found := re.search(r"\(os error (\d+)\)", str(error)):
        return OSError(int(found[1]), os.strerror(int(found[1])))
    if isinstance(error, OSError) and re.fullmatch(r"\d+ requested and \d+ written", str(error)):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None
