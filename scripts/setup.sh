#!/usr/bin/env bash
# Make the virtual environment and install the program on a machine that has Python 3.11 or newer, in the versions
# of constraints.txt. torch: one that is there is kept; else a wheel that pip is offered locally (a CPU build, on
# machines without a GPU); else the default. Mesa's EGL is installed where it is missing and the user is root.
# LOCKED=1: every package of every extra is first installed from requirements.lock, each file against its hash; what
# the lock leaves out (torch, and what is built here) is installed as without it.
#   EXTRAS=metaworld,data  LOCKED=1  CONSTRAINTS=FILE  PYTHON=/path/to/python  ONLY=torch  bash scripts/setup.sh [FOLDER]
set -euo pipefail
venv=${1:-.venv}
python=${PYTHON:-python3}
extras=${EXTRAS-metaworld,data,serve,text,dev}
constraints=${CONSTRAINTS-constraints.txt}

"$python" - <<'PY' || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/it" >&2; exit 2; }
import sys
sys.exit(sys.version_info < (3, 11))
PY

if [ ! -x "$venv/bin/python" ]; then
  site=()
  if "$python" -c 'import torch' 2>/dev/null; then site=(--system-site-packages); fi
  "$python" -m venv "${site[@]}" "$venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
  pip install --quiet --no-index --no-deps torch 2>/dev/null || true
fi
if [ "${ONLY:-}" = torch ]; then exit; fi
if [ "${LOCKED:-}" = 1 ]; then
  pip install --quiet --require-hashes --no-deps --requirement requirements.lock 2> >(grep -v '^WARNING: Location' >&2)
fi
pip install --quiet ${constraints:+--constraint "$constraints"} --editable ".${extras:+[$extras]}" \
  2> >(grep -v '^WARNING: Location' >&2)
case ",$extras," in *,dev,*)  # oracles of the tests, and what an example rests on; some bound NumPy from above without need
  pip install --quiet --no-deps openpi-client==0.1.2 openpi-server==0.1.0 vla-eval==0.8.0 \
    efficientnet-lite-pytorch==0.1.0 \
    2> >(grep -v '^WARNING: Location' >&2) ;;
esac
"$venv/bin/python" -c 'import compression_gap, torch'

egl() {  # nothing renders without MuJoCo
  ! "$venv/bin/python" -c 'import importlib.util as u, sys; sys.exit(not u.find_spec("mujoco"))' ||
    MUJOCO_GL=egl "$venv/bin/python" -c 'from compression_gap.sims.opengl import render_check; render_check()' 2>/dev/null
}
packages="libegl1 libegl-mesa0 libgl1-mesa-dri libgl1"
if [ "$(uname)" = Linux ] && ! egl; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages >/dev/null
  else
    echo "OpenGL is missing: run  sudo apt-get install -y --no-install-recommends $packages" >&2
  fi
fi
