"""The command line ``cgap``. Each verb is a frozen dataclass of options, whose docstrings are its help, and a function.

A new verb is a file of this folder, or a part of one, and an entry in ``VERBS``. Heavy libraries are imported where a
verb needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tyro.extras import SubcommandApp

from .. import __version__
from ..errors import UserError
from . import compare, demos, diagnosis, information, policy, store, study, tables, tokenizers

DESCRIPTION = (
    "Which stage of a robot policy is the bottleneck: encoder, policy or action code, in success and bits."
)

Options = TypeVar("Options")


@dataclass(frozen=True)
class Verb(Generic[Options]):
    """What a verb takes, and what it does with that; it returns an exit code, or None for 0."""

    options: type[Options]
    run: Callable[[Options], int | None]


VERBS: dict[str, Verb[Any]] = {
    "doctor": Verb(tables.DoctorOptions, tables.doctor),
    "study plan": Verb(study.PlanOptions, study.plan),
    "study run": Verb(study.RunOptions, study.run),
    "study status": Verb(study.StatusOptions, study.status),
    "report": Verb(study.ReportOptions, study.report),
    "locate": Verb(information.LocateOptions, information.locate),
    "ledger": Verb(information.LedgerOptions, information.ledger),
    "tokenizers": Verb(tokenizers.TokenizersOptions, tokenizers.tokenizers),
    "demos make": Verb(demos.MakeOptions, demos.make),
    "demos list": Verb(demos.ListOptions, demos.list_),
    "demos import": Verb(demos.ImportOptions, demos.import_recordings),
    "demos export": Verb(demos.ExportOptions, demos.export),
    "diagnose": Verb(diagnosis.DiagnoseOptions, diagnosis.diagnose),
    "compare": Verb(compare.CompareOptions, compare.compare),
    "rollout": Verb(policy.RolloutOptions, policy.rollout),
    "serve": Verb(policy.ServeOptions, policy.serve),
    "policy export": Verb(policy.ExportOptions, policy.export),
    "store list": Verb(store.StoreListOptions, store.list_),
    "store verify": Verb(store.StoreVerifyOptions, store.verify),
    "store gc": Verb(store.StoreGcOptions, store.gc),
    "store export": Verb(store.StoreExportOptions, store.export),
    "store import": Verb(store.StoreImportOptions, store.import_),
    "published": Verb(tables.PublishedOptions, tables.published),
    "power": Verb(tables.PowerOptions, tables.power),
    "calibrate": Verb(information.CalibrateOptions, information.calibrate),
}
NOUNS = {
    "demos": "Make, list, import and export demonstrations.",
    "policy": "Export policies.",
    "store": "Look after a store; export and import studies.",
    "study": "Plan, run and follow studies.",
}


def app_of(verbs: Mapping[str, Verb[Any]]) -> SubcommandApp:
    """The parser: it returns the options of the verb that is named."""
    app = SubcommandApp()
    nouns: dict[str, SubcommandApp] = {}
    for name, verb in verbs.items():
        *noun, last = name.split()
        owner = app
        for word in noun:
            if word not in nouns:
                nouns[word] = SubcommandApp()
                app.command(nouns[word], name=word, help=NOUNS.get(word))
            owner = nouns[word]
        owner.command(name=last)(verb.options)
    return app


def run_verb(arguments: list[str]) -> int:
    """Read a verb's options, and run it."""
    options = app_of(VERBS).cli(args=arguments, prog="cgap", description=DESCRIPTION)
    (verb,) = (v for v in VERBS.values() if v.options is type(options))
    return verb.run(options) or 0


def main(argv: list[str] | None = None) -> int:
    """Entry point of ``cgap``. A user's error is one sentence on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    if arguments[:1] == ["--version"]:
        print(f"compression-gap {__version__}")
        return 0
    try:
        return run_verb(arguments)
    except UserError as error:
        if debug:
            raise
        print(f"cgap: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except OSError as error:
        from ..store.store import disk_error

        sentence = disk_error(error, Path(error.filename or "."))
        if debug or not isinstance(sentence, UserError):
            raise
        print(f"cgap: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as interrupt:
        how = str(interrupt) or "stopped; the same command goes on where this one ended"
        print(f"cgap: {how}", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
