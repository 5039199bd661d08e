# SPDX-License-Identifier: Apache-2.0
"""Is a run's report.html what its metrics say? For tests/e2e/reports_test.cpp; prints what is wrong, exit 1 then.

    check_report.py RUN [REPORT.html]
"""
import html.parser
import json
import math
import os
import re
import sys

VOID = {"meta", "br", "hr", "img", "input", "link", "wbr"}


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.problems, self.tables, self.curves, self.style, self.texts = [], [], {}, [], "", []
        self.table = self.section = None
        self.metas = []

    def begin(self, tag, attributes, closed):
        a = dict(attributes)
        if tag in ("script", "link", "img", "iframe", "object", "embed", "audio", "video", "base", "use", "image"):
            self.problems.append(f"<{tag}> has no place in a page that loads nothing")
        for name, value in a.items():
            if name in ("src", "srcset", "data", "xlink:href", "poster", "action") or name.startswith("on"):
                self.problems.append(f"{tag} {name}={value}")
            if name == "href" and tag != "a":
                self.problems.append(f"{tag} {name}={value}")
            if "url(" in (value or "") and not re.fullmatch(r"url\(#m\d\)", value):
                self.problems.append(f"{tag} {name}={value}")
        if tag == "meta":
            self.metas.append(a)
        if tag == "table":
            self.table = self.tables.setdefault(a["data-table"], [])
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th"):
            self.table[-1].append("")
        if tag == "polyline":
            self.curves.append((self.section, self.caption, a["data-curve"],
                                [tuple(map(float, p.split(","))) for p in a["points"].split()]))
        if not closed and tag not in VOID:
            self.open.append(tag)

    def handle_starttag(self, tag, attributes):
        self.begin(tag, attributes, False)

    def handle_startendtag(self, tag, attributes):
        self.begin(tag, attributes, True)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> closes nothing")

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "style":
            self.style += data
        elif inside in ("td", "th"):
            self.table[-1][-1] += data
        elif inside == "h2":
            self.section = data
        elif inside == "figcaption":
            self.caption = data
        self.texts.append(data)


def follows(points, values):
    """Heights are one straight line of the values, or of their logarithms (to a tenth of a pixel)."""
    for scale in (lambda v: v, lambda v: math.log10(v) if v > 0 else math.nan):
        v, y = [scale(x) for x in values], [p[1] for p in points]
        low, high = v.index(min(v)), v.index(max(v))
        if any(map(math.isnan, v)) or v[low] == v[high]:
            continue
        slope = (y[high] - y[low]) / (v[high] - v[low])
        if slope < 0 and all(abs(y[low] + slope * (a - v[low]) - b) < 0.11 for a, b in zip(v, y)):
            return True
    return max(values) == min(values)


def main():
    run = sys.argv[1]
    text = open(sys.argv[2] if len(sys.argv) > 2 else os.path.join(run, "report.html"), encoding="utf-8").read()
    page = Page()
    page.feed(text)
    page.close()
    wrong = page.problems + [f"<{tag}> stays open" for tag in page.open]
    need = lambda holds, what: None if holds else wrong.append(what)
    need(text.startswith("<!DOCTYPE html>"), "no doctype")
    need(any("width=device-width" in m.get("content", "") for m in page.metas), "no viewport")
    for rule in ("@media print", "prefers-color-scheme: dark"):
        need(rule in page.style, f"no {rule}")
    need("@import" not in page.style and "url(" not in page.style and "http" not in page.style, "the style loads something")

    events = [json.loads(line) for line in open(os.path.join(run, "metrics.jsonl"))]
    rounds = {e["round"]: e for e in events if e["event"] in ("start", "round")}
    trained = [n for n in rounds if n > 0]
    loss = lambda e, part: e.get(part, {}).get("loss_per_token", e.get(part, {}).get("loss_per_pair"))
    table = page.tables["rounds"]
    need([row[0].removesuffix(" *") for row in table[1:]] == [str(n) for n in rounds], "rounds of the table")
    need([n for n in rounds if table[1 + list(rounds).index(n)][0].endswith("*")] ==
         [n for n, e in rounds.items() if e.get("best")], "marks of the best")
    drawn = 0
    for part in ("train", "val", "test"):
        values = {n: loss(e, part) for n, e in rounds.items() if loss(e, part) is not None}
        if not values:
            continue
        column = table[0].index(part + " loss")
        for row, n in zip(table[1:], rounds):
            shown = f"{values[n]:.6f}" if n in values else "–"
            need(row[column] == shown, f"{part} loss of round {n}: {row[column]}, metrics.jsonl has {shown}")
        values.pop(0, None)
        curves = [points for section, _, name, points in page.curves if section == "Losses" and name == part]
        need(len(curves) == 1, f"{len(curves)} curves of {part}")
        need(curves and len(curves[0]) == len(values) and follows(curves[0], list(values.values())), f"the curve of {part}")
        need(curves and [p[0] for p in curves[0]] == sorted(p[0] for p in curves[0]), f"the rounds of {part}")
        drawn += 1
    need(drawn > 0, "no loss is drawn")
    lines = [json.loads(line) for line in open(os.path.join(run, "metrics_clients.jsonl"))]
    need(len(page.tables["clients"]) - 1 == len({line["client"] for line in lines}), "rows of the clients' table")
    turns = page.tables["clients"][0].index("turns")
    for row in page.tables["clients"][1:]:
        need(int(row[turns]) == sum(str(l["client"]) == row[0] and "train" in l for l in lines), f"turns of client {row[0]}")
    ranks = [json.loads(line) for line in open(os.path.join(run, "metrics_ranks.jsonl"))]
    need(len(page.tables["ranks"]) - 1 == len({line["rank"] for line in ranks}), "rows of the ranks' table")
    for heading in ("Losses", "Clients", "Sampling", "Split", "Time", "Traffic and memory", "Configuration", "Environment"):
        need(heading in page.texts, f"no section {heading}")
    up = [points for _, caption, name, points in page.curves if name == "up"]
    need(len(up[0]) == len(trained) if up else not any(e["bytes_up"] for e in rounds.values()), "one point of traffic a round")
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)


main()
