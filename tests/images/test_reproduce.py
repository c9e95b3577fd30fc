"""An image's digest says what it holds, not when and where it was built."""

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from assay.images.reproduce import FILE_TIME, Facts, reproduce, rewrite

FACTS = Facts(tag="assay:cpu", created="2026-01-02T03:04:05Z", base_layers=1, labels={"base": "sha256:b"})


def layer(files: dict[str, str], time: int) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.mtime, entry.uname, entry.size = time, f"user{time}", len(text)
            entry.pax_headers = {"atime": f"{time}.5", "SCHILY.xattr.user.kept": "yes"}
            archive.addfile(entry, io.BytesIO(text.encode()))
        link = tarfile.TarInfo("link")
        link.type, link.linkname, link.mtime = tarfile.SYMTYPE, "a", time
        archive.addfile(link)
    return made.getvalue()


def saved(path: Path, time: int, text: str = "content", zipped: bool = False) -> Path:
    """What `docker save` gives: a base, a layer of ours, and a configuration full of the build's own affairs."""
    layers = {"base/layer.tar": layer({"base": "b"}, 7), "ours/layer.tar": layer({"a": text}, time)}
    layers = {name: gzip.compress(content) for name, content in layers.items()} if zipped else layers
    started = {"Env": ["A=1"], "User": "65534", "Labels": {"x": "y"}, "Hostname": f"h{time}", "Image": f"i{time}"}
    config = {
        "architecture": "amd64",
        "os": "linux",
        "created": f"{time}",
        "container": f"c{time}",
        "docker_version": "20",
        "config": started,
    }
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": list(layers)}]
    files = {**layers, "c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def anew(tmp_path):
    """Rewrites an image; returns its digest and what the new file holds."""

    def rewritten(time: int, text: str = "content", zipped: bool = False) -> tuple[str, dict[str, bytes]]:
        target = tmp_path / f"{time}{text}.anew"
        digest = rewrite(saved(tmp_path / f"{time}{text}.saved", time, text, zipped), target, FACTS)
        with tarfile.open(target) as archive:
            return digest, {name: archive.extractfile(name).read() for name in archive.getnames()}

    return rewritten


def test_two_builds_of_the_same_have_one_digest(anew):
    assert anew(1000)[0] == anew(2000)[0]


def test_another_content_has_another_digest(anew):
    assert anew(1000)[0] != anew(1000, "changed")[0]


def test_a_daemon_that_compresses_layers_gives_the_same_image(anew):
    """One that keeps images with containerd does."""
    assert anew(1000, zipped=True) == anew(1000)


class Daemon:
    """As much of a daemon as an image passes through; `calls_it` is the id that it gives to what it has loaded."""

    def __init__(self, image: Path, calls_it: str = "sha256:manifest", error: str | None = None) -> None:
        self.image, self.calls_it, self.error = image, calls_it, error
        self.removed: list[str] = []

    def get_image(self, image, chunk_size):
        return [self.image.read_bytes()]

    def load_image(self, file):
        return [{"error": self.error}] if self.error else [{"stream": "Loaded image"}]

    def inspect_image(self, tag):
        return {"Id": self.calls_it} if tag == FACTS.tag else {}

    def remove_image(self, image, noprune, force):
        self.removed.append(image)


def test_an_image_is_known_by_what_the_daemon_calls_it(tmp_path):
    daemon = Daemon(saved(tmp_path / "saved.tar", 1000))
    assert reproduce(daemon, "sha256:built", FACTS) == "sha256:manifest"
    assert daemon.removed == ["sha256:built"]


def test_a_daemon_that_cannot_take_the_image_is_believed(tmp_path):
    daemon = Daemon(saved(tmp_path / "saved.tar", 1000), error="no space left on device")
    with pytest.raises(OSError, match="no space left"):
        reproduce(daemon, "sha256:built", FACTS)
    assert daemon.removed == []


def test_the_digest_covers_the_configuration_and_through_it_every_layer(anew):
    digest, files = anew(1000)
    (manifest,) = json.loads(files["manifest.json"])
    config = json.loads(files[manifest["Config"]])
    assert hashlib.sha256(files[manifest["Config"]]).hexdigest() == digest.removeprefix("sha256:")
    found = [f"sha256:{hashlib.sha256(files[name]).hexdigest()}" for name in manifest["Layers"]]
    assert config["rootfs"] == {"type": "layers", "diff_ids": found}
    assert manifest["RepoTags"] == ["assay:cpu"]


def test_what_a_container_is_started_with_stays_and_the_builds_own_affairs_go(anew):
    config = json.loads(next(text for name, text in anew(1000)[1].items() if name[-5:] == ".json" and len(name) > 60))
    assert config["config"] == {"Env": ["A=1"], "User": "65534", "Labels": {"x": "y", "base": "sha256:b"}}
    assert config["created"] == "2026-01-02T03:04:05Z"
    assert config.keys() == {"architecture", "os", "created", "config", "rootfs", "history"}


def test_the_base_is_left_as_it_is_and_our_files_get_one_time(anew):
    _, files = anew(1000)
    (manifest,) = json.loads(files["manifest.json"])
    assert files[manifest["Layers"][0]] == layer({"base": "b"}, 7)
    with tarfile.open(fileobj=io.BytesIO(files[manifest["Layers"][1]])) as ours:
        assert {(each.mtime, each.uname) for each in ours} == {(FILE_TIME, "")}
        assert ours.getmember("a").pax_headers["SCHILY.xattr.user.kept"] == "yes"
        assert ours.getmember("link").linkname == "a"
        assert ours.extractfile("a").read() == b"content"
