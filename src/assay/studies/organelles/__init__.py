"""The organelles study: segmentation of FIB-SEM volumes in 14 classes, each crop annotated for some of them only."""
