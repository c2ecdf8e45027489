"""Fetches pinned packages through their ordinary clients and unpacks them."""

import hashlib
import logging
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pin:
    """One package at one version, with the checksum of its archive."""

    client: str
    name: str
    version: str
    sha256: str

    @property
    def folder(self) -> str:
        """Name of the folder that the archive is unpacked into."""
        return self.name.rpartition("/")[2]

    @property
    def pattern(self) -> str:
        """Glob that matches the archive, whatever the client calls it."""
        if self.client == "npm":
            return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"
        return f"{self.name}*.deb" if self.client == "apt" else f"{self.name}-{self.version}-*.whl"


PINS = [Pin(**entry) for entry in tomllib.loads((Path(__file__).parent / "pins.toml").read_text())["pin"]]
COMMANDS = {
    "npm": lambda pin: ["npm", "pack", "--silent", f"{pin.name}@{pin.version}"],
    "apt": lambda pin: ["apt-get", "download", f"{pin.name}={pin.version}"],
    "pip": lambda pin: [sys.executable, "-m", "pip", "download", "--no-deps", f"{pin.name}=={pin.version}"],
}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def archive(pin: Pin, cache: Path) -> Path:
    """Return the package's archive, downloaded unless the cache has it.

    Raises:
        ValueError: If the archive is not the one that was pinned.
    """
    if not list(cache.glob(pin.pattern)):
        log.info("fetching %s %s", pin.name, pin.version)
        subprocess.run(COMMANDS[pin.client](pin), cwd=cache, check=True, capture_output=True)
    path = next(cache.glob(pin.pattern))
    if digest(path) != pin.sha256:
        raise ValueError(f"{path.name} is not the pinned archive: its SHA-256 is {digest(path)}")
    return path


def unpack(path: Path, pin: Pin, folder: Path) -> None:
    """Unpack an npm tarball, a wheel or a Debian package into `folder`."""
    if pin.client == "npm":
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    elif pin.client == "pip":
        with zipfile.ZipFile(path) as wheel:
            wheel.extractall(folder)
    else:
        subprocess.run(["dpkg-deb", "-x", str(path), str(folder)], check=True)


def fetch_all(cache: Path) -> dict[str, Path]:
    """Fetch and unpack every pinned package; return the folder of each."""
    cache.mkdir(parents=True, exist_ok=True)
    folders = {}
    for pin in PINS:
        path = archive(pin, cache)
        folder = cache / "unpacked" / f"{pin.folder}-{pin.sha256[:12]}"
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            unpack(path, pin, partial)
            partial.rename(folder)
        folders[pin.folder] = folder / "package" if pin.client == "npm" else folder
    return folders
