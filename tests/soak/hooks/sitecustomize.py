"""Faults inside the processes of a run. Python reads this file at its start where its folder stands on PYTHONPATH.

``SOAK_FAULTS`` (JSON) says which. ``slow``: seconds that a step of the channel takes longer; ``checkpoint``: seconds
between two checkpoints; ``clock``: the wall clock jumps by hours, back and forth; ``faults``: what happens at a moment,
each ``{"at": moment, "do": what}``. A moment is a commit point ("policy:before-rename"), "checkpoint", "step" (of a
simulator), or "step from 2000003", the initial state. ``once``: a file that says that it has happened, and is not to
happen again; ``after``: so many of the moments are let by.
"""

import errno
import importlib.util
import json
import os
import signal
import sys
import time

PLAN = json.loads(os.environ.get("SOAK_FAULTS", "{}"))
SEEN = {}


def happens(fault):
    """Whether the fault happens now: with ``once``, in one of all processes and all runs."""
    if "once" not in fault:
        return True
    SEEN[fault["once"]] = seen = SEEN.get(fault["once"], 0) + 1
    if seen <= fault.get("after", 0):
        return False
    try:
        os.close(os.open(fault["once"], os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def reached(moment):
    """Do what is to happen at this moment."""
    for fault in PLAN.get("faults", []):
        if fault["at"] == moment and happens(fault):
            ACTS[fault["do"]](fault)


def kill_self(fault):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_parent(fault):
    """The kernel ends this process with its parent."""
    os.kill(os.getppid(), signal.SIGKILL)
    hang(fault)


def signal_parent(fault):
    """And go on as if nothing had happened."""
    os.kill(os.getppid(), getattr(signal, fault["signal"]))


def hang(fault):
    while True:
        time.sleep(3600)


def full(fault):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(fault):
    """Take what is left of the disk, to the last byte."""
    with open(fault["filler"], "wb", buffering=0) as stream:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    stream.write(b"\0" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


ACTS = {f.__name__: f for f in (kill_self, kill_parent, signal_parent, hang, full, fill)}


def in_store(module):
    module.commit_point = reached


def in_training(module):
    save = module._save

    def saved(*arguments):
        save(*arguments)
        reached("checkpoint")

    module._save = saved
    if "checkpoint" in PLAN:
        module.train.__kwdefaults__["checkpoint_seconds"] = PLAN["checkpoint"]


def in_channel(module):
    step, reset = module.Channel.step, module.Channel.reset

    def begun(self, task, initial_state):
        reset(self, task, initial_state)
        self.begun_from = initial_state

    def stepped(self, action):
        time.sleep(PLAN.get("slow", 0.0))
        reached("step")
        reached(f"step from {self.begun_from}")
        step(self, action)

    module.Channel.reset, module.Channel.step = begun, stepped


CHANGES = {
    "compression_gap.store.store": in_store,
    "compression_gap.nn.training": in_training,
    "compression_gap.sims.channel": in_channel,
}


class Changed:
    """Finds a module that is to be changed, once, and changes it when it has been read."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        change = CHANGES.pop(name, None)
        if change is None:
            return None
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            change(module)

        spec.loader.exec_module = execute_and_change
        return spec


def jumping(clock):
    """A clock that is hours off, and each time others."""
    hours, looks = (0, 5, -3, 48, -2, 1), [os.getpid()]

    def now():
        looks[0] += 1
        return clock() + 3600.0 * hours[looks[0] % len(hours)]

    return now


if PLAN:
    sys.meta_path.insert(0, Changed)
    if PLAN.get("clock"):
        time.time = jumping(time.time)
