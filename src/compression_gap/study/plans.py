"""The plan of any study: in a simulator, or on recordings of a store."""

from __future__ import annotations

from pathlib import Path

from ..store.remote import open_store
from ..store.store import Store
from .file import Study
from .offline import OfflinePlan, make_offline_plan
from .plan import Plan, make_plan


def plan_study(study: Study, store: str | Path, *, sketch: bool = False) -> tuple[Plan | OfflinePlan, Store]:
    """The graph of a study, and its store. ``sketch``: to be looked at (``Graph.absent``)."""
    with study.placed():
        if study.data is None:
            plan = make_plan(study, sketch=sketch)
            return plan, open_store(store)  # no store is made for a study that cannot be
        own = open_store(store)
        return make_offline_plan(study, own, sketch=sketch), own
