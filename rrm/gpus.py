"""GPUs by name: their memory and the vendor's peak rates of dense products, without sparsity, summed in float32.

Sources, whose rates with sparsity are halved: NVIDIA's data sheets, as archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100
repeats the H100's (the H200 has its chip), glennklockwood.com/garden/processors/A100 the A100's, sellers' tables those
of the L40S (mullet.se) and the L4 (store.sourcecode.com). The A10's and the GeForce cards' are tensor cores x clock, as
in the white papers of the GA102 and Ada architectures: with float32 sums, GeForce cards do half of the rate that is
often quoted. An H100 was seen to multiply bfloat16 matrices of 8192^2 at 798 teraflop/s.
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
