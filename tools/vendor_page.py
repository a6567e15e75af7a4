"""Packages of npm that the dashboard's page and its tests need, as requirements/page.txt pins them.

    python tools/vendor_page.py               writes the chart library into the page
    python tools/vendor_page.py --check       says whether what is there is what npm gives
    python tools/vendor_page.py --axe FOLDER  puts the accessibility checker there, for the tests

The tarball must hash to what is pinned, so that what is vendored can be made again by anybody. Nothing is built: files
are taken as they are published.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "requirements" / "page.txt"
VENDOR = ROOT / "src" / "tierwise" / "dashboard" / "page" / "vendor"
CHARTS: Mapping[str, str] = {  # in the tarball: in the page
    "package/dist/uPlot.esm.js": "uplot.js",
    "package/dist/uPlot.min.css": "uplot.css",
    "package/LICENSE": "uplot.LICENSE",
}
AXE: Mapping[str, str] = {"package/axe.min.js": "axe.min.js"}


@dataclass(frozen=True, slots=True)
class Pin:
    """A package, its version, and what its tarball hashes to."""

    name: str
    version: str
    integrity: str


def pinned(name: str) -> Pin:
    """What is pinned of a package."""
    for line in PINS.read_text(encoding="utf-8").splitlines():
        package, _, integrity = line.partition(" ")
        found, at, version = package.rpartition("@")
        if at and found == name:
            return Pin(name, version, integrity)
    raise SystemExit(f"{name} is not pinned in {PINS.relative_to(ROOT)}: add a line NAME@VERSION INTEGRITY")


def tarball(pin: Pin) -> bytes:
    """What npm gives, if it is what is pinned."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{pin.name}@{pin.version}"]
        try:
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  names of ours
        except FileNotFoundError:
            raise SystemExit("npm is missing: install Node.js") from None
        except subprocess.CalledProcessError:
            raise SystemExit(f"npm has no {pin.name} {pin.version}: see what it printed") from None
        (path,) = Path(folder).glob("*.tgz")
        content = path.read_bytes()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != pin.integrity:
        raise SystemExit(
            f"{pin.name} {pin.version} hashes to {found}, not to what {PINS.relative_to(ROOT)} says: "
            "do not use it before it is known why"
        )
    return content


def files_of(content: bytes, wanted: Mapping[str, str]) -> dict[str, bytes]:
    """The files that are wanted, by the names that they get."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for name, ours in wanted.items():
            member = archive.extractfile(name)
            if member is None:
                raise SystemExit(f"the tarball has no file {name}")
            found[ours] = member.read()
    return found


def main(arguments: list[str]) -> int:
    """Write, or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--axe", type=Path, metavar="FOLDER")
    asked = parser.parse_args(arguments)
    folder, package, wanted = (asked.axe, "axe-core", AXE) if asked.axe else (VENDOR, "uplot", CHARTS)
    files = files_of(tarball(pinned(package)), wanted)
    if asked.check:
        different = [
            name
            for name, content in files.items()
            if not (folder / name).exists() or (folder / name).read_bytes() != content
        ]
        for name in different:
            print(f"{folder / name} is not what npm gives", file=sys.stderr)
        return 1 if different else 0
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
