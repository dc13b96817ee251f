"""Rewrite the imports of a Celery project: `python swap.py FOLDER ...` makes them `pgcelery`.

    from celery import shared_task         ->  from pgcelery import shared_task
    from celery.result import AsyncResult  ->  from pgcelery.result import AsyncResult
    import celery                          ->  import pgcelery as celery

Nothing but such lines changes: your own `celery.py`, settings and task names stay. An import that
cannot be rewritten alone (`import celery.result`) is printed, and the exit code is then 1.
"""

import re
import sys
from pathlib import Path

FROM = re.compile(r"^([ \t]*from[ \t]+)celery(?=[. \t])", re.MULTILINE)
PLAIN = re.compile(r"^([ \t]*import[ \t]+)celery(?=[ \t]*(#.*)?$)", re.MULTILINE)
ALIAS = re.compile(
    r"^([ \t]*import[ \t]+)celery(?=(\.\w+)*[ \t]+as[ \t]+\w+[ \t]*(#.*)?$)", re.MULTILINE
)
IMPORT = re.compile(r"^[ \t]*import[ \t]+([^#\n]+)", re.MULTILINE)


def swap(source):
    """The source with its imports rewritten, and the import lines left to a person."""
    source = FROM.sub(r"\1pgcelery", source)
    source = ALIAS.sub(r"\1pgcelery", source)
    source = PLAIN.sub(r"\1pgcelery as celery", source)
    left = [match[0] for match in IMPORT.finditer(source) if _names_celery(match[1])]
    return source, left


def _names_celery(imported):
    return any(name.split()[0].split(".")[0] == "celery" for name in imported.split(","))


def main(folders):
    """Rewrite every .py file below the folders; the exit code."""
    by_hand = 0
    for path in sorted(p for folder in folders for p in Path(folder).rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        swapped, left = swap(source)
        if swapped != source:
            path.write_text(swapped, encoding="utf-8")
            print(f"changed  {path}")
        for line in left:
            print(f"by hand  {path}: {line.strip()}")
        by_hand += len(left)
    return 1 if by_hand else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]) if sys.argv[1:] else __doc__)
