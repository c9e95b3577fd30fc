"""The verb `image`: parse and call; open it to change its options."""

import argparse
from pathlib import Path


def add_image(verb: argparse.ArgumentParser) -> None:
    """Build the image that runs use, of the last commit: for Docker, or as a SIF for Apptainer.

    The lock is installed upon a base image, from `.wheelhouse` without a network if that is there (make wheelhouse).
    A SIF is made from the Docker image of the same commit where there is one, else from the same base by the same
    script. Two builds of one commit upon one base give the same digest.

    examples:
      assay image build --docker
      assay image build --docker --torch cuda --base-image registry.example.org/python:3.11
      assay image build --apptainer
    """
    verb.add_argument("action", metavar="build", choices=["build"], help="what to do")
    kind = verb.add_mutually_exclusive_group(required=True)
    kind.add_argument("--docker", action="store_true", help="with the Docker daemon, which keeps it as assay:TORCH")
    kind.add_argument("--apptainer", action="store_true", help="as assay.sif, at the top of the repository")
    verb.add_argument("--torch", choices=["cpu", "cuda"], default="cpu", help="which torch; default cpu")
    verb.add_argument("--base-image", metavar="NAME", help="default: the Dockerfile's")
    verb.add_argument("--wheelhouse", metavar="DIR", type=Path, help="default: .wheelhouse, if it is there")
    verb.add_argument("--no-cache", action="store_true", help="use nothing of earlier builds; Docker only")
    verb.set_defaults(call=image)


def image(parsed: argparse.Namespace, rest: list[str]) -> int:
    """Build one; print what it is."""
    from assay.images.source import Source

    source = Source.of(Path.cwd(), parsed.torch, parsed.base_image, parsed.wheelhouse)
    if parsed.docker:
        from assay.images import docker

        print(docker.show(docker.build(source, use_cache=not parsed.no_cache)))
    else:
        from assay.images import sif

        print(sif.build(source))
    return 0
