"""The same bytes on another make of CPU: kernels that every x86-64 processor with AVX2 runs alike.

Left alone, torch and MKL choose their kernels by the processor, and sums round differently. Two settings take the
choice away; both are read when torch is first imported. Measured with torch 2.13 (MKL 2024.0): matrix products,
attention and elementwise functions have the same bytes on AMD Zen 4 (AVX-512) and on emulated Intel Haswell, Intel
Skylake and AMD Zen 2. MKL's own `MKL_CBWR=AVX2` does not do it: there AMD and Intel differ.
"""

import os

KERNELS = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "COMPATIBLE"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def use(portable: bool, threads: int | None) -> None:
    """Choose kernels and number of threads for this process; call it before torch is imported.

    Args:
        portable: take the kernels that are the same everywhere, for about twice the CPU time of a matrix product.
        threads: of torch and MKL, however many cores there are; None leaves that to them. Another number can round
            sums differently.
    """
    if portable:
        os.environ.update(KERNELS)
    if threads is not None:
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        os.environ.update({"MKL_DYNAMIC": "FALSE", "OMP_DYNAMIC": "FALSE"})  # no fewer on a small machine


def fix_order() -> None:
    """Of all kernels allow only those that add up in a fixed order, before the first is run on a GPU.

    Strictly: with a warning alone, attention's backward pass would keep its faster kernel, which does not. What has no
    such kernel raises an error.
    """
    import torch

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS otherwise shares buffers among streams
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False  # it would choose by the clock
