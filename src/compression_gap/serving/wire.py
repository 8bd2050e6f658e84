"""Messages of a policy server: msgpack with NumPy arrays, written as the client of openpi writes them.

An array is the map ``{b"__ndarray__": True, b"data": bytes, b"dtype": "<f4", b"shape": [H, d]}`` (C order), a
NumPy scalar ``{b"__npgeneric__": True, b"data": value, b"dtype": "<f4"}``; all else is plain msgpack. The
openpi client is https://github.com/Physical-Intelligence/openpi, packages/openpi-client. What vla-eval's harness
(https://pypi.org/project/vla-eval, module protocol) writes is read as well: the same keys as text, and images as
``{"__image__": True, "format": "png", "data": bytes}``, or "jpeg", or "raw" with dtype and shape.

What arrives is not trusted. Types of elements come from a list, so none is an object; an array's size is
checked against its data before it is made; lengths and the number of containers are bounded, so that a
message costs memory in proportion to its bytes. Nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from ..errors import UserError

LONGEST = 4096  # entries of one list or map
CONTAINERS = 256  # lists and maps in one message
DIMENSIONS = 8  # of an array
Message = dict[str, object]  # arrays, text, numbers, and lists and maps of them
IMAGE_BYTES = 2**26  # of all compressed images in one message, once they are decoded
ELEMENTS = (
    *("bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"),
    *("float16", "float32", "float64"),
)
ELEMENTS_IN_WORDS = "bool, integers, float16, float32 or float64"
# "<f4", ">f4", "float32" → dtype
_DTYPES = {
    **{d.newbyteorder(">").str: d.newbyteorder(">") for d in map(np.dtype, ELEMENTS)},
    **{d.newbyteorder("<").str: d.newbyteorder("<") for d in map(np.dtype, ELEMENTS)},
    **{name: np.dtype(name) for name in ELEMENTS},
}


def pack(value: Any, *, text_keys: bool = False) -> bytes:
    """One message. Maps, lists, text, numbers, and NumPy arrays and scalars of ``ELEMENTS``.

    ``text_keys``: an array's keys are text, as vla-eval wants them. Raises ``UserError`` for anything else.
    """
    msgpack = _msgpack()

    def plain(given: Any) -> dict[Any, Any]:
        about = _plain(given)
        return {k.decode(): v for k, v in about.items()} if text_keys else dict(about)

    try:
        packed: bytes = msgpack.packb(value, default=plain)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"this cannot be sent ({_words(error)}); send arrays of {ELEMENTS_IN_WORDS}"
        ) from error
    return packed


def unpack(message: bytes | str) -> Any:
    """What ``pack`` wrote; arrays are read-only. Raises ``UserError`` for a message that is none."""
    if isinstance(message, str):
        raise UserError("this is a text message; observations are binary messages (msgpack)")
    msgpack, containers, decoded = _msgpack(), 0, 0

    def count() -> None:
        nonlocal containers
        containers += 1
        if containers > CONTAINERS:
            raise UserError(f"the message holds more than {CONTAINERS} lists and maps; send arrays")

    def of_list(value: list[Any]) -> list[Any]:
        count()
        return value

    def of_map(value: dict[Any, Any]) -> Any:
        nonlocal decoded
        count()
        if value.get("__image__") is True and value.get("format") in ("png", "jpeg"):
            image, size = _open_image(value.get("data"))
            decoded += size
            if decoded > IMAGE_BYTES:
                raise UserError(
                    f"the message's images take more than {IMAGE_BYTES:,} bytes; send smaller ones"
                )
            return _decode(image)
        return _array_or_map(value)

    def of_extension(code: int, data: bytes) -> Any:
        raise UserError(f"the message holds msgpack's extension type {code}; send {ELEMENTS_IN_WORDS}")

    try:
        return msgpack.unpackb(
            message,
            object_hook=of_map,
            list_hook=of_list,
            ext_hook=of_extension,
            max_array_len=LONGEST,
            max_map_len=LONGEST,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise UserError(f"the message is no msgpack that can be read ({_words(error)})") from error


def _msgpack() -> Any:
    try:
        import msgpack
    except ModuleNotFoundError as error:
        raise UserError('serving needs msgpack: pip install "compression-gap[serve]"') from error
    return msgpack


def _words(error: Exception) -> str:
    """An error in one line of bounded length."""
    return " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())[:160]


def _plain(value: Any) -> dict[bytes, Any]:
    """A NumPy value as the map that stands for it."""
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.str not in _DTYPES:
            raise TypeError(f"an array of {value.dtype}")
        if isinstance(value, np.ndarray):
            about = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
            return {b"__ndarray__": True, **about}
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    raise TypeError(f"a value of type {type(value).__name__}")


def _open_image(data: Any) -> tuple[Any, int]:
    """A PNG or JPEG whose header alone is read, and the bytes that it takes decoded."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))
    except Exception as error:  # the library has many of its own
        raise UserError(f"an image is no PNG or JPEG that can be read ({_words(error)})") from error
    return image, image.width * image.height * len(image.getbands())


def _decode(image: Any) -> np.ndarray:
    """The pixels: uint8 [h, w, 3] of a colour image, which are read-only."""
    try:
        array = np.array(image)
    except Exception as error:
        raise UserError(f"an image is no PNG or JPEG that can be read ({_words(error)})") from error
    array.flags.writeable = False
    return array


def _array_or_map(value: dict[Any, Any]) -> Any:
    """The array or scalar that a map stands for, or the map itself."""
    # A client with msgpack's old format of strings sends these keys as text.
    about = {k.encode() if isinstance(k, str) else k: v for k, v in value.items()}
    if b"__ndarray__" in about or (b"__image__" in about and about.get(b"format") == "raw"):
        return _array(about.get(b"dtype"), about.get(b"shape"), about.get(b"data"))
    if b"__npgeneric__" in about:
        return _scalar(about.get(b"dtype"), about.get(b"data"))
    return value


def _dtype(name: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or name not in _DTYPES:
        raise UserError(f"an array of dtype {str(name)[:40]!r} is refused; send {ELEMENTS_IN_WORDS}")
    return _DTYPES[name]


def _array(name: Any, shape: Any, data: Any) -> np.ndarray:
    dtype = _dtype(name)
    sizes: list[int] = shape if isinstance(shape, list) else [-1]
    if len(sizes) > DIMENSIONS or not all(type(n) is int and n >= 0 for n in sizes):
        raise UserError(
            f"an array's shape is {str(shape)[:80]}; give up to {DIMENSIONS} sizes, none negative"
        )
    expected = math.prod(sizes) * dtype.itemsize
    if not isinstance(data, bytes) or len(data) != expected:
        given = f"{len(data)} bytes" if isinstance(data, bytes) else f"a value of type {type(data).__name__}"
        raise UserError(f"an array {sizes} of {dtype.name} takes {expected} bytes; its data are {given}")
    array = np.frombuffer(data, dtype) if data else np.zeros(0, dtype)
    try:
        array = array.astype(dtype.newbyteorder("="), copy=False).reshape(sizes)
    except ValueError as error:  # empty, and yet with a size that NumPy cannot index
        raise UserError(f"an array's shape {sizes} is too large") from error
    array.flags.writeable = False
    return array


def _scalar(name: Any, data: Any) -> Any:
    if isinstance(data, str):  # NumPy's text
        return data
    dtype = _dtype(name)
    if not isinstance(data, bool | int | float):
        raise UserError(f"a scalar of {dtype.name} is given as a value of type {type(data).__name__}")
    try:
        return dtype.newbyteorder("=").type(data)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{data} is no {dtype.name}") from error
