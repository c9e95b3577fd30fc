"""The 14 classes in channel order, and the values of their labels; open it to see which names a class table allows.

In a label volume 0 is other (cytoplasm, resin, whatever has no class) and k is CLASSES[k - 1]. The classes are
disjoint, so a single integer volume loses nothing. Names and ids are those of the CellMap segmentation challenge
(https://github.com/janelia-cellmap/cellmap-segmentation-challenge), whose `nuc` is the union of ids 20 to 29.
"""

from collections.abc import Iterable

from assay.errors import DataError

CLASSES = (
    "ecs",
    "pm",
    "mito_mem",
    "mito_lum",
    "mito_ribo",
    "golgi_mem",
    "golgi_lum",
    "ves_mem",
    "ves_lum",
    "endo_mem",
    "endo_lum",
    "er_mem",
    "er_lum",
    "nuc",
)
OTHER = 0
"""Label of a voxel of none of the classes, or of a class that was not annotated."""
OUTSIDE = 255
"""Label code of a voxel about which nothing is known: outside the label box, or unknown in the source."""
GROUPS = (
    ("ecs",),
    ("pm",),
    ("mito_mem", "mito_lum"),
    ("mito_ribo",),
    ("golgi_mem", "golgi_lum"),
    ("ves_mem", "ves_lum"),
    ("endo_mem", "endo_lum"),
    ("er_mem", "er_lum"),
    ("nuc",),
)
"""Classes that are annotated together."""
CHALLENGE = (
    *("ecs", "pm", "mito_mem", "mito_lum", "mito_ribo", "golgi_mem", "golgi_lum", "ves_mem", "ves_lum", "endo_mem"),
    *("endo_lum", "lyso_mem", "lyso_lum", "ld_mem", "ld_lum", "er_mem", "er_lum", "eres_mem", "eres_lum", "ne_mem"),
    *("ne_lum", "np_out", "np_in", "hchrom", "nhchrom", "echrom", "nechrom", "nucpl", "nucleo", "mt_out", "cent"),
    *("cent_dapp", "cent_sdapp", "ribo", "cyto", "mt_in", "nuc", "vim", "glyco", "golgi", "ves", "endo", "lyso", "ld"),
    *("rbc", "eres", "perox_mem", "perox_lum", "perox", "mito", "er", "ne", "np", "chrom", "mt", "isg_mem", "isg_lum"),
    *("isg_ins", "isg", "cell", "actin", "tbar", "bm", "er_mem_all", "ne_mem_all", "cent_all", "chloroplast_mem"),
    *("chloroplast_lum", "chloroplast_sg", "chloroplast", "vacuole_mem", "vacuole_lum", "vacuole", "plasmodesmata"),
)
"""All classes of the challenge; the id of CHALLENGE[k] is k + 1. A crop may have arrays of any of them."""
NUCLEAR = CHALLENGE[19:29]
"""The parts of a nucleus, ids 20 to 29; `nuc` is their union."""


def check_names(names: Iterable[str], where: str) -> None:
    """Refuse names that are in no class table: a channel of such a name could never be trained.

    Raises:
        DataError: as said.
    """
    unknown = [name for name in names if name not in CHALLENGE]
    if unknown:
        allowed = f"{', '.join(CLASSES)}, or another class of the challenge"
        raise DataError(f"{where}: got {', '.join(unknown)}; allowed: {allowed}; correct the name")
