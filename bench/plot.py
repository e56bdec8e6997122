"""Line plots as SVG, written by hand: no library is needed to read or to make them."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 70, 190, 40, 56
COLOURS = ["#0b6e99", "#d9730d", "#69a3bd", "#e6b48a", "#5c8a3a", "#8a5c9e"]


class Axis:
    """From numbers to pixels, linear or logarithmic."""

    def __init__(self, values, start, end, logarithmic):
        self.logarithmic, self.start, self.end = logarithmic, start, end
        low, high = min(values), max(values)
        if logarithmic:
            self.ticks = [2**n for n in range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)]
            low, high = self.ticks[0], max(self.ticks[-1], self.ticks[0] * 2)
        else:
            step = nice(max(high, 1e-9) / 5)
            count = math.ceil(high / step - 1e-9) or 1
            self.ticks = [step * n for n in range(count + 1)]
            low, high = 0, self.ticks[-1]
        self.low, self.high = self.scaled(low), self.scaled(high)

    def scaled(self, value):
        return math.log2(value) if self.logarithmic else value

    def at(self, value):
        share = (self.scaled(value) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)


def nice(step):
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10 ** math.floor(math.log10(step))
    return next(power * n for n in (1, 2, 5, 10) if power * n >= step * 0.999)


def number(value):
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.3g}"


def lines(title, x_label, y_label, curves, logarithmic=False):
    """`curves`: name and list of (x, y). Both axes start at zero, or both are logarithmic."""
    points = [point for _, curve in curves for point in curve]
    x = Axis([at for at, _ in points], LEFT, WIDTH - RIGHT, logarithmic)
    y = Axis([value for _, value in points], HEIGHT - BOTTOM, TOP, logarithmic)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(LEFT, 22, title, 'font-size="15"'),
    ]
    for tick in x.ticks:
        at = x.at(tick)
        out.append(f'<line x1="{at:.1f}" y1="{TOP}" x2="{at:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        out.append(text(at, HEIGHT - BOTTOM + 18, number(tick), 'text-anchor="middle"'))
    for tick in y.ticks:
        at = y.at(tick)
        out.append(f'<line x1="{LEFT}" y1="{at:.1f}" x2="{WIDTH - RIGHT}" y2="{at:.1f}" stroke="#e4e4e4"/>')
        out.append(text(LEFT - 8, at + 4, number(tick), 'text-anchor="end"'))
    out.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_label, 'text-anchor="middle"'))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    out.append(text(18, middle, y_label, f'text-anchor="middle" transform="rotate(-90 18 {middle:.0f})"'))
    for at, (name, curve) in enumerate(curves):
        out += series(name, curve, x, y, COLOURS[at % len(COLOURS)], TOP + 10 + 20 * at)
    return "\n".join([*out, "</svg>", ""])


def series(name, curve, x, y, colour, legend):
    places = [(x.at(at), y.at(value)) for at, value in curve]
    path = " ".join(f"{at:.1f},{value:.1f}" for at, value in places)
    left = WIDTH - RIGHT + 14
    yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for at, value in places:
        yield f'<circle cx="{at:.1f}" cy="{value:.1f}" r="3" fill="{colour}"/>'
    yield f'<rect x="{left}" y="{legend - 8}" width="14" height="4" fill="{colour}"/>'
    yield text(left + 20, legend, name)


def text(x, y, content, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {more}>{escape(content)}</text>'
