"""Run the fast tests on each Python, with the lowest and the newest dependencies: python tests/matrix.py [PYTEST ...].

Each Python from 3.11 on that is found as ``pythonX.Y``, or named in ``$PYTHONS``, gets an environment in
``.venv-matrix``, of several gigabytes. Only the lowest versions that have files for that Python can be installed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / ".venv-matrix"
#: The newest minor version of Python 3 to look for.
NEWEST = 15
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}


def pythons():
    """Return the interpreters to try."""
    if given := os.environ.get("PYTHONS"):
        return given.split()
    return [found for minor in range(11, NEWEST + 1) if (found := shutil.which(f"python3.{minor}"))]


def outcome(python, dependencies, arguments):
    """Install into an environment and test there; return what happened, in words."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.split()[1]
    folder = PLACE / f"{version}-{dependencies}"
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    if not programs.is_dir():
        subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [programs / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = ["-e", f"{ROOT}[test]"]
    if dependencies == "lowest":
        (folder / "requirements.txt").write_text(
            subprocess.run([python, ROOT / "tests" / "lowest.py"], capture_output=True, text=True, check=True).stdout
        )
        wanted = ["-r", str(folder / "requirements.txt"), "-e", str(ROOT)]
    if subprocess.run([*pip, *wanted], check=False).returncode:
        return version, "cannot be installed"
    tests = [programs / "python", "-m", "pytest", "-n", "auto", "--dist", "worksteal", "-m", "not slow", *arguments]
    failed = subprocess.run(tests, cwd=ROOT, env=ENVIRONMENT, check=False).returncode
    return version, "failed" if failed else "passed"


def main():
    """Try all, and print a line for each; exit with 1 if one failed."""
    rows = []
    for python in pythons():
        for dependencies in ("lowest", "newest"):
            version, found = outcome(python, dependencies, sys.argv[1:])
            rows.append((version, dependencies, found))
    for row in rows:
        print("Python {}, {} dependencies: {}".format(*row))
    return int(not rows or any(found == "failed" for *_, found in rows))


if __name__ == "__main__":
    sys.exit(main())
