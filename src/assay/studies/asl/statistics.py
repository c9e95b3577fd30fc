"""Mean and spread of the targets, by which a network's outputs are scaled; open it for the published values."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Statistics:
    """Mean and standard deviation of the targets: CBF in ml/100 g/min, ATT in ms."""

    cbf_mean: float
    cbf_std: float
    att_mean: float
    att_std: float


PUBLISHED_STATISTICS = Statistics(cbf_mean=60.0, cbf_std=23.09, att_mean=1750.0, att_std=721.7)
"""Of CBF uniform in 20 to 100 and ATT uniform in 500 to 3000, which the phantoms are not."""
