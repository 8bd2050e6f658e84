"""The page of a comparison: what files say is text."""

import re
from pathlib import Path

import compression_gap
from compression_gap.api.compare import compare
from compression_gap.report.compared import write_compared

HOSTILE = "</script><script>alert(1)</script><b x='y'> & $x_{^$ {{ 7*7 }}"
TEMPLATES = Path(compression_gap.__file__).parent / "report/templates"
# Our own style and script, and figures, in which matplotlib escapes every text.
DRAWN = {
    "main",
    "gains",
    "codes",
    "svg",
    "quality",
    "curves",
    "forest",
    "plot",
    "success",
    "figure",
    "bits",
    "upgrades",
}


def test_names_of_policies_and_tasks_are_escaped(tmp_path):
    file = tmp_path / "a.csv"
    rows = [
        f'"{p} {HOSTILE}",0,"{t} {HOSTILE}",{i},{(i + (p == "b")) % 2}'
        for p in "ab"
        for t in "st"
        for i in range(3)
    ]
    file.write_text("\n".join(["policy,training seed,task,initial state,success", *rows]))
    write_compared(compare([str(file)]), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert "<b x=" not in page
    assert "49" not in re.findall(r"\{\{.*?\}\}|&amp; \$x_\{\^\$ (\S+)", page)


def test_templates_trust_nothing_but_figures_style_and_script():
    trusted = {
        name
        for file in TEMPLATES.glob("*.html")
        for name in re.findall(r"\{\{\s*([\w.]+)\s*\|\s*safe", file.read_text())
    }
    assert {"style", "script"} <= trusted
    assert trusted - {"style", "script"} <= DRAWN
    assert sum(len(re.findall(r"\|\s*safe\b", f.read_text())) for f in TEMPLATES.glob("*.html")) >= len(
        trusted
    )
    assert not [f.name for f in TEMPLATES.glob("*.html") if "autoescape" in f.read_text()]
