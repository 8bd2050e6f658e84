"""Mirrors that write down what they are told, raise, hang, or die: in their own process, where tests cannot reach."""

import json
import os
import signal
import threading


class Recording:
    """One line of JSON for each call."""

    def __init__(self, study, folder, say):
        self.file = (folder / "seen.jsonl").open("a")
        self.write("made", study, os.getpid())
        say(f"{study} is mirrored in {folder.name}")

    def write(self, *what):
        print(json.dumps(what), file=self.file, flush=True)

    def begin(self, run):
        self.write("begin", run.key, run.name, run.config)

    def log(self, run, step, values):
        self.write("log", run.key, step, dict(values))

    def end(self, run, *, failed):
        self.write("end", run.key, failed)

    def close(self):
        self.write("close")


class Raising(Recording):
    def log(self, run, step, values):
        raise ValueError("no room\nat all")


class Hanging(Recording):
    """Deaf to a polite end, too."""

    def begin(self, run):
        super().begin(run)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        threading.Event().wait()


class Dying(Recording):
    def begin(self, run):
        os._exit(3)


class Asking(Recording):
    """As one that wants a key."""

    def begin(self, run):
        print("what is your key?")
        self.write("answer", input())


class Told:
    """A follower that says that it is there, by opening a pipe, and hangs in the first thing that it is told."""

    def __init__(self, pipe, say):
        self.pipe = pipe

    def begin(self, steps, total, workers):
        self.pipe.write_text("here")
        threading.Event().wait()

    def idle(self):
        pass
