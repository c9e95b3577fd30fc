"""No container: a command runs in the environment that submits it; open it to see the least that a kind has to do."""

import sys
from collections.abc import Sequence
from pathlib import Path

from assay.containers import Bind


class NoContainer:
    """The host itself. It sees every path, and the whole environment."""

    kind = "none"
    python = sys.executable

    def wrap(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        binds: Sequence[Bind] = (),
        gpus: int = 0,
        memory: float | None = None,
        environment: Sequence[str] = (),
    ) -> list[str]:
        """The command as it is."""
        return list(command)

    def unavailable(self, folder: Path) -> list[str]:
        """It can always be used."""
        return []
