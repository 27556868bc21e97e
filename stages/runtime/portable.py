"""The same bytes on another make of CPU: kernels that every x86-64 processor with AVX2 runs alike.

Left alone, torch and MKL choose their kernels by the processor, and sums round differently. Two settings take the
choice away; both are read when torch is first imported. docs/reproducibility.md has what was measured. MKL's own
`MKL_CBWR=AVX2` does not do it: there AMD and Intel differ. Nor does either setting reach `torch.sqrt`, which on a CPU
MKL starts from an approximation that each make of processor rounds in its own way: so only the fused
optimizers, which do without it, may train a portable model.
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
