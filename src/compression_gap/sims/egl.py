"""Which EGL device is which GPU: EGL and CUDA number them differently, and MuJoCo renders on EGL's first one unless told.

Run as a module it prints the answer: the NVIDIA driver reads ``CUDA_VISIBLE_DEVICES`` once, so who sets that variable
asks in a process without it.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys

from ..records import parse_json

MOST = 64  # devices
CUDA_DEVICE = 0x323A  # EGL_CUDA_DEVICE_NV of the extension EGL_NV_device_cuda


def egl_devices() -> list[int | None]:
    """For each EGL device, in EGL's order, the number that CUDA gives it; None for one that is not CUDA's."""
    try:
        egl = ctypes.CDLL("libEGL.so.1")
    except OSError:
        return []
    egl.eglGetProcAddress.restype, egl.eglGetProcAddress.argtypes = ctypes.c_void_p, [ctypes.c_char_p]
    list_at = egl.eglGetProcAddress(b"eglQueryDevicesEXT")
    attribute_at = egl.eglGetProcAddress(b"eglQueryDeviceAttribEXT")
    if not list_at or not attribute_at:
        return []
    array, count = ctypes.c_void_p * MOST, ctypes.c_int(0)
    query = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_int, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int)
    )(list_at)
    attribute = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_ssize_t)
    )(attribute_at)
    found = array()
    if not query(MOST, found, ctypes.byref(count)):
        return []
    out: list[int | None] = []
    for device in found[: count.value]:
        value = ctypes.c_ssize_t(-1)
        known = attribute(device, CUDA_DEVICE, ctypes.byref(value))
        out.append(value.value if known and value.value >= 0 else None)
    return out


def egl_of_cuda() -> dict[int, int]:
    """EGL's number of each GPU by CUDA's; empty where there is no such GPU, or no answer."""
    own = {n: v for n, v in os.environ.items() if n != "CUDA_VISIBLE_DEVICES"}
    try:
        asked = subprocess.run(
            [sys.executable, "-m", __name__], capture_output=True, env=own, timeout=60, check=True
        )
        found = parse_json(asked.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    return {cuda: egl for egl, cuda in enumerate(found) if cuda is not None}


if __name__ == "__main__":
    print(json.dumps(egl_devices()))
