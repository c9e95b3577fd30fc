"""Sliding windows over whole volumes, slice by slice for 2-D networks; open it for what is blended with what."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from assay.errors import ConfigError

Predictor = Callable[[Tensor], Tensor]
"""Images (B, 1, *edges) in 0 to 1 to logits (B, C, *edges)."""
SLICES = 16


class Piece(NamedTuple):
    """Logits (B, C, *spatial) of some slices (B of them, at `places`) or of a whole volume (B = 1, places all)."""

    places: slice
    logits: Tensor


class Windows:
    """How volumes are cut: edges of a window, share that neighbours overlap, windows per pass, slices left out."""

    def __init__(self, edges: Sequence[int], overlap: float, batch_size: int, every: int = 1) -> None:
        """every: of so many slices one, the first at the middle of them (2-D)."""
        self.edges, self.overlap, self.batch_size, self.every = tuple(edges), overlap, batch_size, every

    def over(self, image: Tensor, predict: Predictor, device: torch.device) -> Iterator[Piece]:
        """Logits of a volume (Z, Y, X) uint8, on the device; windows are blended by Gaussian weights."""
        if len(self.edges) == 3:
            whole = image[None, None].to(device).float() / 255
            yield Piece(slice(None), self._blended(whole, predict))
            return
        step = SLICES * self.every
        for first in range(min(self.every // 2, len(image) - 1), len(image), step):
            places = slice(first, min(first + step, len(image)), self.every)
            yield Piece(places, self._blended(image[places][:, None].to(device).float() / 255, predict))

    def _blended(self, image: Tensor, predict: Predictor) -> Tensor:
        if image.shape[2:] == self.edges:
            return torch.cat([predict(some).float() for some in torch.split(image, self.batch_size)])
        try:
            from monai.inferers.utils import sliding_window_inference
        except ImportError as error:
            raise ConfigError(f"MONAI cannot be imported ({error}); install assay[organelles]") from None
        found = sliding_window_inference(
            image, self.edges, self.batch_size, lambda part: predict(part).float(), self.overlap, mode="gaussian"
        )
        if not isinstance(found, Tensor):
            raise TypeError(f"got {type(found).__name__} from a network with one output")
        return found
