"""Compression Gap: which stage of a robot policy is the bottleneck, in success and bits, with intervals.

What a notebook needs stands here, and is imported when it is first used::

    import compression_gap as cg

    results = cg.run(cg.load_study("my.yaml"))
    results.cells.to_pandas()
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Names, and the modules that hold them.
PUBLIC = {
    "DemoSet": ".demos",
    "Policy": ".policies",
    "Results": ".api.results",
    "UserError": ".errors",
    "compare": ".api.compare",
    "describe_plan": ".api.study",
    "diagnose": ".api.diagnosis",
    "load_study": ".api.study",
    "make_demos": ".api.demos",
    "run": ".api.results",
    "status": ".api.study",
}

if TYPE_CHECKING:
    from . import tokenizers
    from .api.compare import compare
    from .api.demos import make_demos
    from .api.diagnosis import diagnose
    from .api.results import Results, run
    from .api.study import describe_plan, load_study, status
    from .demos import DemoSet
    from .errors import UserError
    from .policies.policy import Policy

__all__ = [
    "DemoSet",
    "Policy",
    "Results",
    "UserError",
    "compare",
    "describe_plan",
    "diagnose",
    "load_study",
    "make_demos",
    "run",
    "status",
    "tokenizers",
]


def __getattr__(name: str) -> object:
    if name in PUBLIC:
        return getattr(import_module(PUBLIC[name], __name__), name)
    if name == "tokenizers":
        return import_module(".tokenizers", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
