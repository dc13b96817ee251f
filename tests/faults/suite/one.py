"""One fault in a process of its own: `python -m tests.faults.suite.one NUMBER FOLDER REPORT`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path

from tests.faults.suite.catalogue import BY_NUMBER
from tests.faults.suite.trial import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", choices=BY_NUMBER)
    parser.add_argument("folder", type=Path)
    parser.add_argument("report", type=Path)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then, too
    report = run(BY_NUMBER[args.number], args.folder, quick=args.quick)
    args.report.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
