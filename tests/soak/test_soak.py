"""The short form of the soak: each fault at a moment that is fixed, in one study after the other. ``make soak`` is the long form."""

import signal

import pytest
from soak_faults import FULL, flip, state_of
from soaking import SHORT, Row, Study, Verdict, keys_of

SOUND = Verdict(0, 0, (), True, ())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of one worker whose wall clock jumps by hours whenever it is disturbed, with a checkpoint at every step."""
    faults = {"clock": True, "checkpoint": 0.0}
    made = Study(tmp_path_factory.mktemp("soak"), SHORT, processes=1, faults=faults, inside=True)
    yield made
    made.kill_all()


@pytest.fixture(scope="module")
def store(study):
    """The store of the study when all of these faults have come, one after the other, and it has been run to its end."""
    store, marks = study.folder / "store", iter(range(99))

    def fault(at, do, **more):
        return {"at": at, "do": do, "once": str(study.folder / f"once-{next(marks)}"), **more}

    for code, *faults in (
        (
            -signal.SIGKILL,
            fault("step", "kill_self", after=20),  # the worker, whose simulator makes demonstrations
            fault("checkpoint", "kill_parent", after=1),
        ),
        (130, fault("tokens:built", "signal_parent", signal="SIGINT")),
        (2, fault("policy:before-rename", "full")),
        (0, fault(f"step from {state_of(study)}", "kill_self")),  # a simulator
    ):
        ended = study.run(store, faults={"faults": faults})
        assert ended.code == code, (faults, ended.err)
        assert "Traceback" not in ended.err
        assert code != 2 or FULL in ended.err
    assert len(list(study.folder.glob("once-*"))) == next(marks)
    return store


def test_after_kills_signals_a_full_disk_and_a_jumping_clock_all_is_as_undisturbed(study, store):
    assert study.judge(store) == SOUND


def test_a_flipped_bit_is_named_and_not_served_and_made_anew(study, store):
    for kind in ("episodes", "policy"):
        (file,) = (f for f in store.glob(f"{kind}/*/*") if f.suffix in (".parquet", ".safetensors"))
        bit = 8 * file.stat().st_size // 2
        flip(file, bit)
    verified = study.command("store", "verify", store=store)
    assert verified.code == 1
    assert verified.out.count("damaged: ") == 2
    flip(file, bit)  # the policy is whole again
    served = study.command("report", str(study.file), "--videos", "0", store=store)
    assert served.code == 2
    assert "episodes.parquet does not match its checksum" in served.err
    assert study.run(store).code == 0
    assert study.judge(store) == SOUND


def test_the_comparison_sees_what_is_lost_doubled_and_changed(study, store):
    """A guard for the harness itself."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    (file,) = store.glob("episodes/*/episodes.parquet")
    kept, table = file.read_bytes(), parquet.read_table(file)
    parquet.write_table(pa.concat_tables([table.slice(1), table.slice(2, 1)]), file)
    found = study.judge(store)
    file.write_bytes(kept)
    assert (found.lost, found.doubled) == (1, 1)
    assert found.changed == (str(file.relative_to(store)),)
    assert not found.sound
    row = Row("by hand", injected=1, runs=2, verdicts=[found, SOUND], named="1 of 2")
    assert row.cells() == ["by hand", "1", "2", "1", "1", "1 of 2", "1 of 2"]
    assert not row.sound
    assert set(keys_of(study.reference.rows).values()) == {1}
