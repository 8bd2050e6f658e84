"""Which GPUs a run uses, and what names each to CUDA and to the renderer."""

import pytest

from compression_gap.api import devices
from compression_gap.api.devices import environments
from compression_gap.api.options import Running
from compression_gap.errors import UserError
from compression_gap.sims import egl


@pytest.fixture
def gpus(monkeypatch):
    """A machine whose GPUs EGL numbers the other way round, behind one device of its own."""
    import torch

    def make(count, visible=None):
        monkeypatch.delenv("MUJOCO_EGL_DEVICE_ID", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(devices, "_driver", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(egl, "egl_of_cuda", lambda: {0: 4, 1: 3, 2: 2, 3: 1})

    return make


def test_each_gpu_has_its_number_in_cuda_and_in_egl(gpus):
    gpus(2)
    assert environments(None) == [
        {"CUDA_VISIBLE_DEVICES": "0", "MUJOCO_EGL_DEVICE_ID": "4"},
        {"CUDA_VISIBLE_DEVICES": "1", "MUJOCO_EGL_DEVICE_ID": "3"},
    ]
    assert environments("1") == [{"CUDA_VISIBLE_DEVICES": "1", "MUJOCO_EGL_DEVICE_ID": "3"}]
    assert environments("1, 0,1") == environments(None)[::-1]


def test_devices_are_counted_among_those_that_the_process_may_use(gpus):
    gpus(2, "2,3")
    assert environments("1") == [{"CUDA_VISIBLE_DEVICES": "3", "MUJOCO_EGL_DEVICE_ID": "1"}]


def test_a_gpu_that_is_named_by_its_uuid_leaves_the_renderer_alone(gpus):
    gpus(2, "GPU-aa,GPU-bb")
    assert environments(None) == [{"CUDA_VISIBLE_DEVICES": "GPU-aa"}, {"CUDA_VISIBLE_DEVICES": "GPU-bb"}]


def test_what_the_user_says_of_the_renderer_holds(gpus, monkeypatch):
    gpus(2)
    monkeypatch.setenv("MUJOCO_EGL_DEVICE_ID", "7")
    assert [set(e) for e in environments(None)] == [{"CUDA_VISIBLE_DEVICES"}] * 2


def test_without_a_gpu_there_is_nothing_to_name(gpus):
    gpus(0)
    assert environments(None) == []
    with pytest.raises(UserError, match="--devices 0: no device 0; there is no GPU that torch can use"):
        environments("0")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [("2", "no device 2; 2 are there, counted from 0"), ("a", "is no list of devices; write it as 0,1")],
)
def test_a_device_that_is_not_there_is_a_sentence(gpus, asked, sentence):
    gpus(2)
    with pytest.raises(UserError, match=sentence):
        environments(asked)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"engine": "ray", "processes": 2}, "--processes is the local engine's"),
        ({"engine": "ray", "devices": "0"}, "--devices is the local engine's"),
        ({"address": "auto"}, "give --engine ray"),
    ],
)
def test_options_of_the_other_engine_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        Running(**options).make_engine()
