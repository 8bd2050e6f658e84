"""OpenGL without a display: importing MuJoCo so that it can render, renderers, and what to install if it cannot."""

from __future__ import annotations

import ctypes
import os
import sys
from types import ModuleType
from typing import Any

import numpy as np

from ..errors import UserError
from .base import SimSpec

INSTALL_GL = "apt-get install -y --no-install-recommends libegl1 libegl-mesa0 libgl1-mesa-dri libgl1"


def render_check() -> str:
    """Render one frame and return the OpenGL vendor, renderer and version.

    Raises ``UserError``, saying what to install, if there is no OpenGL to render with.
    """
    mujoco = import_mujoco()
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><worldbody><light pos="0 0 3"/><geom type="sphere" size=".3" rgba="1 0 0 1"/></worldbody>'
        "</mujoco>"
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = open_renderer(mujoco, model, 32)
    try:
        frame = renderer.render(data)
        from OpenGL import GL

        names = [GL.glGetString(n) for n in (GL.GL_VENDOR, GL.GL_RENDERER, GL.GL_VERSION)]
    except Exception as error:
        raise no_gl(error) from error
    finally:
        renderer.close()
    if not frame.any():
        raise no_gl(RuntimeError("the frame is black"))
    return ", ".join(n.decode() if isinstance(n, bytes) else str(n) for n in names)


class Renderer:
    """Square frames of a model, drawn off screen.

    Of MuJoCo's interface only the documented parts: ``mujoco.Renderer`` frees its OpenGL objects in whichever
    context is current, which may be another renderer's with objects of the same numbers, and its own context
    is hidden in it, in another place from version to version.
    """

    def __init__(self, mujoco: ModuleType, model: Any, size: int) -> None:
        """Raises whatever the backend does where it cannot render."""
        self.mujoco, self.model, self.size = mujoco, model, size
        self._scene = mujoco.MjvScene(model, maxgeom=10_000)
        self._view = mujoco.MjrRect(0, 0, size, size)
        self._option = mujoco.MjvOption()
        self._gl: Any = mujoco.GLContext(size, size)
        self._gl.make_current()
        self._drawing: Any = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150.value)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._drawing)

    def render(self, data: Any, *, camera: str = "", option: Any = None, shadows: bool = True) -> np.ndarray:
        """A frame of the present ``data``, uint8 [size, size, 3], first row on top.

        ``camera`` is one of the model's, or empty for the free one; ``option`` an ``MjvOption``. Without
        ``shadows`` there are no reflections either.
        """
        mujoco = self.mujoco
        eye = mujoco.MjvCamera()
        if camera:
            eye.fixedcamid, eye.type = self.model.camera(camera).id, mujoco.mjtCamera.mjCAMERA_FIXED
        else:
            mujoco.mjv_defaultFreeCamera(self.model, eye)
        kinds = mujoco.mjtCatBit.mjCAT_ALL.value
        mujoco.mjv_updateScene(self.model, data, option or self._option, None, eye, kinds, self._scene)
        if not shadows:  # each update brings the flags back
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        frame = np.empty((self.size, self.size, 3), np.uint8)
        self._gl.make_current()
        mujoco.mjr_render(self._view, self._scene, self._drawing)
        mujoco.mjr_readPixels(frame, None, self._view, self._drawing)
        return np.ascontiguousarray(frame[::-1])  # OpenGL's first row is the lowest

    def close(self) -> None:
        """Free the OpenGL objects in their own context, then the context."""
        self._gl.make_current()
        self._drawing.free()
        self._gl.free()


def make_renderer(mujoco: ModuleType, model: Any, spec: SimSpec) -> Renderer:
    """A renderer of square frames of the specification's size; without multisampling if it is ``fast``."""
    if spec.rendering == "fast":
        model.vis.quality.offsamples = 0  # read when the renderer is made, and only then
    view = model.vis.global_
    view.offwidth = max(view.offwidth, spec.image_size)
    view.offheight = max(view.offheight, spec.image_size)
    return open_renderer(mujoco, model, spec.image_size)


def open_renderer(mujoco: ModuleType, model: Any, size: int) -> Renderer:
    """A renderer of ``size`` × ``size`` pixels. Raises ``UserError``, with what to install, without OpenGL."""
    if sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("MUJOCO_GL"):
        raise UserError("MuJoCo was loaded for a display, and there is none: set MUJOCO_GL=egl and try again")
    if not hasattr(mujoco, "GLContext"):
        raise no_gl(RuntimeError("libEGL.so.1 was not found, or rendering is switched off"))
    try:
        return Renderer(mujoco, model, size)
    except Exception as error:  # ImportError, AttributeError or mujoco.FatalError, by what is missing
        raise no_gl(error) from error


def no_gl(error: Exception) -> UserError:
    """The sentence for a machine that cannot render."""
    reason = " ".join(str(error).split())[:120]
    backend = os.environ.get("MUJOCO_GL", "")
    return UserError(
        f"MuJoCo cannot render here with MUJOCO_GL={backend} ({reason}): install OpenGL with '{INSTALL_GL}'"
    )


def choose_backend() -> bool:
    """Let MuJoCo render without a display, if nothing else was asked for; whether its import can work.

    MuJoCo reads ``MUJOCO_GL`` when it is imported. Without OpenGL it is told so: physics needs none.
    """
    if "MUJOCO_GL" not in os.environ and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ["MUJOCO_GL"] = "egl" if _has_egl() else "disabled"
    return os.environ.get("MUJOCO_GL") != "egl" or _has_egl()


def import_mujoco(install: str = "pip install mujoco") -> ModuleType:
    """MuJoCo, imported with a backend that works here. Raises ``UserError``, with what to install, if none does."""
    if "mujoco" not in sys.modules:
        choose_backend()
    try:
        import mujoco
    except ModuleNotFoundError as error:
        if error.name != "mujoco":  # a part of the backend
            raise no_gl(error) from error
        raise UserError(f"MuJoCo is not installed: {install}") from error
    except (ImportError, AttributeError, OSError) as error:  # PyOpenGL without its library
        raise no_gl(error) from error
    return mujoco


def _has_egl() -> bool:
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return False
    return True
