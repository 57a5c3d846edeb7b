"""GPUs by name: their memory and the vendor's peak rates of dense products, without sparsity.

Sources: NVIDIA's data sheets of each (H100, H200, A100, L40S, L4, A10) and the white papers of the GA102 and AD102
architectures; with float32 sums, which consumer cards do at half of the rate that is often quoted.
"""

from typing import NamedTuple

from rrm.models.products import ForwardDtype


class Gpu(NamedTuple):
    """Memory in GB and teraflop/s of products in each precision."""

    memory: float
    float32: float
    tensorfloat32: float
    bfloat16: float

    def rate(self, dtype: ForwardDtype) -> float:
        """Operations a second at its peak."""
        return 1e12 * getattr(self, dtype)


GPUS = {
    "h200": Gpu(141, 67, 494, 989),
    "h100": Gpu(80, 67, 494, 989),  # SXM
    "a100": Gpu(80, 19.5, 156, 312),
    "l40s": Gpu(48, 91.6, 183, 362),
    "l4": Gpu(24, 30.3, 60, 121),
    "a10": Gpu(24, 31.2, 62.5, 125),
    "rtx4090": Gpu(24, 82.6, 82.6, 165.2),
    "rtx3090": Gpu(24, 35.6, 35.6, 71),
}
