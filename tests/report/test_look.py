import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from gxdistill.report import style


def _luminance(colour):
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_text_stands_out_from_its_ground_in_light_and_dark():
    themes = [t for t in re.findall(r":root \{(.*?)\}", style.CSS, re.DOTALL) if "--ink" in t]
    assert len(themes) == 2
    for theme in themes:
        light = {k: _luminance(v) for k, v in re.findall(r"--([\w-]+): (#\w{6})", theme)}
        for ink, ground in [
            *((ink, ground) for ink in ("ink", "soft") for ground in ("paper", "tint")),
            *((ink, "paper") for ink in ("ours", "ceiling", "alarm")),
            ("ink", "alarm-tint"),
            ("alarm", "alarm-tint"),
        ]:
            low, high = sorted((light[ink], light[ground]))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, ground)  # WCAG 2.2, 1.4.3


_BROKEN = """<!DOCTYPE html><img src="http://example.test/x.png">
<div style="width: 3000px">wide</div><script>console.error("planted")</script>"""
_PROBE = """<!DOCTYPE html><body>{frames}<script>onload = () => {{
  const roots = [...document.querySelectorAll("iframe")].map(f => f.contentDocument);
  document.body.dataset.widths = roots.map(r => r.documentElement.scrollWidth).join();
}}</script>"""


def test_a_browser_finds_no_error_no_request_and_no_overflow(whole, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium: neither chromium nor google-chrome is on the PATH")
    shutil.copy(whole / "report.html", tmp_path)
    (tmp_path / "broken.html").write_text(_BROKEN)  # Shows that the probe sees what it looks for.
    pages = (("broken", 1280), ("report", 1280), ("report", 400))
    frame = '<iframe src="{}.html" style="border: 0; width: {}px; height: 900px"></iframe>'
    (tmp_path / "probe.html").write_text(
        _PROBE.format(frames="".join(frame.format(*page) for page in pages))
    )
    command = [
        chromium,
        *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"),
        *("--disable-background-networking", "--allow-file-access-from-files"),
        *("--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr"),
        *(f"--user-data-dir={tmp_path / 'user'}", f"--log-net-log={tmp_path / 'net.json'}"),
        (tmp_path / "probe.html").as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert re.findall(r'data-widths="([\d,]*)"', done.stdout) == ["3008,1280,400"]
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert len(said) == 1
    assert "planted" in said[0]

    events = json.loads((tmp_path / "net.json").read_text())["events"]
    asked = {
        event["params"]["url"]
        for event in events
        if event.get("params", {}).get("initiator", "not an origin") != "not an origin"
        and not event["params"]["url"].startswith(("file:", "data:"))
    }
    assert asked == {"http://example.test/x.png"}
