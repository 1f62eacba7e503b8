#!/usr/bin/env python3
"""step_pytorch.py - the training step of cab bench step in PyTorch, for comparison on the same processor.

    python3 step_pytorch.py TEACHER_DIR --seq-len L [--batch N] [--layers S] [--precision fp32|bf16]
                            [--stage joint|align|soft] [--steps N] [--threads T]

The step is the one that cab bench step times (src/train/step_timer.c): GPT-2 teacher without gradient, discrete Mamba-2 student of the same width,
two-layer bridge on K and Q, CE + KL on full logits, gradient clipping, AdamW. It is written as one would write it for speed
in plain PyTorch: fused attention, the chunked matrix form of the recurrence (chunks of 64), autocast to bf16 for matrix
products, fused AdamW. Needs torch, safetensors, numpy."""
import argparse
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

CHUNK = 64


class Teacher:
    def __init__(self, folder):
        self.cfg = json.load(open(os.path.join(folder, "config.json")))
        w = load_file(os.path.join(folder, "model.safetensors"))
        self.w = {k.removeprefix("transformer."): v.float() for k, v in w.items()}

    def to(self, dtype):
        self.w = {k: v.to(dtype) if v.dim() == 2 else v for k, v in self.w.items()}
        self.dtype = dtype
        return self

    def norm(self, x, name):
        return F.layer_norm(x.float(), x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"]).to(self.dtype)

    def linear(self, x, name):
        return x @ self.w[name + ".weight"] + self.w[name + ".bias"].to(self.dtype)

    @torch.no_grad()
    def __call__(self, ids):
        b, l = ids.shape
        heads = self.cfg["n_head"]
        x = self.w["wte.weight"][ids] + self.w["wpe.weight"][:l]
        keys, queries = [], []
        for i in range(self.cfg["n_layer"]):
            p = f"h.{i}."
            q, k, v = self.linear(self.norm(x, p + "ln_1"), p + "attn.c_attn").chunk(3, -1)
            keys.append(k)
            queries.append(q)
            q, k, v = (t.view(b, l, heads, -1).transpose(1, 2) for t in (q, k, v))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, l, -1)
            x = x + self.linear(y, p + "attn.c_proj")
            u = self.linear(self.norm(x, p + "ln_2"), p + "mlp.c_fc")
            x = x + self.linear(F.gelu(u, approximate="tanh"), p + "mlp.c_proj")
        return self.norm(x, "ln_f"), keys, queries


def ssd(x, B, C, a_log):
    """Chunked recurrence. x (b, l, h, p), B and C (b, l, h, n), a_log (b, l, h) -> (b, l, h, p)."""
    b, l, h, p = x.shape
    n, dtype = B.shape[-1], x.dtype
    c = l // CHUNK
    x, B, C = (t.view(b, c, CHUNK, h, -1).permute(0, 1, 3, 2, 4) for t in (x, B, C))   # (b, c, h, t, .)
    s = (-F.softplus(a_log.float())).view(b, c, CHUNK, h).permute(0, 1, 3, 2).cumsum(-1)
    mask = torch.ones(CHUNK, CHUNK, dtype=torch.bool).tril()
    decay = (s[..., :, None] - s[..., None, :]).masked_fill(~mask, -math.inf).exp()
    y = ((C @ B.transpose(-1, -2)) * decay.to(dtype)) @ x
    ends = (B * (s[..., -1:] - s).exp().to(dtype)[..., None]).transpose(-1, -2) @ x    # (b, c, h, n, p)
    state, starts = torch.zeros(b, h, n, p), []
    total = s[..., -1].exp()
    for i in range(c):
        starts.append(state)
        state = state * total[:, i, :, None, None] + ends[:, i]
    y = y + (C @ torch.stack(starts, 1).to(dtype)) * s.exp().to(dtype)[..., None]
    return y.permute(0, 1, 3, 2, 4).reshape(b, l, h, p)


class Block(torch.nn.Module):
    def __init__(self, d, heads, n):
        super().__init__()
        self.heads, self.n = heads, n
        channels = d + 2 * heads * n
        self.norm = torch.nn.LayerNorm(d)
        self.in_proj = torch.nn.Linear(d, channels + d + heads, bias=False)
        self.conv = torch.nn.Conv1d(channels, channels, 4, groups=channels, padding=3)
        self.D = torch.nn.Parameter(torch.ones(heads))
        self.z_bias = torch.nn.Parameter(torch.zeros(d))
        self.out_proj = torch.nn.Linear(d, d, bias=False)
        self.fc1, self.fc2 = torch.nn.Linear(d, 4 * d), torch.nn.Linear(4 * d, d)

    def forward(self, x):
        b, l, d = x.shape
        u = self.norm(x)
        xbc, z, a_log = self.in_proj(u).split([d + 2 * self.heads * self.n, d, self.heads], -1)
        xbc = self.conv(xbc.transpose(1, 2))[..., :l].transpose(1, 2)
        v, B, C = xbc.split([d, self.heads * self.n, self.heads * self.n], -1)
        vh, Bh, Ch = (t.reshape(b, l, self.heads, -1) for t in (v, B, C))
        y = ssd(vh, Bh, Ch, a_log) + vh * self.D[:, None].to(vh.dtype)
        mixed = self.out_proj(y.reshape(b, l, d) * F.silu(z + self.z_bias.to(z.dtype)))
        return x + mixed + self.fc2(F.gelu(self.fc1(u), approximate="tanh")), B, C


class Student(torch.nn.Module):
    def __init__(self, cfg, layers):
        super().__init__()
        d, heads = cfg["n_embd"], cfg["n_head"]
        self.embedding = torch.nn.Embedding(cfg["vocab_size"], d)
        self.blocks = torch.nn.ModuleList(Block(d, heads, d // heads) for _ in range(layers))
        self.norm = torch.nn.LayerNorm(d)
        self.head = torch.nn.Linear(d, cfg["vocab_size"])
        bridge = lambda: torch.nn.Sequential(torch.nn.Linear(d, d), torch.nn.SiLU(), torch.nn.Linear(d, d))
        self.phi_b = torch.nn.ModuleList(bridge() for _ in range(layers))
        self.phi_c = torch.nn.ModuleList(bridge() for _ in range(layers))

    def forward(self, ids):
        x, taps = self.embedding(ids), []
        for block in self.blocks:
            x, B, C = block(x)
            taps.append((B, C))
        return self.norm(x), taps


def losses(args, student, teacher, ids, labels):
    hidden, taps = student(ids)
    with torch.no_grad():
        t_hidden, keys, queries = teacher(ids)
    loss = 0
    if args.stage != "align":
        logits = student.head(hidden).float().flatten(0, 1)
        t_logits = (t_hidden @ teacher.w["wte.weight"].T).float().flatten(0, 1)
        log_p = F.log_softmax(logits, -1)
        loss = F.nll_loss(log_p, labels.flatten()) + F.kl_div(log_p, F.log_softmax(t_logits, -1), log_target=True,
                                                             reduction="batchmean")
    if args.stage != "soft":
        layers = len(taps)
        for i, (B, C) in enumerate(taps):
            t = i * len(keys) // layers
            loss = loss + (F.mse_loss(student.phi_b[i](B).float(), keys[t].float()) +
                           F.mse_loss(student.phi_c[i](C).float(), queries[t].float())) / layers
    return loss


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("teacher")
    ap.add_argument("--seq-len", type=int, required=True)
    ap.add_argument("--batch", type=int, default=16)
    ap.add_argument("--layers", type=int, default=0)
    ap.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    ap.add_argument("--stage", default="joint", choices=["joint", "align", "soft"])
    ap.add_argument("--steps", type=int, default=3)
    ap.add_argument("--threads", type=int, default=2)
    args = ap.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    low = args.precision == "bf16"
    teacher = Teacher(args.teacher).to(torch.bfloat16 if low else torch.float32)
    student = Student(teacher.cfg, args.layers or teacher.cfg["n_layer"])
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, teacher.cfg["vocab_size"], (args.batch, args.seq_len))
    labels = torch.randint(0, teacher.cfg["vocab_size"], (args.batch, args.seq_len))
    times = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss = losses(args, student, teacher, ids, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    step = sum(times[1:]) / args.steps
    print(f"pytorch {torch.__version__}, {args.stage}, {args.precision}: step {step * 1e3:.1f} ms, "
          f"{args.batch * args.seq_len / step:.0f} tokens/s")


if __name__ == "__main__":
    main()
