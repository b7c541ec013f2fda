"""Renders captured terminal screens as one SVG, still or animated. Standard library only."""

import re
import unicodedata
from html import escape

CELL_WIDTH, LINE_HEIGHT, FONT_SIZE = 8.4, 19, 14
PADDING, TITLE_HEIGHT = 14, 30
BACKGROUND, FOREGROUND, TITLE = "#16181d", "#d7dae0", "#8b93a1"
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
PALETTE = [
    "#2b303b", "#e06c75", "#98c379", "#e5c07b", "#61afef", "#c678dd", "#56b6c2", "#d7dae0",
    "#5c6370", "#f08a92", "#b1d89a", "#f0d399", "#82c3f7", "#d89beb", "#7fd0da", "#ffffff",
]
SGR = re.compile(r"\x1b\[([0-9;:]*)m")
OTHER_ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[()][A-Z0-9]|[\x0e\x0f]")


def color(index):
    """The colour of an index into the palette of 256."""
    if index < 16:
        return PALETTE[index]
    if index < 232:
        index -= 16
        parts = (index // 36, index // 6 % 6, index % 6)
        return "#%02x%02x%02x" % tuple(part * 40 + 55 if part else 0 for part in parts)
    return "#%02x%02x%02x" % ((8 + (index - 232) * 10,) * 3)


class Style:
    """The graphic rendition in force while a line is read."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.fg = self.bg = None
        self.bold = self.dim = self.italic = self.underline = self.inverse = False

    def apply(self, codes):
        codes = [int(code or 0) for code in re.split("[;:]", codes)]
        while codes:
            code = codes.pop(0)
            if code == 0:
                self.reset()
            elif code in (1, 2, 3, 4, 7):
                name = {1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse"}[code]
                setattr(self, name, True)
            elif code == 22:
                self.bold = self.dim = False
            elif code in (23, 24, 27):
                setattr(self, {23: "italic", 24: "underline", 27: "inverse"}[code], False)
            elif code in (38, 48) and codes:
                if codes.pop(0) == 5:
                    value = color(codes.pop(0))
                else:
                    value = "#%02x%02x%02x" % tuple(codes[:3])
                    del codes[:3]
                setattr(self, "fg" if code == 38 else "bg", value)
            elif code in (39, 49):
                setattr(self, "fg" if code == 39 else "bg", None)
            elif 30 <= code <= 37 or 90 <= code <= 97:
                self.fg = PALETTE[code - 30 if code < 90 else code - 82]
            elif 40 <= code <= 47 or 100 <= code <= 107:
                self.bg = PALETTE[code - 40 if code < 100 else code - 92]

    def attributes(self):
        fg, bg = self.fg or FOREGROUND, self.bg
        if self.inverse:
            fg, bg = bg or BACKGROUND, fg
        text = [f'fill="{fg}"'] if fg != FOREGROUND else []
        text += ['font-weight="bold"'] if self.bold else []
        text += ['font-style="italic"'] if self.italic else []
        text += ['opacity="0.6"'] if self.dim else []
        text += ['text-decoration="underline"'] if self.underline else []
        return " ".join(text), bg


def cells(text):
    """How many columns a text takes."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(bool(unicodedata.combining(char)) for char in text)


def line_elements(line, style, y):
    """The SVG elements of one line; `style` goes on from the line above."""
    elements, column = [], 0
    line = OTHER_ESCAPES.sub("", line)
    parts = SGR.split(line)
    for number, part in enumerate(parts):
        if number % 2:
            style.apply(part)
            continue
        if not part:
            continue
        width = cells(part)
        attributes, bg = style.attributes()
        if bg:
            x = PADDING + column * CELL_WIDTH
            elements.append(
                f'<rect x="{x:.1f}" y="{y - FONT_SIZE:.1f}" width="{width * CELL_WIDTH:.1f}" '
                f'height="{LINE_HEIGHT}" fill="{bg}"/>'
            )
        # Words that two or more spaces divide stand by themselves: renderers merge spaces.
        for words in re.finditer(r"\S+(?: \S+)*", part):
            x = PADDING + (column + cells(part[: words.start()])) * CELL_WIDTH
            length = cells(words[0]) * CELL_WIDTH
            elements.append(
                f'<text x="{x:.1f}" y="{y:.1f}" textLength="{length:.1f}" '
                f'lengthAdjust="spacingAndGlyphs" {attributes}>{escape(words[0])}</text>'
            )
        column += width
    return "".join(elements)


def screen_elements(screen):
    style, y = Style(), TITLE_HEIGHT + PADDING + FONT_SIZE
    lines = []
    for line in screen.split("\n"):
        lines.append(line_elements(line, style, y))
        y += LINE_HEIGHT
    return "\n".join(line for line in lines if line)


def render(frames, columns, rows, title):
    """An SVG of `frames`, a list of (seconds shown, screen); one frame makes a still picture.

    Where animations are not played, or not wanted, the last frame is shown.
    """
    width = round(columns * CELL_WIDTH + 2 * PADDING)
    height = round(rows * LINE_HEIGHT + 2 * PADDING + TITLE_HEIGHT)
    total = sum(seconds for seconds, _ in frames)
    css, groups, begin = [], [], 0.0
    for number, (seconds, screen) in enumerate(frames):
        last = number == len(frames) - 1
        if len(frames) > 1:
            start, end = 100 * begin / total, 100 * (begin + seconds) / total
            before = f"0%{{opacity:0}}" if number else ""
            after = "" if last else f"{end:.3f}%{{opacity:0}}"
            css.append(
                f"@keyframes f{number}{{{before}{start:.3f}%{{opacity:1}}{after}"
                f"100%{{opacity:{int(last)}}}}}"
                f"#f{number}{{opacity:{int(last)};animation:f{number} {total:.2f}s step-end infinite}}"
            )
        groups.append(f'<g id="f{number}">\n{screen_elements(screen)}\n</g>')
        begin += seconds
    if css:
        css.append("@media (prefers-reduced-motion:reduce){g{animation:none!important}}")
    style = f"<style>{''.join(css)}</style>"
    dots = "".join(
        f'<circle cx="{18 + 18 * n}" cy="{TITLE_HEIGHT / 2 + 2:.0f}" r="5.5" fill="{fill}"/>'
        for n, fill in enumerate(("#e06c75", "#e5c07b", "#98c379"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" role="img" aria-label="{escape(title)}">\n{style}\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>\n{dots}\n'
        f'<text x="{width / 2:.0f}" y="20" fill="{TITLE}" text-anchor="middle" '
        f'font-family="{FONTS}" font-size="12">{escape(title)}</text>\n'
        f'<g font-family="{FONTS}" font-size="{FONT_SIZE}" fill="{FOREGROUND}">\n'
        + "\n".join(groups)
        + "\n</g>\n</svg>\n"
    )
