#!/usr/bin/env python3
"""ssd_triton.py - the Mamba-2 recurrence beside mamba_ssm's Triton kernels, on one GPU in one run.

    python3 bench/ssd_triton.py --bench build/cuda/bench/bench_gpu_ops --mamba DIR

Ours is the case "ssd delta 8 x 2048, H 32, P 64, N 128, G 1" of bench_gpu_ops. Theirs is mamba_chunk_scan_combined() on the
same sizes in bf16, forward and backward, with chunks of 128 tokens (--chunk; on an H200 the fastest), replayed as a CUDA graph,
or called from Python where that cannot be captured. Its autotuning takes a minute for each chunk size. DIR has the source package (only its Triton files are read, nothing is built) and einops:

    pip download mamba-ssm --no-deps --no-binary :all: --no-build-isolation -d DIR   (needs packaging; its setup.py imports torch)
    tar xzf DIR/mamba_ssm-*.tar.gz -C DIR --strip-components 1
    pip install --no-deps --target DIR einops packaging

Needs torch and triton."""
import argparse
import re
import subprocess
import sys
import types

B, L, H, P, N, G = 8, 2048, 32, 64, 128, 1
CASE = "ssd delta 8 x 2048, H 32, P 64, N 128, G 1"


def ours(program, device):
    """Milliseconds, forward and backward."""
    text = subprocess.run([program, "--device", device, CASE], check=True, capture_output=True, text=True).stdout
    print(text, end="")
    return [float(ms) for ms in re.findall(r" (?:fwd|bwd) +([0-9.]+) ms", text)]


def load_theirs(folder):
    """The function, without the package's __init__.py, which imports its compiled extensions."""
    sys.path.insert(0, folder)
    for name in ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"]:
        package = types.ModuleType(name)
        package.__path__ = [folder + "/" + name.replace(".", "/")]
        sys.modules[name] = package
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    return mamba_chunk_scan_combined


def best_time(torch, run):
    """Milliseconds of a call, the best of five batches of 20."""
    for _ in range(5):
        run()
    best = float("inf")
    for _ in range(5):
        events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
        events[0].record()
        for _ in range(20):
            run()
        events[1].record()
        torch.cuda.synchronize()
        best = min(best, events[0].elapsed_time(events[1]) / 20)
    return best


def captured(torch, run):
    """The same work as a CUDA graph, or None where it cannot be captured."""
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
        return graph.replay
    except RuntimeError as error:
        print(f"not captured: {error}")
        return None


def theirs(folder, chunk):
    """Milliseconds of forward, and of forward and backward."""
    import torch

    scan = load_theirs(folder)
    device = torch.device("cuda")
    draw = lambda *shape, dtype=torch.bfloat16: (torch.rand(shape, device=device) * 2 - 1).to(dtype).requires_grad_()
    x, dt, Bm, Cm = draw(B, L, H, P), draw(B, L, H), draw(B, L, G, N), draw(B, L, G, N)
    A_log, D, bias = (draw(H, dtype=torch.float32) for _ in range(3))
    seed = torch.rand_like(x)
    forward = lambda: scan(x, dt, -torch.exp(A_log), Bm, Cm, chunk, D=D, dt_bias=bias, dt_softplus=True)
    both = lambda: torch.autograd.grad(forward(), [x, dt, Bm, Cm, A_log, D, bias], seed)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name()}")
    return [best_time(torch, captured(torch, run) or run) for run in [forward, both]]


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--bench", required=True)
    options.add_argument("--mamba", required=True)
    options.add_argument("--device", default="cuda")
    options.add_argument("--chunk", type=int, default=128)
    options = options.parse_args()
    forward, backward = ours(options.bench, options.device)
    their_forward, both = theirs(options.mamba, options.chunk)
    print(f"\n{'':24}forward   backward  both, ms")
    print(f"{'ours':22}{forward:9.4f}{backward:11.4f}{forward + backward:10.4f}")
    print(f"{f'mamba_ssm, chunk {options.chunk}':22}{their_forward:9.4f}{both - their_forward:11.4f}{both:10.4f}")
    print(f"ours is {both / (forward + backward):.2f} times as fast")

main()
