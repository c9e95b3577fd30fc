"""BIDS ASL data in, BIDS derivatives out; open it for the names that a caller needs."""

from assay.studies.asl.bids.read import read_asl
from assay.studies.asl.bids.series import (
    AslSeries,
    Labelling,
    Source,
    require_label_duration,
    require_plds,
    require_sequences,
    to_volume,
)
from assay.studies.asl.bids.write import Provenance, write_derivative

__all__ = [
    "AslSeries",
    "Labelling",
    "Provenance",
    "Source",
    "read_asl",
    "require_label_duration",
    "require_plds",
    "require_sequences",
    "to_volume",
    "write_derivative",
]
