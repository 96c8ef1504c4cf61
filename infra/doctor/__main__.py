"""`make doctor`. It also works before set-up, with the standard library only and on a Python too old for the rest."""

from __future__ import annotations

import argparse
import sys

from infra.doctor.diagnose import doctor

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m infra.doctor", description="What is missing, in use or unsafe on this machine."
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 for warnings too")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    try:
        sys.exit(doctor(options.strict, options.json))
    except KeyboardInterrupt:
        sys.exit(130)
