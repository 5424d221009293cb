"""Pages in a real browser: Debian's chromium, and axe-core (from npm) where it is installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def axe_core() -> Path | None:
    """Return axe-core's script: of the directory that AXE_CORE names, or installed by ``npm install -g axe-core``."""
    places = [Path(os.environ["AXE_CORE"])] if os.environ.get("AXE_CORE") else []
    if shutil.which("npm"):
        root = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=False).stdout.strip()
        places.append(Path(root) / "axe-core")
    return next((place / "axe.min.js" for place in places if (place / "axe.min.js").exists()), None)


def dom(page: str, directory: Path, *, width: int = 1200) -> str:
    """Return a page's DOM after its scripts have run, in a window of so many pixels."""
    path = directory / "page.html"
    path.write_text(page, encoding="utf-8")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory / 'profile'}"]
    arguments += [f"--window-size={width},2000", "--virtual-time-budget=20000", "--dump-dom", path.as_uri()]
    return subprocess.run([str(CHROMIUM), *arguments], capture_output=True, text=True, check=True, timeout=120).stdout


def violations(page: str, directory: Path, *, width: int = 1200) -> list[str]:
    """Return what axe-core finds wrong with a page, one line each, with every ``details`` open."""
    script = axe_core()
    assert script is not None
    run = (
        "document.querySelectorAll('details').forEach(one => {one.open = true});"
        "axe.run().then(found => {const out = document.createElement('pre'); out.id = 'axe';"
        "out.textContent = JSON.stringify(found.violations.map(one => one.id + ': ' + one.help + ' ' + "
        "one.nodes.slice(0, 3).map(node => node.html.slice(0, 120)).join(' | ')));"
        "document.body.append(out)})"
    )
    whole = page.replace(
        "</body>", f"<script>{script.read_text(encoding='utf-8')}</script><script>{run}</script></body>"
    )
    found = re.search(r'<pre id="axe">(.*?)</pre>', dom(whole, directory, width=width), re.DOTALL)
    assert found, "axe-core did not end"
    told: list[str] = json.loads(unescape(found[1]))
    return told
