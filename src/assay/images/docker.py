"""The image by a Docker daemon, through the docker SDK; open it when a build fails, or gives another digest."""

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from assay.containers.daemon import connect
from assay.errors import AssayError, DataError
from assay.images.reproduce import Facts, reproduce
from assay.images.source import NO_WHEELS, WHEELHOUSE, Source

REPLY_WITHIN_S = 3600.0
"""Of a daemon that takes in gigabytes before it answers."""


class BuildError(AssayError):
    """The daemon could not build the image; its last words are in the message."""


@dataclass(frozen=True, kw_only=True)
class Built:
    """An image. size: of all its layers, in bytes; digest: of its configuration, and so of all it holds."""

    tag: str
    digest: str
    size: int
    seconds: float


def build(source: Source, use_cache: bool = True) -> Built:
    """Build `assay:TORCH`; two builds of one commit upon one base give the same digest.

    Raises:
        AssayError: no daemon, no base, or a step that failed.
    """
    from docker.errors import APIError

    begun = time.monotonic()
    if uncommitted := source.uncommitted():
        _say(f"the last commit is built; not in it: {', '.join(uncommitted[:5])}")
    with connect(None, REPLY_WITHIN_S) as daemon:
        try:
            digest = reproduce(daemon, _build(daemon, source, use_cache), _facts(daemon, source))
            size = daemon.inspect_image(digest)["Size"]
        except (APIError, OSError) as error:
            raise BuildError(f"docker: the build failed ({error}); look at the daemon's log and its disk") from None
    return Built(tag=f"assay:{source.torch}", digest=digest, size=size, seconds=time.monotonic() - begun)


def _build(daemon: Any, source: Source, use_cache: bool) -> str:
    """The image as the daemon makes it, without a name; returns its id."""
    with source.context() as context:
        events = daemon.build(
            path=str(context),
            buildargs=_arguments(source),
            network_mode="default" if source.wheelhouse is None else "none",
            nocache=not use_cache,
            rm=True,
            forcerm=True,
            decode=True,
        )
        return _last_image(events)


def _facts(daemon: Any, source: Source) -> Facts:
    base = daemon.inspect_image(source.base)
    return Facts(
        tag=f"assay:{source.torch}",
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(source.epoch)),
        base_layers=len(base["RootFS"]["Layers"]),
        labels={
            "org.opencontainers.image.base.name": source.base,
            "org.opencontainers.image.base.digest": base["Id"],
        },
    )


def show(built: Built) -> str:
    """One line."""
    return f"{built.tag}: {built.digest}, {built.size / 1e9:.2f} GB, after {built.seconds:.0f} s"


def _arguments(source: Source) -> dict[str, str]:
    return {
        "BASE_IMAGE": source.base,
        "TORCH": source.torch,
        "WHEELHOUSE": NO_WHEELS if source.wheelhouse is None else WHEELHOUSE,
        "COMMIT": source.commit,
        "LOCK": source.lock,
    }


def _last_image(events: Iterable[dict[str, Any]]) -> str:
    """Print what the daemon says; returns the id of what it made."""
    made = ""
    for event in events:
        if "error" in event:
            raise _explained(event["error"])
        print(event.get("stream", ""), end="", file=sys.stderr, flush=True)
        made = event.get("aux", {}).get("ID", made)
    if not made:
        raise BuildError("docker: the build ended without an image; look at the daemon's log")
    return made


def _explained(said: str) -> AssayError:
    if "manifest unknown" in said or "pull access denied" in said or "not found" in said:
        return DataError(f"BASE_IMAGE: the daemon cannot get it ({said}); give --base-image, or docker load one")
    if "dial tcp" in said or "lookup" in said or "Timeout" in said:
        return DataError(f"BASE_IMAGE: no registry is reached ({said}); docker load the base, and make wheelhouse")
    return BuildError(f"docker: the build failed ({said}); the lines above say why")


def _say(text: str) -> None:
    print(f"assay: {text}", file=sys.stderr, flush=True)
