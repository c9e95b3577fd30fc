"""The same image with nothing in it that changes from build to build; open it when two builds differ.

A daemon writes the time of the build, numbers of containers and its own version into an image's configuration, and the
times of changed folders into its layers. All that is replaced, and the digest then says what the image holds.
"""

import gzip
import hashlib
import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, cast

FILE_TIME = 315532800
"""1980-01-01, as scripts/image.sh gives it to files."""
TIMES = ("mtime", "atime", "ctime")
CHUNK = 2**20
GZIP = b"\x1f\x8b"
KEPT = ("Cmd", "Entrypoint", "Env", "ExposedPorts", "Labels", "StopSignal", "User", "Volumes", "WorkingDir")
"""Of a configuration: what a container is started with."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the new image is told. base_layers: how many layers are the base's, which stay as they are."""

    tag: str
    created: str
    base_layers: int
    labels: dict[str, str]


def reproduce(daemon: Any, image: str, facts: Facts) -> str:
    """Give the daemon the image anew, under its tag, and take the old one away; returns the new one's digest.

    That is of the image's configuration, or of its manifest where the daemon keeps images with containerd.

    Raises:
        OSError: no room for it here, or in the daemon.
    """
    with TemporaryDirectory(prefix="assay-image-") as folder:
        saved, anew = Path(folder) / "saved.tar", Path(folder) / "anew.tar"
        with saved.open("wb") as file:
            for chunk in daemon.get_image(image, chunk_size=CHUNK):
                file.write(chunk)
        rewrite(saved, anew, facts)
        saved.unlink()
        with anew.open("rb") as file:
            for event in daemon.load_image(file):
                if "error" in event:
                    raise OSError(event["error"])
    digest = str(daemon.inspect_image(facts.tag)["Id"])
    if digest != image:
        daemon.remove_image(image, noprune=True, force=True)  # what it was made from makes the next build quick
    return digest


def rewrite(saved: Path, anew: Path, facts: Facts) -> str:
    """Write what `docker save` gave as another such file; returns the digest of its configuration."""
    with tarfile.open(saved) as old, tarfile.open(anew, "w") as new:
        (manifest,) = json.load(_file(old, "manifest.json"))
        config = json.load(_file(old, manifest["Config"]))
        names, digests = [], []
        for number, name in enumerate(manifest["Layers"]):
            kept = number < facts.base_layers
            with _layer(old, name, kept) as file:
                digest = _digest(file)
                names.append(f"{digest}.tar")
                digests.append(f"sha256:{digest}")
                _add(new, names[-1], file)
        text = json.dumps(_config(config, digests, facts), sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(text).hexdigest()
        _add(new, f"{digest}.json", io.BytesIO(text))
        told = [{"Config": f"{digest}.json", "RepoTags": [facts.tag], "Layers": names}]
        _add(new, "manifest.json", io.BytesIO(json.dumps(told).encode()))
    return f"sha256:{digest}"


def normalise(layer: IO[bytes], anew: IO[bytes]) -> None:
    """The same files in the same order, with one time and no names of users."""
    with tarfile.open(fileobj=layer, mode="r|") as old, tarfile.open(fileobj=anew, mode="w|") as new:
        for member in old:
            member.mtime = FILE_TIME
            member.uname = member.gname = ""
            member.pax_headers = {name: value for name, value in member.pax_headers.items() if name not in TIMES}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)


def _config(config: dict[str, Any], digests: list[str], facts: Facts) -> dict[str, Any]:
    """The configuration without what is the build's own affair: times, containers, parents, versions, history."""
    started = {key: value for key, value in config["config"].items() if key in KEPT and value}
    started["Labels"] = {**started.get("Labels", {}), **facts.labels}
    line = {"created": facts.created, "created_by": "assay image build"}
    return {
        "architecture": config["architecture"],
        "os": config["os"],
        "created": facts.created,
        "config": started,
        "rootfs": {"type": "layers", "diff_ids": digests},
        "history": [line] * len(digests),
    }


@contextmanager
def _layer(archive: tarfile.TarFile, name: str, kept: bool) -> Iterator[IO[bytes]]:
    """A layer's tar, as it is or normalised, at its start; never compressed, as a configuration counts layers."""
    with TemporaryDirectory(prefix="assay-image-") as folder, (Path(folder) / "layer.tar").open("w+b") as file:
        with _plain(_file(archive, name)) as source:
            if kept:
                shutil.copyfileobj(source, file, CHUNK)
            else:
                normalise(source, file)
        file.seek(0)
        yield file


def _plain(layer: IO[bytes]) -> IO[bytes]:
    """Without gzip, which daemons that keep their images with containerd save layers in."""
    zipped = layer.read(len(GZIP)) == GZIP
    layer.seek(0)
    return cast(IO[bytes], gzip.open(layer)) if zipped else layer


def _file(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    found = archive.extractfile(name)
    if found is None:
        raise KeyError(name)
    return found


def _digest(file: IO[bytes]) -> str:
    """SHA-256 of all that follows; the file is then at its start again."""
    total = hashlib.sha256()
    while chunk := file.read(CHUNK):
        total.update(chunk)
    file.seek(0)
    return total.hexdigest()


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes]) -> None:
    file.seek(0, io.SEEK_END)
    entry = tarfile.TarInfo(name)
    entry.size = file.tell()
    file.seek(0)
    archive.addfile(entry, file)
