"""Checkpoints: one safetensors file each, written atomically, with a checksum; open it when resuming fails.

A file holds named tensors and one JSON document. Nothing is unpickled. The two newest files are kept, so that a
damaged one costs one interval and not the run.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as format_tensors
from torch import Tensor

from assay import progress
from assay.errors import CheckpointError
from assay.files import NO_LOCKS, write_bytes

CHECKPOINTS = "ASSAY_CHECKPOINTS"
"""Environment variable naming the root of the checkpoint folders; `.assay/checkpoints` if unset."""
KEPT = 2
DOCUMENT = "document"
"""The tensor of a checkpoint that holds its document, as bytes: with the rows logged that may be more than a header of
safetensors can be, which is 100 MB."""
HEADER = "assay"
"""The key of the file's metadata that holds document and checksum."""
LOCK = "lock"
COMPLETE = "complete"
"""Marks the folder of a run whose model has been written."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
    """Write tensors and a JSON document to one file: temporary name, fsync, rename.

    Raises:
        DataError: the disk is full or not writable; an older file of that name is left as it was.
    """
    flat = dict(_apart(tensors))
    content = json.dumps(document, sort_keys=True)
    header = json.dumps({"document": content, "sha256": _digest(flat, content)})
    write_bytes(path, format_tensors(flat, {HEADER: header}))  # one key: several come in any order, and so do the bytes


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors (on the CPU) and document of a file, after checking its checksum.

    Raises:
        CheckpointError: there is no such file, it is truncated, or its checksum does not match.
    """
    try:
        raw = path.read_bytes()
        metadata = _metadata(raw)
        tensors = parse_tensors(raw)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; train first, or give the path of a model") from None
    except (OSError, SafetensorError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path}: damaged ({error}); delete it and run the stage again") from None
    if metadata.get("sha256") != _digest(tensors, metadata.get("document", "")):
        raise CheckpointError(f"{path}: its checksum does not match; delete it and run the stage again")
    return tensors, json.loads(metadata["document"])


def _apart(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The same on the CPU, none in memory of another, which safetensors refuses: tied weights are written twice."""
    held = set()
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        yield name, plain.clone() if place in held else plain
        held.add(place)


def _metadata(raw: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return dict(json.loads(header.get("__metadata__", {}).get(HEADER, "{}")))


def _digest(tensors: Mapping[str, Tensor], content: str) -> str:
    total = hashlib.sha256(content.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, header = read_tensors(path)
    if DOCUMENT not in tensors:
        raise CheckpointError(f"{path}: not written by this version of assay; delete it and run the stage again")
    return tensors, {**json.loads(tensors.pop(DOCUMENT).numpy().tobytes()), **header}


def _name(step: int) -> str:
    """Of a checkpoint's file; names are in the order of the steps."""
    return f"step-{step:09d}.safetensors"


class CheckpointFolder:
    """The checkpoints of one run, named by step. `identity` says which run: a foreign checkpoint is refused."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training the same run meanwhile.

        A POSIX record lock: it ends with the process however that ends, forked workers do not inherit it (a flock lives
        on in them), and NFS hands it to the server, so that it holds between nodes; if a whole node dies, NFS 4 drops
        it when the node's lease runs out, NFS 3 when the node is up again. Where there are no locks, a line says so.

        Raises:
            CheckpointError: another process holds it.
        """
        path = self.folder / LOCK
        self.folder.mkdir(parents=True, exist_ok=True)
        with path.open("a+") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    file.seek(0)
                    holder = file.read() or "another process"
                    raise CheckpointError(f"{self.folder}: {holder} trains this run; wait for it, or end it") from None
                if error.errno not in NO_LOCKS:
                    raise
                print(f"{path}: cannot be locked ({error.strerror}); start this run only once", file=sys.stderr)
            for torn in self.folder.glob(".*.tmp"):
                torn.unlink(missing_ok=True)  # half a checkpoint of a writer that was killed
            file.truncate(0)
            file.write(f"process {os.getpid()} on {os.uname().nodename}")
            file.flush()
            yield

    def save(self, step: int, tensors: Mapping[str, Tensor], document: Mapping[str, Any]) -> None:
        """Write the checkpoint of a step, then drop all but the newest two."""
        path = self.folder / _name(step)
        with progress.phase("checkpoint", 1, unit="files"):
            content = torch.frombuffer(bytearray(json.dumps(document).encode()), dtype=torch.uint8)
            write_tensors(path, {**tensors, DOCUMENT: content}, {"identity": self.identity, "step": step})
            for old in self._paths()[KEPT:]:
                old.unlink(missing_ok=True)

    def load(self, until: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any], list[str]] | None:
        """The newest intact checkpoint and a line for each damaged one passed over; None if there is none at all.

        until: those of later steps do not count.

        Raises:
            CheckpointError: there are checkpoints and every one is damaged, or they belong to another run.
        """
        damaged: list[str] = []
        for path in self._paths():
            if until is not None and path.name > _name(until):
                continue
            try:
                tensors, document = _read_checkpoint(path)
            except CheckpointError as error:
                damaged.append(str(error))
                continue
            self._refuse_foreign(path, document)
            return tensors, document, damaged
        if damaged:
            raise CheckpointError(damaged[0])
        return None

    def steps(self) -> list[int]:
        """The steps whose checkpoints are there and intact, newest first."""
        found = []
        for path in self._paths():
            with suppress(CheckpointError):
                found.append(int(_read_checkpoint(path)[1]["step"]))
        return found

    def complete(self) -> None:
        """The run is complete and its model has been written elsewhere.

        The checkpoints stay: until the pipeline has taken note of the model, a kill makes it run the stage again. They
        go when another run of that name begins, or when the supervised command has ended well.
        """
        write_bytes(self.folder / COMPLETE, b"")

    def drop_complete(self) -> None:
        """Remove the folders of other runs of the same name that are complete."""
        name, _, _ = self.folder.name.rpartition("-")
        for marker in self.folder.parent.glob(f"{name}-*/{COMPLETE}"):
            if marker.parent != self.folder:
                shutil.rmtree(marker.parent, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)

    def _refuse_foreign(self, path: Path, document: Mapping[str, Any]) -> None:
        if document.get("identity") != self.identity:
            got, wanted = str(document.get("identity"))[:12], self.identity[:12]
            raise CheckpointError(f"{path}: belongs to run {got}; allowed: run {wanted}; move it away")
