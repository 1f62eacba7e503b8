#!/usr/bin/env python3
"""step_in_place_pytorch.py - the training step of an in-place student of text in transformers, beside cab bench step in one run.

    python3 bench/step_in_place_pytorch.py [--cab build/cuda/cab] [--mamba DIR] [--conv DIR] [--batch 16] [--seq-len 1024]
        [--teacher-config FILE] [--student-config FILE] [--variants plain,compiled,captured] [--loss-chunks N] [--steps 20]

Both get the same two config.json, of random weights: a Llama that teaches a Falcon-H1 by CE + KL, each weighed by 1, gradients clipped,
AdamW. Here it is written as a careful user would: weights and activations in bf16, weights and moments of the fused AdamW in fp32,
attention by scaled_dot_product_attention, the head and both losses in chunks of rows that are computed again in the backward pass, so that
no step holds all logits. --mamba: mamba_ssm's Triton kernels, without which transformers has none for the recurrence (see ssd_triton.py).
--conv: the source package of causal-conv1d, compiled here for this GPU alone (a minute); transformers' fused function needs it. Without
it the recurrence is mamba_ssm's, and the convolution PyTorch's. Variants: the step as it is, the student by torch.compile, and forward and
backward pass as one CUDA graph. A variant that fails says why.

    pip download causal-conv1d --no-deps --no-binary :all: --no-build-isolation -d DIR && tar xzf DIR/causal_conv1d-*.tar.gz -C DIR --strip-components 1

Needs torch and transformers 5; triton and einops for --mamba."""
import argparse
import glob
import json
import os
import re
import subprocess
import sys
import time
import types

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


# ---- kernels that transformers looks for ---------------------------------------------------------------------------------

def offer_mamba(folder, fused):
    """mamba_ssm without its __init__.py, which imports compiled extensions. fused: and the function that needs causal_conv1d."""
    sys.path.insert(0, folder)
    for name in ["mamba_ssm", "mamba_ssm.ops", "mamba_ssm.ops.triton", "mamba_ssm.utils"]:
        package = types.ModuleType(name)
        package.__path__ = [os.path.join(folder, *name.split("."))]
        sys.modules[name] = package
    from mamba_ssm.ops.triton import ssd_combined

    if not fused:
        del ssd_combined.mamba_split_conv1d_scan_combined


def offer_conv(folder):
    from torch.utils.cpp_extension import load

    flags = ["-O3", "--use_fast_math", "--expt-relaxed-constexpr", "--expt-extended-lambda"]
    flags += [f"-U__CUDA_NO_{kind}__" for kind in ["HALF_OPERATORS", "HALF_CONVERSIONS", "BFLOAT16_OPERATORS",
                                                   "BFLOAT16_CONVERSIONS", "BFLOAT162_OPERATORS", "BFLOAT162_CONVERSIONS"]]
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", "%d.%d" % torch.cuda.get_device_capability())
    sources = [path for end in ["cpp", "cu"] for path in sorted(glob.glob(os.path.join(folder, "csrc", "*." + end)))]
    sys.modules["causal_conv1d_cuda"] = load("causal_conv1d_cuda", sources, extra_cflags=["-O3"], extra_cuda_cflags=flags)
    sys.path.insert(0, folder)


# ---- the step ------------------------------------------------------------------------------------------------------------

def models(options, device):
    from transformers import FalconH1Config, FalconH1ForCausalLM, LlamaConfig, LlamaForCausalLM

    def build(config, model, path):
        sizes = json.load(open(path))
        sizes.pop("model_type")
        with torch.device(device):
            return model(config(**sizes, attn_implementation="sdpa", use_cache=False)).to(torch.bfloat16)

    teacher = build(LlamaConfig, LlamaForCausalLM, options.teacher_config).eval().requires_grad_(False)
    return teacher, build(FalconH1Config, FalconH1ForCausalLM, options.student_config).train()


class Adam:
    """AdamW of fp32 copies of bf16 parameters."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.masters = [p.detach().float().requires_grad_() for p in self.parameters]
        for master in self.masters:
            master.grad = torch.zeros_like(master)
        fused = self.masters[0].is_cuda
        self.adam = torch.optim.AdamW(self.masters, lr=1e-6, betas=(0.9, 0.95), weight_decay=0.1, fused=fused)

    @torch.no_grad()
    def step(self):
        torch._foreach_copy_([m.grad for m in self.masters], [p.grad for p in self.parameters])
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.adam.step()
        torch._foreach_copy_(self.parameters, self.masters)
        torch._foreach_zero_([p.grad for p in self.parameters])


def rows_loss(hidden, taught, labels, head, teacher_head):
    """Sums of CE and KL over some rows."""
    log_p = F.log_softmax(F.linear(hidden, head).float(), -1)
    log_q = F.log_softmax(F.linear(taught, teacher_head).float(), -1)
    return F.nll_loss(log_p, labels, reduction="sum") + F.kl_div(log_p, log_q, log_target=True, reduction="sum")


class Step:
    def __init__(self, options, device):
        torch.manual_seed(1)
        self.teacher, self.student = models(options, device)
        self.adam = Adam(self.student.parameters())
        vocabulary = self.student.config.vocab_size
        draw = lambda: torch.randint(0, vocabulary, (options.batch, options.seq_len), device=device)
        self.ids, self.labels = draw(), draw()
        self.chunks = options.loss_chunks
        self.trunk, self.rows_loss = self.student.model, rows_loss
        for p in self.student.parameters(): # for a graph, gradients have addresses before it
            p.grad = torch.zeros_like(p)

    def parameters(self):
        return sum(p.numel() for p in self.student.parameters())

    def compile(self):
        self.trunk, self.rows_loss = torch.compile(self.student.model), torch.compile(rows_loss)

    def gradients(self):
        with torch.no_grad():
            taught = self.teacher.model(self.ids).last_hidden_state.flatten(0, 1)
        hidden = self.trunk(self.ids).last_hidden_state.flatten(0, 1)
        heads = [self.student.lm_head.weight, self.teacher.lm_head.weight]
        labels = self.labels.flatten()
        loss = 0
        for h, t, y in zip(hidden.chunk(self.chunks), taught.chunk(self.chunks), labels.chunk(self.chunks)):
            if self.chunks > 1:
                loss = loss + checkpoint(self.rows_loss, h, t, y, *heads, use_reentrant=False)
            else:
                loss = self.rows_loss(h, t, y, *heads)
        loss = loss / labels.numel()
        loss.backward()
        return loss

    def capture(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.gradients()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self.gradients()

        def replay():
            graph.replay()
            return loss

        self.gradients = replay

    def __call__(self):
        loss = self.gradients()
        self.adam.step()
        return loss


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(options, device, variant):
    """Milliseconds of a step, the most memory in GiB, the parameters and the last loss."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    step = Step(options, device)
    if variant == "compiled":
        step.compile()
    if variant == "captured":
        step.capture()
    for _ in range(3):
        step()
    began = clock(device)
    for _ in range(options.steps):
        loss = step()
    seconds = (clock(device) - began) / options.steps
    memory = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
    return 1e3 * seconds, memory, step.parameters(), float(loss.detach())


def ours(options, device):
    """What cab bench step prints, its milliseconds and GiB."""
    command = [options.cab, "bench", "step", "--device", device.type, "--stage", "soft", "--precision", "bf16",
               "--teacher-config", options.teacher_config, "--student-config", options.student_config, "--batch",
               str(options.batch), "--seq-len", str(options.seq_len), "--steps", str(options.steps)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    print("$ " + " ".join(command) + "\n" + text)
    memory, unit = re.search(r"peak ([0-9.]+) (GiB|MiB)", text).groups()
    return float(re.search(r"step ([0-9.]+) ms", text)[1]), float(memory) / (1 if unit == "GiB" else 1024)


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cab")
    parser.add_argument("--mamba")
    parser.add_argument("--conv")
    parser.add_argument("--teacher-config", default=os.path.join(here, "smollm2.json"))
    parser.add_argument("--student-config", default=os.path.join(here, "smollm2-falcon-h1.json"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--loss-chunks", type=int, default=8)
    parser.add_argument("--variants", default="plain,compiled,captured")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = [("cab", *ours(options, device))] if options.cab else []
    if options.conv:
        offer_conv(options.conv)
    if options.mamba:
        offer_mamba(options.mamba, bool(options.conv))
    import transformers

    print(f"torch {torch.__version__}, transformers {transformers.__version__}, mamba_ssm: {bool(options.mamba)}, "
          f"causal_conv1d: {bool(options.conv)}, batch {options.batch} x {options.seq_len}")
    for variant in options.variants.split(","):
        try:
            ms, memory, parameters, loss = measure(options, device, variant)
            print(f"{variant}: {parameters * 1e-6:.1f} M parameters, loss {loss:.3f}", flush=True)
            rows.append(("transformers, " + variant, ms, memory))
        except Exception as error: # what torch.compile or a capture cannot do differs between versions
            print(f"{variant}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", flush=True)
    tokens = options.batch * options.seq_len
    print(f"\n{'':26}{'ms/step':>9}{'tokens/s':>10}{'peak GiB':>10}")
    for name, ms, memory in rows:
        print(f"{name:26}{ms:9.2f}{tokens / ms * 1e3:10.0f}{memory:10.2f}")
    if options.cab and len(rows) > 1:
        ms, memory = min(row[1] for row in rows[1:]), min(row[2] for row in rows[1:])
        print(f"the fastest takes {ms / rows[0][1]:.2f} times as long as cab; the smallest {memory / rows[0][2]:.2f} times its memory")


if __name__ == "__main__":
    main()
