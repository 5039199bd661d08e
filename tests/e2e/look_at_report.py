# SPDX-License-Identifier: Apache-2.0
"""A report in a real browser without a window: at the width of a phone, of a desktop, in the dark, and printed.
For tests/e2e/reports_test.cpp; prints the figures as JSON, or "SKIPPED: why" with exit 77.

    look_at_report.py REPORT.html [PICTURES]
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
# Looks at the page in a frame of a given width, and writes what it sees into the outer page.
FRAME = """<!doctype html><body style="margin:0"><iframe id="f" src="file://PAGE" style="border:0;width:WIDTHpx;height:HEIGHTpx"></iframe>
<pre id="seen"></pre><script>onload = () => {
  const d = document.getElementById("f").contentDocument, all = s => [...d.querySelectorAll(s)];
  const right = e => e.getBoundingClientRect().right;
  document.getElementById("seen").textContent = JSON.stringify({
    width: d.documentElement.scrollWidth,
    height: d.documentElement.scrollHeight,
    outside: all("h1,h2,p,figure,svg,.tiles div").filter(e => right(e) > WIDTH + 1).map(e => e.tagName),
    smallest_text: Math.min(...all("svg text").map(e => e.getBoundingClientRect().height)),
    curves: all("polyline").map(e => e.points.numberOfItems),
    invisible: all("polyline").filter(e => getComputedStyle(e).stroke === "none").length,
    ground: d.defaultView.getComputedStyle(d.body).backgroundColor,
    ink: d.defaultView.getComputedStyle(d.body).color });
}</script>"""


def main():
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("SKIPPED: no browser (" + ", ".join(BROWSERS) + ")")
        sys.exit(77)
    page, pictures = os.path.realpath(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory() as folder:
        def start(arguments):
            words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run",
                     "--allow-file-access-from-files", f"--user-data-dir={folder}/profile", *arguments]
            return subprocess.run(words, capture_output=True, text=True, timeout=120)

        seen = {}
        for name, width, height, more in (("phone", 390, 4000, []), ("desktop", 1200, 3000, []),
                                          ("dark", 390, 4000, ["--blink-settings=preferredColorScheme=0"])):
            frame = os.path.join(folder, name + ".html")
            with open(frame, "w") as file:
                file.write(FRAME.replace("PAGE", page).replace("WIDTH", str(width)).replace("HEIGHT", str(height)))
            told = start([*more, "--dump-dom", f"--window-size={max(width, 500)},{height}", "file://" + frame])
            match = re.search(r'<pre id="seen">(.*?)</pre>', told.stdout, re.S)
            if not match or not match[1]:
                print(told.stdout[-2000:], told.stderr[-2000:])
                sys.exit(1)
            seen[name] = json.loads(match[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
            if pictures:
                start([*more, f"--screenshot={pictures}/{name}.png", f"--window-size={max(width, 500)},{height}", "file://" + frame])
        printed = os.path.join(pictures or folder, "print.pdf")
        start(["--no-pdf-header-footer", f"--print-to-pdf={printed}", "file://" + page])
        seen["pages"] = len(re.findall(rb"/Type\s*/Page\b", open(printed, "rb").read()))
    print(json.dumps(seen))


main()
