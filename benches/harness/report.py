"""Tables and a plot of what `run` has measured."""

import statistics

BAR, LEFT, WIDTH = 18, 190, 720


def numbers(rows, key):
    return [row[key] for row in rows if row.get(key) is not None]


def middle(rows, key):
    found = numbers(rows, key)
    return statistics.median(found) if found else None


def cell(rows, base, key, form):
    """The median, its spread, and its ratio to nginx in the same run."""
    value = middle(rows, key)
    if value is None:
        return "–"
    found = numbers(rows, key)
    spread = (max(found) - min(found)) / 2 / value * 100 if value else 0
    reference = middle(base, key)
    ratio = f" **{value / reference:.2f}**" if reference else ""
    return f"{form % value} ±{spread:.0f} %{ratio}"


def tables(results):
    lines = [f"{results['machine']}; {results['rounds']} rounds of {results['seconds']} s each; medians,",
             "half the distance from lowest to highest, and in bold the ratio to nginx in the same run.", ""]
    for name, contenders in results["scenarios"].items():
        lines += [f"### {name}", ""]
        base = contenders.get("nginx", [])
        if name == "idle":
            lines += ["| | memory per connection, KiB |", "| --- | --- |"]
            for contender, rows in contenders.items():
                value = middle(rows, "per_connection") / 1024
                ratio = value / (middle(base, "per_connection") / 1024)
                lines.append(f"| {contender} | {value:.2f} **{ratio:.2f}** |")
            lines.append("")
            continue
        lines += ["| | CPU µs per request | requests/s | p50 µs | p99 µs | p99.9 µs | memory MiB | busy |",
                  "| --- | --- | --- | --- | --- | --- | --- | --- |"]
        for contender, rows in contenders.items():
            memory = middle(rows, "memory")
            cells = [cell(rows, base, "cpu_us", "%.2f"), cell(rows, base, "rate", "%.0f")]
            cells += [cell(rows, base, key, "%.0f") for key in ("p50_us", "p99_us", "p999_us")]
            cells += ["–" if memory is None else f"{memory / 2**20:.0f}", f"{middle(rows, 'busy'):.2f}"]
            lines.append("| " + " | ".join([contender, *cells]) + " |")
        lines += ["", *policy(contenders)]
    return "\n".join(lines) + "\n"


def policy(contenders):
    """What judging costs: Headcount with a cookie that it does not look at, and with one it does."""
    wanted = ("headcount-pass", "headcount-1m")
    found = [middle(contenders[name], "cpu_us") for name in wanted if name in contenders]
    if len(found) < 2:
        return []
    return [f"The policy's share of a request: {found[1] - found[0]:.2f} µs.", ""]


def plot(results):
    """CPU time per request as a share of nginx's, one bar per contender and scenario."""
    bars = []
    for name, contenders in results["scenarios"].items():
        reference = middle(contenders.get("nginx", []), "cpu_us")
        if not reference:
            continue
        bars.append((name, None))
        for contender, rows in contenders.items():
            value = middle(rows, "cpu_us")
            if value is not None:
                bars.append((contender, value / reference))
    longest = max([ratio for _, ratio in bars if ratio], default=1)
    scale = (WIDTH - LEFT - 70) / longest
    height = (len(bars) + 2) * BAR
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
             'font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
             '<text x="8" y="14" font-weight="bold">CPU time per request, nginx = 1</text>']
    for at, (label, ratio) in enumerate(bars):
        top = (at + 1.5) * BAR
        if ratio is None:
            parts.append(f'<text x="8" y="{top + 12}" font-weight="bold">{label}</text>')
            continue
        ours = label.startswith("headcount")
        colour = "#2563eb" if ours else "#9ca3af"
        parts.append(f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{label}</text>')
        parts.append(f'<rect x="{LEFT}" y="{top + 2}" width="{ratio * scale:.1f}" height="{BAR - 5}" fill="{colour}"/>')
        parts.append(f'<text x="{LEFT + ratio * scale + 5:.1f}" y="{top + 12}">{ratio:.2f}</text>')
    line = LEFT + scale
    parts.append(f'<line x1="{line:.1f}" y1="{BAR}" x2="{line:.1f}" y2="{height}" stroke="#dc2626" stroke-dasharray="3 3"/>')
    return "\n".join([*parts, "</svg>"]) + "\n"
