"""Print how large evlib is and how fast it starts: lines of code, files, the longest line, times of import.

Lines of code are lines that hold code: no docstring, no comment, no blank line. Run from the root of a checkout:

    python tools/size.py
    python tools/size.py --files  # every file too, the longest first
"""

import ast
import io
import statistics
import subprocess
import sys
import time
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Folders outside of the core: what people look at, and the studies beside the detector.
OUTER = ("inspection", "motion", "studies")
# What the time of an import is measured for, each in a fresh interpreter; the median of so many.
IMPORTS, REPEATS = ("evlib", "evlib.detection", "evlib.detection.fit"), 3
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}


def code_lines(text):
    """How many lines of a Python file hold code.

    >>> code_lines('"What it is."' + chr(10) + "# Why." + chr(10) + "x = 1" + chr(10))
    1
    """
    docstrings = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                docstrings.update(range(first.lineno, first.end_lineno + 1))
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - docstrings)


def import_seconds(module):
    """Median seconds that a fresh interpreter takes to import a module, and whether torch is imported with it."""
    timing = "start = time.perf_counter(); import {}; print(time.perf_counter() - start, 'torch' in sys.modules)"
    command = [sys.executable, "-c", "import sys, time; " + timing.format(module)]
    runs = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(REPEATS)]
    answers = [run.stdout.split() for run in runs]
    return statistics.median(float(seconds) for seconds, _ in answers), answers[0][1] == "True"


def main():
    package = ROOT / "evlib"
    files = {path: code_lines(path.read_text()) for path in sorted(package.rglob("*.py"))}
    folders = {}
    for path, count in files.items():
        parts = path.relative_to(package).parts
        name = parts[0] if len(parts) > 1 else "top"
        total, n = folders.get(name, (0, 0))
        folders[name] = total + count, n + 1
    for name, (count, n) in folders.items():
        print(f"{name:12} {count:6} lines of code in {n:3} files")
    everything = sum(files.values())
    outer = sum(folders[name][0] for name in OUTER)
    print(f"{'core':12} {everything - outer:6} (without {', '.join(OUTER)})")
    print(f"{'evlib':12} {everything:6} in {len(files):3} files")
    tests = [path for path in (ROOT / "tests").rglob("*.py")]
    print(f"{'tests':12} {sum(code_lines(path.read_text()) for path in tests):6} in {len(tests):3} files")
    longest = max(
        (len(line), str(path.relative_to(ROOT))) for path in [*files, *tests] for line in path.read_text().splitlines()
    )
    print(f"longest line {longest[0]} characters, in {longest[1]}")
    for module in IMPORTS:
        seconds, torch = import_seconds(module)
        print(f"import {module}: {seconds:.2f} s, {'with' if torch else 'without'} torch")
    if "--files" in sys.argv[1:]:
        for path, count in sorted(files.items(), key=lambda item: -item[1]):
            print(f"{count:6} {path.relative_to(ROOT)}")


if __name__ == "__main__":
    started = time.perf_counter()
    main()
    print(f"({time.perf_counter() - started:.1f} s)")
