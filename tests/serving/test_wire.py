import subprocess
import sys

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from compression_gap.errors import UserError
from compression_gap.serving.wire import CONTAINERS, DIMENSIONS, ELEMENTS, LONGEST, pack, unpack


def arrays():
    kinds = [np.dtype(name).newbyteorder(order) for name in ELEMENTS for order in "<>"]
    shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    return st.sampled_from(kinds).flatmap(lambda dtype: hnp.arrays(dtype, shapes))


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()


@settings(deadline=None)
@given(arrays())
def test_an_array_survives_in_value_shape_and_type(array):
    again = unpack(pack(array))
    assert isinstance(again, np.ndarray)
    assert (again.shape, again.dtype) == (array.shape, array.dtype.newbyteorder("="))
    assert again.dtype.isnative
    # bit by bit: NaNs too
    assert again.tobytes() == array.astype(again.dtype).tobytes()


@settings(deadline=None)
@given(st.recursive(PLAIN, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4)))
def test_plain_values_survive(value):
    reserved = ("__ndarray__", "__npgeneric__")
    if not any(name in repr(value) for name in reserved):
        assert unpack(pack(value)) == value


def test_arrays_are_written_as_openpi_writes_them():
    array = np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1]
    assert msgpack.unpackb(pack({"actions": array})) == {
        "actions": {
            b"__ndarray__": True,
            b"data": np.array([[2, 1, 0], [5, 4, 3]], "<f4").tobytes(),
            b"dtype": "<f4",
            b"shape": [2, 3],
        }
    }
    assert msgpack.unpackb(pack(np.int16(-3))) == {b"__npgeneric__": True, b"data": -3, b"dtype": "<i2"}
    assert msgpack.unpackb(pack([np.bool_(True), np.uint8(7)])) == [
        {b"__npgeneric__": True, b"data": True, b"dtype": "|b1"},
        {b"__npgeneric__": True, b"data": 7, b"dtype": "|u1"},
    ]


def test_scalars_and_text_of_numpy():
    assert unpack(pack(np.float32(0.1))) == np.float32(0.1)
    assert type(unpack(pack(np.float32(0.1)))) is np.float32
    text = {b"__npgeneric__": True, b"data": "pick", b"dtype": "<U4"}
    assert unpack(msgpack.packb(text)) == "pick"


def test_keys_as_text_and_names_of_types_are_read_too():
    about = {"__ndarray__": True, "data": b"\1\2", "dtype": "uint8", "shape": [2]}
    np.testing.assert_array_equal(unpack(msgpack.packb(about)), np.array([1, 2], np.uint8))


def array_of(dtype="<f4", shape=(2,), data=b"\0" * 8):
    return msgpack.packb({b"__ndarray__": True, b"data": data, b"dtype": dtype, b"shape": shape})


def nested(depth):
    value = 0
    for _ in range(depth):
        value = [value]
    return msgpack.packb(value)


REFUSED = {
    "objects": (array_of("|O"), r"dtype '\|O' is refused; send bool, integers, float16"),
    "objects by name": (array_of("object"), "dtype 'object' is refused"),
    "complex": (array_of("<c8"), "dtype '<c8' is refused"),
    "void": (array_of("|V8"), "dtype '|V8' is refused"),
    "text": (array_of("<U2"), "dtype '<U2' is refused"),
    "times": (array_of("<M8[s]"), "refused"),
    "records": (array_of([["a", "<f4"]]), "refused"),
    "no type": (array_of(None), "dtype 'None' is refused"),
    "too few bytes": (array_of(data=b"\0" * 7), r"\[2\] of float32 takes 8 bytes; its data are 7 bytes"),
    "too many bytes": (array_of(data=b"\0" * 9), "takes 8 bytes; its data are 9 bytes"),
    "text for bytes": (array_of(data="xxxxxxxx"), "its data are a value of type str"),
    "a negative size": (array_of(shape=(-1, -2)), "none negative"),
    "a size that is no number": (array_of(shape=(2.0,)), "none negative"),
    "a size that is a truth": (array_of(shape=(True,)), "none negative"),
    "no shape": (array_of(shape=None), "an array's shape is None"),
    "huge": (array_of(shape=(2**40, 2**40)), "takes 4835703278458516698824704 bytes"),
    "huge and empty": (array_of(shape=(0, 2**62, 2**62), data=b""), "too large|cannot|no msgpack"),
    "many sizes": (array_of(shape=(1,) * 9, data=b"\0" * 4), f"up to {DIMENSIONS} sizes"),
    "a scalar of text": (msgpack.packb({b"__npgeneric__": True, b"data": b"x", b"dtype": "<f4"}), "type bytes"),
    "a scalar too large": (msgpack.packb({b"__npgeneric__": True, b"data": 300, b"dtype": "|u1"}), "300 is no"),
    "no msgpack": (b"\xc1", "no msgpack that can be read"),
    "nothing": (b"", "no msgpack that can be read"),
    "half a message": (pack({"a": np.zeros(9)})[:-1], "no msgpack that can be read"),
    "two messages": (pack(1) + pack(2), "no msgpack that can be read"),
    "keys that are numbers": (msgpack.packb({1: 2}), "no msgpack that can be read"),
    "text that is none": (b"\xa1\xff", "no msgpack that can be read"),
    "an extension": (msgpack.packb(msgpack.ExtType(42, b"x")), "extension type 42"),
    "a pickle": (b"\x80\x04K\x01.", "no msgpack"),
    "a long list": (msgpack.packb([0] * (LONGEST + 1)), "no msgpack"),
    "many lists": (msgpack.packb([[]] * (CONTAINERS + 1)), f"more than {CONTAINERS} lists and maps"),
    "a deep list": (nested(100), None),
    "an abyss": (b"\x91" * 100_000 + b"\0", "no msgpack|more than"),
    "a list of four thousand million": (b"\xdd\xff\xff\xff\xff", "no msgpack"),
}  # fmt: skip


@pytest.mark.parametrize("what", [k for k, v in REFUSED.items() if v[1]])
def test_what_is_refused_and_why(what):
    message, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence) as caught:
        unpack(message)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_depth_alone_is_no_fault():
    assert unpack(REFUSED["a deep list"][0]) == msgpack.unpackb(nested(100))


@pytest.mark.parametrize(
    "value", [np.array([object()]), np.array(["a"]), np.zeros(2, complex), object(), {"a": {1, 2}}, 2**70]
)
def test_what_cannot_be_sent(value):
    with pytest.raises(UserError, match="this cannot be sent"):
        pack(value)


def test_received_arrays_cannot_be_written_to():
    array = unpack(pack(np.zeros(3)))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def read(message):
    """The value, or the sentence; any other exception is a failure."""
    try:
        return unpack(message)
    except UserError as error:
        sentence = str(error)
    assert "\n" not in sentence
    return sentence


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_bytes_at_random_are_read_or_refused(message):
    read(message)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_messages_are_read_or_refused(data):
    whole = pack({"images": {"front": np.zeros((2, 2, 3), np.uint8)}, "proprio": np.ones(3), "task": "reach"})
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    read(bytes(damaged[: data.draw(st.integers(0, len(whole)))]))
    read(bytes(damaged))


ANYTHING = st.recursive(
    PLAIN | st.binary(max_size=9),
    lambda v: (
        st.lists(v, max_size=3)
        | st.dictionaries(
            st.text(max_size=2) | st.sampled_from([b"__ndarray__", b"__npgeneric__"]), v, max_size=3
        )
    ),
)


@settings(deadline=None, max_examples=300)
@given(st.sampled_from([b"__ndarray__", b"__npgeneric__"]), ANYTHING, ANYTHING, ANYTHING)
def test_maps_that_claim_to_be_arrays(name, dtype, shape, data):
    about = {name: True, b"dtype": dtype, b"shape": shape, b"data": data}
    value = read(msgpack.packb(about))
    assert isinstance(value, str | np.ndarray | np.generic)


def test_a_client_needs_no_torch():
    code = (
        "import sys, compression_gap.serving.wire as w; w.unpack(w.pack(1)); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "msgpack", None)
    with pytest.raises(UserError, match=r"needs msgpack: pip install \"compression-gap\[serve\]\""):
        pack(1)
