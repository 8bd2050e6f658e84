#!/usr/bin/env bash
# Write constraints.txt and requirements.lock anew: the exact versions that `make` installs, the newest that the ranges of pyproject.toml
# allow. torch and its CUDA libraries are left out, so that any build of it can stand beside them. Run the tests after.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
EXTRAS=metaworld,libero,data,serve,text,dev,fuzz CONSTRAINTS= bash scripts/setup.sh "$work/venv"
{
  echo "# Made by scripts/constraints.sh with Python $("$work/venv/bin/python" -c 'import platform; print(platform.python_version())')"
  "$work/venv/bin/python" -m pip freeze --local --exclude-editable 2>/dev/null |
    grep -E '^[A-Za-z0-9._-]+==' | grep -viE '^(torch|torchvision|triton|openpi-client|openpi-server|vla-eval|efficientnet-lite-pytorch)==|^(nvidia|cuda)-'
} > "$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
# The same releases with the hashes of all their files, on any platform (scripts/setup.sh, LOCKED=1).
"$work/venv/bin/python" -m pip install --quiet uv
"$work/venv/bin/uv" pip compile --quiet --no-deps --generate-hashes --no-emit-index-url --no-header --no-annotate \
  --python-version 3.11 --output-file requirements.lock constraints.txt
