"""`python -m benchmarks NAME [OPTIONS]` runs a benchmark; without a name it says which there are."""

import ast
import runpy
import sys
from pathlib import Path

NAMES = sorted(path.stem for path in Path(__file__).parent.glob("[!_]*.py"))


def main() -> int:
    if sys.argv[1:2] and sys.argv[1] in NAMES:
        name = sys.argv.pop(1)
        runpy.run_module(f"benchmarks.{name}", run_name="__main__", alter_sys=True)
        return 0
    asked = sys.argv[1:2] in ([], ["-h"], ["--help"])
    lines = [] if asked else [f"There is no benchmark {sys.argv[1]!r}."]
    lines += ["Usage: python3 course.py benchmark NAME [OPTIONS]; NAME is one of"]
    for name in NAMES:
        about = ast.get_docstring(ast.parse(Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")))
        lines.append(f"  {name:11} {about.splitlines()[0]}")
    print("\n".join(lines), file=sys.stdout if asked else sys.stderr)
    return 0 if asked else 2


if __name__ == "__main__":
    sys.exit(main())
