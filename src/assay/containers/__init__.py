"""Containers: what a command runs in; open it to add another kind."""
