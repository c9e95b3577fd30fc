"""Where things lie in a BIDS data set: folders, entities, inheritance; open it when a file is not found.

Names follow the Brain Imaging Data Structure 1.10 (doi:10.1038/sdata.2016.44; ASL:
doi:10.1038/s41597-022-01615-9).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from assay.errors import DataError

IMAGE_EXTENSIONS = (".nii.gz", ".nii")
JOINT_ACQUISITIONS = ("pcasl", "vsasl")


@dataclass(frozen=True, kw_only=True)
class BidsName:
    """A file name taken apart: `sub-01_acq-pcasl_asl.nii.gz` has two entities, a suffix and an extension."""

    entities: tuple[tuple[str, str], ...]
    suffix: str
    extension: str

    def without(self, key: str) -> str:
        """The entities but `key`, joined as in a file name: the source part of a derivative's name."""
        return "_".join(f"{name}-{label}" for name, label in self.entities if name != key)

    def get(self, key: str) -> str | None:
        """The label of entity `key`, None when the name has no such entity."""
        return dict(self.entities).get(key)


def parse_name(name: str) -> BidsName | None:
    """Take a file name apart; None when it is not a BIDS name."""
    stem, dot, extension = name.partition(".")
    *pairs, suffix = stem.split("_")
    entities = tuple(
        (key, label) for key, dash, label in (pair.partition("-") for pair in pairs) if key and dash and label
    )
    if not (stem and dot) or len(entities) != len(pairs) or "-" in suffix:
        return None
    return BidsName(entities=entities, suffix=suffix, extension=dot + extension)


@dataclass(frozen=True, kw_only=True)
class AslGroup:
    """The ASL images of one series: one image, or `acq-pcasl` and `acq-vsasl` of the same session and run."""

    root: Path
    name: str
    images: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        """The perf folder, relative to the root of the data set."""
        return self.images[0].parent.relative_to(self.root)


def find_groups(folder: Path) -> list[AslGroup]:
    """All ASL series under a data set, subject, session or perf folder, in the order of their paths.

    Raises:
        DataError: the folder does not exist, holds no `*_asl.nii[.gz]`, or holds one under two names.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder; give a BIDS data set, or one of its sub-*, ses-* or perf folders")
    groups = [group for perf in _perf_folders(folder) for group in _groups_of(perf)]
    if not groups:
        raise DataError(f"{folder}: no *_asl.nii[.gz] in a perf folder; expected sub-*/[ses-*/]perf/sub-*_asl.nii.gz")
    return groups


def inherited(image: Path, root: Path, *, suffix: str, extension: str) -> list[Path]:
    """Metadata files that apply to an image, the most general first (BIDS inheritance principle).

    A file applies when it lies in the image's folder or above, up to the root, has the wanted suffix, and
    names no entity that the image has not.
    """
    target = parse_name(image.name)
    owned = set(target.entities) if target else set()
    found: list[Path] = []
    for folder in _from_root(image.parent, root):
        named = [(parse_name(path.name), path) for path in folder.glob(f"*{suffix}{extension}")]
        here = [
            (len(name.entities), path)
            for name, path in named
            if name and (name.suffix, name.extension) == (suffix, extension) and owned.issuperset(name.entities)
        ]
        found.extend(path for _, path in sorted(here))
    return found


def images_of(folder: Path, suffix: str) -> list[Path]:
    """NIfTI images with this BIDS suffix in a folder, sorted by name."""
    return sorted(path for extension in IMAGE_EXTENSIONS for path in folder.glob(f"*_{suffix}{extension}"))


def _perf_folders(folder: Path) -> list[Path]:
    if folder.name == "perf":
        return [folder]
    patterns = ("perf", "ses-*/perf", "sub-*/perf", "sub-*/ses-*/perf")
    return sorted(path for pattern in patterns for path in folder.glob(pattern) if path.is_dir())


def _groups_of(perf: Path) -> list[AslGroup]:
    members: dict[str, list[Path]] = {}
    for image in images_of(perf, "asl"):
        members.setdefault(_group_name(image), []).append(image)
    root = _dataset_root(perf)
    return [AslGroup(root=root, name=name, images=_ordered(name, images)) for name, images in members.items()]


def _group_name(image: Path) -> str:
    name = parse_name(image.name)
    if name is None or name.get("sub") is None:
        raise DataError(f"{image}: not a BIDS name; expected sub-<label>[_<key>-<label>]_asl.nii.gz; rename it")
    return name.without("acq" if name.get("acq") in JOINT_ACQUISITIONS else "")


def _ordered(name: str, images: Iterable[Path]) -> tuple[Path, ...]:
    """PCASL before VSASL, the channel order of the models."""
    ordered = tuple(sorted(images, key=lambda path: path.name))
    stems = [path.name.partition(".")[0] for path in ordered]
    clashes = len(set(stems)) < len(stems) or len({"_acq-" in stem for stem in stems}) > 1
    if clashes:
        listing = ", ".join(path.name for path in ordered)
        raise DataError(
            f"{ordered[0].parent}: {name} has several images ({listing}); allowed: one image, or one "
            "acq-pcasl and one acq-vsasl; remove or rename the others"
        )
    return ordered


def _dataset_root(perf: Path) -> Path:
    parent = perf.parent
    if parent.name.startswith("ses-"):
        parent = parent.parent
    return parent.parent if parent.name.startswith("sub-") else parent


def _from_root(folder: Path, root: Path) -> list[Path]:
    folders = [folder, *folder.parents]
    return folders[: folders.index(root) + 1][::-1]
