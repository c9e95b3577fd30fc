"""What a study will take before it is submitted: from recorded runs, a pilot or a probe."""
