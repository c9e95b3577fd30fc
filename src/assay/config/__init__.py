"""Typed parameter files: load, validate, override, identify; open it when a key or an error message changes."""

from assay.config.fields import Before, Bounds, Incidental, Problem
from assay.config.identity import code_digest, config_digest
from assay.config.load import load, override, resolved
from assay.config.schema import json_schema

__all__ = [
    "Before",
    "Bounds",
    "Incidental",
    "Problem",
    "code_digest",
    "config_digest",
    "json_schema",
    "load",
    "override",
    "resolved",
]
