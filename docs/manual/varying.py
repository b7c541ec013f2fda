"""What differs between two runs of the same transcript: keys, ports, rates, times, progress."""

import re

CODE = re.compile(r"\b[0-9]+-[a-z]+-[a-z]+\b")
SIZE = r"[0-9]+(?:\.[0-9]+)? (?:[kMGT]?B)"
PROMPT = "Enter the filename you want to download (or 'q' to quit):"
# How many of these lines are printed depends on the machine.
PROGRESS = re.compile(rf"^.*: [0-9]+% of {SIZE}  \S")
# Lines of these come from several tasks of the program, in any order.
UNORDERED = re.compile(r"qshare (get|node|share|add)\b|\^C")
REPLACED = [
    # Node and tracker IDs, and their first ten characters in parentheses or in front of an address.
    (re.compile(r"\b[a-z2-7]{52}\b"), "NODEID"),
    (
        re.compile(r"(?<=\()[a-z2-7]{10}(?=[),])|(?<=  )[a-z2-7]{10}(?= at )|(?<=^node )[a-z2-7]{10}\b"),
        "NODE",
    ),
    (CODE, "N-CODE-WORDS"),
    # The key of a share, tokens of the web page and stream addresses.
    (re.compile(r"(?<=,K=)[a-z2-7]+"), "KEY"),
    (re.compile(r"(?<=#token=)\S+"), "TOKEN"),
    (re.compile(r"(?<=/[df]/)[A-Za-z0-9_-]+"), "CAPABILITY"),
    # Ports that the system chose.
    (re.compile(r"(?<=:)(?!65000\b|65001\b|64500\b)[0-9]{5}\b"), "PORT"),
    # How far, how fast.
    (re.compile(rf"{SIZE}/s"), "RATE"),
    (re.compile(r"\b[0-9]+:[0-9]{2}(:[0-9]{2})?(?= \(| left)"), "TIME"),
    (re.compile(rf"{SIZE}(?= (sent|received|resumed))"), "BYTES"),
    # A download that was interrupted very early had nothing to keep.
    (re.compile(r", BYTES resumed from an earlier run"), ""),
    (re.compile(r"\b[0-9]+ (peer|node)s? connected"), r"N \1 connected"),
    # A download in a table, `NAME  SIZE  ----  3 %  RATE  LEFT  FROM  STATE`, which may go on.
    (re.compile(rf"^(\S+) +({SIZE}) .*[0-9]+ % .*\b(?:paused)$"), r"\1 \2 paused"),
    (re.compile(rf"^(\S+) +({SIZE}) .*[0-9]+ % .*$"), r"\1 \2 …"),
    (re.compile(r"limited by .*"), "limited by …"),
    (re.compile(r'"expires_at": ?[0-9]+'), '"expires_at":N'),
    (re.compile(r'(?<="capability": ")[0-9a-f]+'), "CAPABILITY"),
    # Widths of columns follow their contents.
    (re.compile(r"(?<=\S) {2,}"), "  "),
    (re.compile(r"^( *)[0-9]+ of ([0-9]+) chunks, .*"), r"\1N of \2 chunks"),
    (re.compile(r"^( *NODE(?:ID)? at [^ ]+): .*"), r"\1: …"),
    (re.compile(r'"(seconds|[a-z_]*per_second)":[0-9.]+'), r'"\1":N'),
]


def normal(command, output):
    """Returns the lines of the output of a command, without what varies."""
    lines = []
    for line in output.replace(f"{PROMPT} ", "\n").replace(PROMPT, "\n").split("\n"):
        line = line.rstrip()
        if not line or PROGRESS.match(line):
            continue
        for pattern, replacement in REPLACED:
            line = pattern.sub(replacement, line)
        lines.append(line)
    return sorted(lines) if UNORDERED.search(command) else lines


def same(command, output, expected):
    """Returns whether two outputs of a command differ only in what varies."""
    return normal(command, output) == normal(command, expected)
