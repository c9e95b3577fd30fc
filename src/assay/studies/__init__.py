"""The studies that come with assay, one folder each; they know the engine, the engine does not know them."""
