"""Serve a policy of the core's study to examples/client.py, and check the answers."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

policy = next(p for p in sorted((Path(sys.argv[1]) / "policy").iterdir()) if p.is_dir())
command = ["cgap", "serve", str(policy), "--port", "0", "--json"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
try:
    assert server.stdout is not None
    about = json.loads(server.stdout.readline())
    spec = importlib.util.spec_from_file_location("client", "examples/client.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    answers = client.episode(about["url"])
    assert answers
    assert all(a["ok"] for a in answers), answers
finally:
    server.terminate()
    server.wait(timeout=30)
