"""Prints constraints.txt: for each Python, the newest releases that setup.py allows, as pip resolves them today.

Usage: make constraints
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_PYTHONS = ("3.10", "3.11")


def resolved(version: str) -> dict[str, str]:
    """The release of every package that `pip install .[test]` would install with a Python, by package."""
    python = shutil.which(f"python{version}")
    # pyenv puts a name on the path for versions that it would not run.
    if python is None or subprocess.run([python, "--version"], check=False, capture_output=True).returncode:
        sys.exit(f"error: python{version} is not on the path; the constraints are for it too")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        pip = [f"{folder}/bin/pip", "--disable-pip-version-check", "--quiet"]
        subprocess.run([*pip, "install", "--upgrade", "pip"], check=True)  # older ones have no --report
        report = Path(folder, "report.json")
        subprocess.run([*pip, "install", "--dry-run", f"--report={report}", ".[test]"], cwd=_ROOT, check=True)
        packages = (entry["metadata"] for entry in json.loads(report.read_text())["install"])
        return {package["name"].lower().replace("_", "-"): package["version"] for package in packages}


def main() -> None:
    """Resolves for each Python and prints one line per release."""
    found = {version: resolved(version) for version in _PYTHONS}
    print("# What `make` installs with; `make constraints` renews it. Python 3.9 takes what pip finds.")
    for name in sorted(set().union(*found.values()) - {"cleanplate"}):
        for release in dict.fromkeys(packages[name] for packages in found.values() if name in packages):
            pythons = [version for version in _PYTHONS if found[version].get(name) == release]
            marker = " or ".join(f'python_version == "{version}"' for version in pythons)
            print(f"{name}=={release} ; {marker}")


if __name__ == "__main__":
    main()
