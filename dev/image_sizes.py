#!/usr/bin/env python3
"""image_sizes.py - teacher beside student for larger and larger images, as a picture: images per second, activations, top-1.

    python3 dev/image_sizes.py docs/images/image-sizes.svg bench/results/image-sizes-*.txt [PIXELS=EVAL.json ...]

A .txt is what `cab bench forward` printed for one device, teacher first; of a size that stands there several times the fastest counts.
An EVAL.json is what `cab eval STUDENT --teacher TEACHER --image-size PIXELS --json` printed.
"""
import json
import math
import re
import sys

WIDTH, HEIGHT, LEFT, TOP, GAP = 270, 210, 70, 70, 70
COLOURS = {"teacher": "#3b7dd8", "student": "#2f9e62"}
UNITS = {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 1024}


def read_forward(path):
    """The device's name and {role: {pixels: (images/s, MiB)}}."""
    models, title, name = {}, None, None
    for line in open(path):
        head = re.match(r"(\S+) \(([\d.]+) M\), batch (\d+), (\w+), (\S+)", line)
        row = re.match(r" +(\d+) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) (\w+)$", line)
        if head:
            name = head[1]
            title = f"{head[5].upper()}, batch {head[3]}, {head[4]}"
        elif row and name:
            rows = models.setdefault(name, {})
            found = (1e3 * int(title.split()[2].rstrip(",")) / float(row[3]), float(row[5]) * UNITS[row[6]])
            rows[int(row[1])] = max(found, rows.get(int(row[1]), found))
    if len(models) != 2:
        sys.exit(f"{path}: expected the output of cab bench forward of two models, found {len(models)}")
    return title, dict(zip(("teacher", "student"), models.values()))


def read_evaluations(arguments):
    points = {"teacher": {}, "student": {}}
    for pixels, path in arguments:
        result = json.load(open(path))
        points["student"][int(pixels)] = 100 * result["top1"]
        points["teacher"][int(pixels)] = 100 * result["teacher_top1"]
    return points


def ticks(low, high, log):
    if log:
        return [10.0**k for k in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    step = 10 if high - low > 25 else 5
    return [float(v) for v in range(int(low // step) * step, int(-(-high // step)) * step + 1, step)]


def panel(index, title, lines, log):
    """One chart: {role: {pixels: value}}."""
    x0 = LEFT + index * (WIDTH + GAP)
    pixels = sorted({p for line in lines.values() for p in line})
    values = [v for line in lines.values() for v in line.values()]
    marks = ticks(min(values), max(values), log)
    scale = math.log10 if log else float
    low, high = scale(marks[0]), scale(marks[-1])
    x = lambda p: x0 + (math.log2(p / pixels[0]) / max(1e-9, math.log2(pixels[-1] / pixels[0]))) * WIDTH
    y = lambda v: TOP + HEIGHT - (scale(v) - low) / (high - low) * HEIGHT
    out = [f'<text x="{x0}" y="{TOP - 16}" font-weight="700" fill="#1d2127">{title}</text>']
    for mark in marks:
        out.append(f'<path d="M{x0} {y(mark):.1f}h{WIDTH}" stroke="#e3e7ec"/>'
                   f'<text x="{x0 - 8}" y="{y(mark) + 4:.1f}" text-anchor="end" fill="#5b6470">{mark:g}</text>')
    for p in pixels:
        out.append(f'<text x="{x(p):.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle" fill="#5b6470">{p}</text>')
    for role, line in lines.items():
        points = sorted(line.items())
        path = "L".join(f"{x(p):.1f} {y(v):.1f}" for p, v in points)
        out.append(f'<path d="M{path}" fill="none" stroke="{COLOURS[role]}" stroke-width="2.5"/>')
        out += [f'<circle cx="{x(p):.1f}" cy="{y(v):.1f}" r="4" fill="{COLOURS[role]}"><title>{role}, {p} pixels: {v:.4g}</title>'
                "</circle>" for p, v in points]
    return "\n".join(out)


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    evaluations = [a.split("=", 1) for a in sys.argv[2:] if "=" in a]
    charts = []
    for path in (a for a in sys.argv[2:] if "=" not in a):
        title, models = read_forward(path)
        for k, unit in enumerate(("images/s", "activations, MiB")):
            lines = {role: {p: row[k] for p, row in rows.items()} for role, rows in models.items()}
            charts.append((f"{unit} ({title})", lines, True))
    if evaluations:
        charts.append(("top-1, %", read_evaluations(evaluations), False))
    width, height = LEFT + len(charts) * (WIDTH + GAP) - GAP + 30, TOP + HEIGHT + 60
    body = "\n".join(panel(i, *chart) for i, chart in enumerate(charts))
    legend = "".join(f'<circle cx="{LEFT + 130 * i}" cy="24" r="5" fill="{COLOURS[role]}"/>'
                     f'<text x="{LEFT + 12 + 130 * i}" y="29" fill="#1d2127">{role}</text>'
                     for i, role in enumerate(COLOURS))
    with open(sys.argv[1], "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
                f'aria-label="Teacher and student for larger images: {"; ".join(c[0] for c in charts)}" '
                f'font-family="system-ui,-apple-system,\'Segoe UI\',Roboto,Helvetica,Arial,sans-serif" font-size="14">\n'
                f'<rect x="1" y="1" width="{width - 2}" height="{height - 2}" rx="14" fill="#ffffff" stroke="#cfd4db"/>\n'
                f'{legend}\n<text x="{LEFT}" y="{height - 16}" fill="#5b6470">pixels of a side</text>\n{body}\n</svg>\n')


if __name__ == "__main__":
    main()
