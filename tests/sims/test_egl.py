"""EGL's numbers of GPUs, asked of a driver made here: two GPUs in the other order, behind a device that is not CUDA's."""

import os
import shutil
import subprocess
import sys

import pytest

from compression_gap.sims.egl import egl_devices, egl_of_cuda

DRIVER = """
#include <string.h>
static long cuda[] = {-1, 1, 0};
unsigned devices(int most, void **out, int *n) {
    *n = 3;
    for (int i = 0; i < 3 && i < most; i++) out[i] = &cuda[i];
    return 1;
}
unsigned attribute(void *device, int name, long *value) {
    long own = *(long *)device;
    if (name != 0x323A || own < 0) return 0;
    *value = own;
    return 1;
}
void *eglGetProcAddress(const char *name) {
    if (!strcmp(name, "eglQueryDevicesEXT")) return devices;
    if (!strcmp(name, "eglQueryDeviceAttribEXT")) return attribute;
    return 0;
}
"""


@pytest.mark.skipif(not shutil.which("cc") or sys.platform != "linux", reason="needs a C compiler and Linux")
def test_each_gpu_is_found_by_its_number_in_cuda(tmp_path, monkeypatch):
    (tmp_path / "egl.c").write_text(DRIVER)
    command = ["cc", "-shared", "-fPIC", "-o", str(tmp_path / "libEGL.so.1"), str(tmp_path / "egl.c")]
    subprocess.run(command, check=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")  # which the asking process must not see
    assert egl_of_cuda() == {1: 1, 0: 2}


def test_the_devices_of_this_machine_can_be_asked_for():
    found = egl_devices()
    assert all(d is None or d >= 0 for d in found)
    if not os.path.exists("/dev/nvidiactl"):
        assert egl_of_cuda() == {}
