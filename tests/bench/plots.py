# SPDX-License-Identifier: Apache-2.0
"""Plots as SVG, with nothing but the standard library: lines and bars with axes, units and a legend."""
import html
import math

# Okabe and Ito's colours: told apart with any kind of colour vision; markers and dashes differ as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
DASHES = ("", "8 4", "2 4", "8 4 2 4", "4 2")
WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 820, 420, 84, 26, 64


def number(x, digits=3):
    """With so many significant digits, and never in powers of ten."""
    if x is None:
        return "–"
    if x == 0 or not math.isfinite(x):
        return f"{x:g}"
    places = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    return f"{round(x, places):,.{places}f}"


def plain(x):
    """A tick's number, without zeros that say nothing."""
    text = number(x)
    return text.rstrip("0").rstrip(".") if "." in text else text


def ticks_up_to(top):
    raw = top / 5
    unit = 10 ** math.floor(math.log10(raw))
    pace = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    return [pace * i for i in range(math.ceil(top / pace - 1e-9) + 1)]


def decades(low, high):
    ticks = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    return ticks if len(ticks) > 1 else [ticks[0], 10 * ticks[0]]


class Picture:
    """An SVG with a title, a legend in rows under it, and axes with units."""

    def __init__(self, title, names):
        self.parts, self.top = [], 46
        self.text(WIDTH / 2, 26, title, size=18, weight="bold")
        x = LEFT
        if len(names) > 1:
            self.top += 24
            for k, name in enumerate(names):
                width = 48 + 8.2 * len(name)
                if x + width > WIDTH and x > LEFT:
                    x, self.top = LEFT, self.top + 24
                self.key(k, x, self.top - 24)
                self.text(x + 36, self.top - 19, name, anchor="start")
                x += width
        self.names = names

    def key(self, k, x, y):
        raise NotImplementedError

    def text(self, x, y, text, size=15, anchor="middle", weight="normal", turn=""):
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}"{turn}>'
                          f"{html.escape(text)}</text>")

    def line(self, x1, y1, x2, y2, colour, width=1.0, dash=""):
        self.parts.append(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"'
                          + (f' stroke-dasharray="{dash}"' if dash else "") + "/>")

    def marker(self, k, x, y):
        colour = f'fill="{COLOURS[k]}" stroke="white" stroke-width="1"'
        self.parts.append((f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" {colour}/>',
                           f'<rect x="{x - 5.5:.1f}" y="{y - 5.5:.1f}" width="11" height="11" {colour}/>',
                           f'<path d="M{x:.1f} {y - 7:.1f}l7 12h-14z" {colour}/>',
                           f'<path d="M{x:.1f} {y - 7.5:.1f}l7.5 7.5l-7.5 7.5l-7.5 -7.5z" {colour}/>',
                           f'<path d="M{x:.1f} {y + 7:.1f}l7 -12h-14z" {colour}/>')[k])

    def y_axis(self, label, ticks, at):
        for tick in ticks:
            self.line(LEFT, at(tick), WIDTH - RIGHT, at(tick), "#dddddd")
            self.text(LEFT - 8, at(tick) + 5, plain(tick), anchor="end")
        middle = (self.top + HEIGHT - BOTTOM) / 2
        self.text(20, middle, label, turn=f' transform="rotate(-90 20 {middle:.1f})"')

    def x_axis(self, label):
        self.line(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "#333333", 1.5)
        self.text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, label)

    def svg(self):
        inner = "\n".join(self.parts)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
                f'font-family="Helvetica, Arial, DejaVu Sans, sans-serif" fill="#222222">\n'
                f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>\n{inner}\n</svg>\n')


class Lines(Picture):
    def key(self, k, x, y):
        self.line(x, y, x + 30, y, COLOURS[k], 2.5, DASHES[k])
        self.marker(k, x + 15, y)


class Bars(Picture):
    def key(self, k, x, y):
        self.parts.append(f'<rect x="{x + 6:.1f}" y="{y - 9:.1f}" width="22" height="18" fill="{COLOURS[k]}"/>')


def lines(title, x_label, y_label, series, log_x=True, log_y=False, mark=None):
    """series: (name, [(x, y), ...]). A logarithmic x has a tick at each value. mark: a horizontal line and what it is."""
    picture = Lines(title, [name for name, _ in series])
    xs = sorted({x for _, points in series for x, _ in points})
    ys = [y for _, points in series for _, y in points] + ([mark[0]] if mark else [])
    scale = math.log if log_x else float
    x_ticks, edge = (xs, 30) if log_x else (ticks_up_to(xs[-1]), 0)
    low, high = scale(x_ticks[0]), scale(x_ticks[-1])
    at_x = lambda x: LEFT + edge + (scale(x) - low) / (high - low or 1) * (WIDTH - RIGHT - LEFT - 2 * edge)
    if log_y:
        ticks = decades(min(y for y in ys if y > 0), max(ys))
        share = lambda y: (math.log10(max(y, ticks[0])) - math.log10(ticks[0])) / (math.log10(ticks[-1]) - math.log10(ticks[0]))
    else:
        ticks = ticks_up_to(max(ys))
        share = lambda y: y / ticks[-1]
    at_y = lambda y: HEIGHT - BOTTOM - share(y) * (HEIGHT - BOTTOM - picture.top)
    picture.y_axis(y_label, ticks, at_y)
    picture.x_axis(x_label)
    last = -math.inf
    for x in x_ticks:
        picture.line(at_x(x), HEIGHT - BOTTOM, at_x(x), HEIGHT - BOTTOM + 6, "#333333", 1.5)
        if at_x(x) - last > 9 * len(plain(x)) + 6:
            picture.text(at_x(x), HEIGHT - BOTTOM + 23, plain(x))
            last = at_x(x)
    if mark:
        picture.line(LEFT, at_y(mark[0]), WIDTH - RIGHT, at_y(mark[0]), "#333333", 1.5, "6 5")
        picture.text(WIDTH - RIGHT - 4, at_y(mark[0]) - 7, mark[1], anchor="end")
    for k, (_, points) in reversed(list(enumerate(series))):  # the first, which is ours, lies on top
        path = " ".join(f"{at_x(x):.1f},{at_y(y):.1f}" for x, y in points)
        dash = f' stroke-dasharray="{DASHES[k]}"' if DASHES[k] else ""
        picture.parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[k]}" stroke-width="2.5"{dash}/>')
        for x, y in points:
            picture.marker(k, at_x(x), at_y(y))
    return picture.svg()


def bars(title, y_label, groups, series):
    """series: (name, one value or None a group). The value stands above its bar."""
    picture = Bars(title, [name for name, _ in series])
    top = max(value for _, values in series for value in values if value is not None)
    ticks = ticks_up_to(top * 1.06)
    at_y = lambda y: HEIGHT - BOTTOM - y / ticks[-1] * (HEIGHT - BOTTOM - picture.top)
    picture.y_axis(y_label, ticks, at_y)
    wide = (WIDTH - RIGHT - LEFT) / len(groups)
    bar = min(0.82 * wide / len(series), 110)
    for g, group in enumerate(groups):
        middle = LEFT + wide * (g + 0.5)
        picture.text(middle, HEIGHT - BOTTOM + 23, group)
        for k, (_, values) in enumerate(series):
            if values[g] is None:
                continue
            x, y = middle + bar * (k - len(series) / 2), at_y(values[g])
            picture.parts.append(f'<rect x="{x + 2:.1f}" y="{y:.1f}" width="{bar - 4:.1f}" height="{HEIGHT - BOTTOM - y:.1f}" fill="{COLOURS[k]}"/>')
            picture.text(x + bar / 2, y - 5, number(values[g]), size=13 if bar > 42 else 11)
    picture.x_axis("")
    return picture.svg()
