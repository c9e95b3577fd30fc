"""What a study found, as tables and figures."""
