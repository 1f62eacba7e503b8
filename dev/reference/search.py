#!/usr/bin/env python3
"""search.py - reference search for the recipe presets: GPT-2 teacher -> discrete Mamba-2 ("phi-mamba") student.

What it does.  It trains many students AT ONCE: every parameter carries a leading replica axis R, so that one step
advances R independent runs (own initialisation, learning rate, loss weights, stages) on the same batches.  A run is a
composition: an initialisation, and stages of weighted CE + KL + alignment with frozen parts.  The published methods
are presets of it (function `presets`).  A launch trains K configurations on each of G data groups (fraction, seed).

How to run (a CUDA GPU; --device cpu also works, slowly):

    python3 search.py --teacher DIR --data DIR --round final --out results.json
    python3 search.py --teacher DIR --golden golden/phi_mamba_small    # checks the block and gradients, then stops

    --teacher  folder with model.safetensors, config.json and tokenizer.json of a GPT-2 model
    --data     folder with train.txt and val.txt, documents separated by a line <|endoftext|>
    --round    a comma list of rounds: one, two, three, four, five (the search, in that order), presets, or
               final (default), which reproduces the tables of search-tales.md

Rules that keep it honest.  Search rounds select on `dev`: the last 150 training documents of a fixed permutation,
which no search run trains on.  `val.txt` is read by the round `final` alone.  All presets of a table have the same
number of tokens, the same seeds (initialisation and data) and a learning rate tuned for each of them.

Needs torch, tokenizers, safetensors, numpy.
"""
import argparse
import json
import math
import os
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F

H_, P_ = 4, 32                               # heads and head width of teacher and student
EOS = 0
DEV_DOCS = 150
PARTS = ("embedding", "head", "norm", "mlp", "in_proj", "conv", "D", "z_bias", "out_proj", "bridge")


# ---------------------------------------------------------------------------------------------------------------- data

def read_docs(path, tok):
    """The documents of a text file as token lists, each closed by the separator."""
    text = open(path, encoding="utf-8").read()
    docs = [d.strip("\n") for d in text.split("<|endoftext|>")]
    return [tok.encode(d, add_special_tokens=False).ids + [EOS] for d in docs if d.strip()]


def fraction_of(docs, fraction, seed):
    """A seeded fraction of the documents."""
    order = np.random.default_rng(1000 + seed).permutation(len(docs))
    return [docs[i] for i in order[: max(1, round(fraction * len(docs)))]]


def batches(docs, seed, steps, batch, length):
    """(steps, batch, length + 1): documents reshuffled every epoch, concatenated, cut into windows."""
    need, rng, out, have = steps * batch * length + 1, np.random.default_rng(2000 + seed), [], 0
    while have < need:
        for i in rng.permutation(len(docs)):
            out.append(docs[i])
            have += len(docs[i])
    flat = np.concatenate([np.asarray(d, np.int64) for d in out])[:need]
    idx = np.arange(steps * batch)[:, None] * length + np.arange(length + 1)[None]
    return torch.from_numpy(flat[idx].reshape(steps, batch, length + 1))


def windows(docs, length, batch):
    """Evaluation windows (M, length + 1), M padded to a multiple of batch, and the weight of each target."""
    flat = np.concatenate([np.asarray(d, np.int64) for d in docs])
    m = math.ceil((len(flat) - 1) / length)
    mp = math.ceil(m / batch) * batch
    pad = np.zeros(mp * length + 1, np.int64)
    pad[: len(flat)] = flat
    idx = np.arange(mp)[:, None] * length + np.arange(length + 1)[None]
    w = (np.arange(mp * length) < len(flat) - 1).reshape(mp, length).astype(np.float32)
    return torch.from_numpy(pad[idx]), torch.from_numpy(w)


# ------------------------------------------------------------------------------------------------------------- teacher

class Teacher:
    """GPT-2 (ln_1, attention, ln_2, gelu_new MLP, tied head); returns logits and per layer K, Q."""

    def __init__(self, folder, device):
        from safetensors.torch import load_file
        self.cfg = json.load(open(os.path.join(folder, "config.json")))
        w = load_file(os.path.join(folder, "model.safetensors"))
        self.w = {k.removeprefix("transformer."): v.float().to(device) for k, v in w.items()}
        self.layers, self.heads, self.eps = self.cfg["n_layer"], self.cfg["n_head"], self.cfg["layer_norm_epsilon"]
        self.device = device

    def ln(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[name + ".weight"], self.w[name + ".bias"], self.eps)

    @torch.no_grad()
    def __call__(self, ids, attention=False, hidden=False):
        w, (b, l) = self.w, ids.shape
        x = w["wte.weight"][ids] + w["wpe.weight"][:l]
        keys, queries, maps, hid = [], [], [], []
        for i in range(self.layers):
            p = f"h.{i}."
            hid.append(x)
            q, k, v = (self.ln(x, p + "ln_1") @ w[p + "attn.c_attn.weight"] + w[p + "attn.c_attn.bias"]).chunk(3, -1)
            keys.append(k)
            queries.append(q)
            heads = [t.view(b, l, self.heads, -1).transpose(1, 2) for t in (q, k, v)]
            if attention:
                s = heads[0] @ heads[1].transpose(-1, -2) / math.sqrt(heads[0].shape[-1])
                mask = torch.full((l, l), -math.inf, device=s.device).triu(1)
                maps.append((s + mask).softmax(-1))
            y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(b, l, -1)
            x = x + y @ w[p + "attn.c_proj.weight"] + w[p + "attn.c_proj.bias"]
            u = self.ln(x, p + "ln_2") @ w[p + "mlp.c_fc.weight"] + w[p + "mlp.c_fc.bias"]
            x = x + F.gelu(u, approximate="tanh") @ w[p + "mlp.c_proj.weight"] + w[p + "mlp.c_proj.bias"]
        logits = self.ln(x, "ln_f") @ w["wte.weight"].T
        out = (logits, torch.stack(keys), torch.stack(queries))
        return out + ((maps,) if attention else ()) + ((hid,) if hidden else ())


# ------------------------------------------------------------------------------------------------------------- student
# Shapes: R replicas, B batch, L length, T = B*L tokens.  A layer's parameters, in the order `LAYER`:
#   norm_w, norm_b (R, D)   in_proj (R, E + 2HN + E + H, D): rows x | B | C | z | A_log   conv_w (R, E + 2HN, 4), conv_b
#   D (R, H)   z_bias (R, E)   out_proj (R, D, E)   fc1_w (R, 4D, D), fc1_b   fc2_w (R, D, 4D), fc2_b

LAYER = ("norm_w", "norm_b", "in_proj", "conv_w", "conv_b", "D", "z_bias", "out_proj", "fc1_w", "fc1_b", "fc2_w", "fc2_b")


def linear(x, w, b, cd):
    """(R, T, in) x (R, out, in) -> (R, T, out), inputs rounded to cd."""
    y = torch.bmm(x.to(cd), w.to(cd).transpose(1, 2))
    return y if b is None else y + b[:, None].to(cd)


def block(x, batch, heads, n, cd, norm_w, norm_b, in_proj, conv_w, conv_b, D, z_bias, out_proj, fc1_w, fc1_b, fc2_w, fc2_b):
    """x (R, T, D) fp32 -> x + mixer(u) + mlp(u), u = LayerNorm(x); also B and C (R, T, H*N) after the convolution."""
    r, t, d = x.shape
    l, e, hn = t // batch, out_proj.shape[2], heads * n
    u = F.layer_norm(x, (d,), None, None, 1e-5) * norm_w[:, None] + norm_b[:, None]
    proj = linear(u, in_proj, None, cd)
    ch = e + 2 * hn
    xbc = F.pad(proj[..., :ch].reshape(r, batch, l, ch), (0, 0, 3, 0))
    conv = conv_b[:, None, None] + sum(conv_w[:, None, None, :, k] * xbc[:, :, k:k + l] for k in range(4))
    conv = conv.to(cd)
    split = lambda v, w: v.reshape(r, batch, l, heads, w).permute(0, 1, 3, 2, 4).reshape(r * batch * heads, l, w)
    xs, bs, cs = (conv[..., :e], conv[..., e:e + hn], conv[..., e + hn:])
    a = -F.softplus(proj[..., ch + e:].float()).reshape(r, batch, l, heads).permute(0, 1, 3, 2).reshape(-1, l).cumsum(-1)
    decay = (a[:, :, None] - a[:, None, :]).masked_fill(
        torch.ones(l, l, dtype=torch.bool, device=x.device).triu(1), -math.inf).exp()
    xh = split(xs, e // heads)
    m = (torch.bmm(split(cs, n), split(bs, n).transpose(1, 2)).float() * decay).to(cd)
    y = torch.bmm(m, xh).float().reshape(r, batch, heads, l, e // heads) \
        + D[:, None, :, None, None] * xh.float().reshape(r, batch, heads, l, e // heads)
    y = y.permute(0, 1, 3, 2, 4).reshape(r, t, e)
    z = proj[..., ch:ch + e].float() + z_bias[:, None]
    mixer = linear(y * F.silu(z), out_proj, None, cd)
    mlp = linear(F.gelu(linear(u, fc1_w, fc1_b, cd).float(), approximate="tanh"), fc2_w, fc2_b, cd)
    return x + mixer.float() + mlp.float(), bs.reshape(r, t, hn), cs.reshape(r, t, hn)


def head_loss(x, norm_w, norm_b, head_w, head_b, labels, weight, tlogits, tau, cd):
    """Per replica: CE and KL(teacher || student, temperature tau) * tau^2 per token, and top-1 agreement.

    labels, weight (G, T), tlogits (G, T, V); replicas are ordered (G, K)."""
    r, t, d = x.shape
    g = labels.shape[0]
    u = F.layer_norm(x, (d,), None, None, 1e-5) * norm_w[:, None] + norm_b[:, None]
    logits = linear(u, head_w, head_b, cd).float()
    ls = logits.log_softmax(-1).view(g, r // g, t, -1)
    w = weight[:, None] / weight.sum(-1)[:, None, None]
    ce = -(ls.gather(-1, labels[:, None, :, None].expand(-1, r // g, -1, -1)).squeeze(-1) * w).sum(-1).reshape(r)
    tt = tau.view(g, r // g, 1, 1)
    lt = (tlogits[:, None].float() / tt).log_softmax(-1)
    lq = (logits.view(g, r // g, t, -1) / tt).log_softmax(-1)
    kl = ((lt.exp() * (lt - lq)).sum(-1) * w).sum(-1).reshape(r) * tau * tau
    return ce, kl, logits


def bridge_mse(v, target, ws, cd):
    """mse of the bridge's output on v (R, T, HN) against target (G, T, HP), per replica.  ws: the MLP's weights."""
    r, t, _ = v.shape
    g = target.shape[0]
    for i in range(0, len(ws), 2):
        v = linear(v, ws[i], ws[i + 1], cd)
        if i + 2 < len(ws):
            v = F.silu(v.float())
    return (v.float().view(g, r // g, t, -1) - target[:, None]).square().mean((-1, -2)).reshape(r)


def embed(table, ids):
    """table (R, V, D), ids (G, T) -> (R, T, D)."""
    r, v, d = table.shape
    g, t = ids.shape
    ids = ids[:, None].expand(g, r // g, t).reshape(r, t)
    return torch.gather(table, 1, ids[:, :, None].expand(r, t, d))


def student(p, ids, batch, n, cd, fn):
    """ids (G, B*L) -> the last hidden state and per layer B, C."""
    x = embed(p["embedding"], ids)
    layers = list(zip(*(p[k].unbind(1) for k in LAYER)))
    bs, cs = [], []
    for ws in layers:
        x, b, c = fn["block"](x, batch, H_, n, cd, *ws)
        bs.append(b)
        cs.append(c)
    return x, bs, cs


# ------------------------------------------------------------------------------------------------------ initialisation

INIT = dict(
    source="scratch",    # scratch | reuse (the teacher's weights)
    std="fan",           # random linears: "fan" = uniform +-1/sqrt(fan_in), or a number = normal of that std
    emb_std=0.02,        # scratch embedding, normal
    conv="random",       # random: uniform +-1/2 | delta: 1 on the current token, 0 before
    decay=None,          # None: random W_A (a about 1/2) | list of H a's (constant) | "matched": from attention maps
    a_rand=1.0,          # multiplies the random part of W_A when decay is not None
    norm="ln1",          # reuse: "ln1" copies ln_1; "plain": g = 1, b = beta, everything else folded into the weights
    beta=0.1,            # norm bias of "plain" (and of scratch with a decay): LayerNorm's output has mean 0, so c/(D*beta)
                         # added to every column of a row of a weight adds exactly the constant c to that output
    mlp="copy",          # reuse: copy | fold (rescaled from ln_2 to the block's norm) | random
    qkv_bias=False,      # reuse, conv delta: the convolution's bias carries the biases of c_attn
    proj_bias=False,     # reuse: c_proj's bias of the attention goes into fc2's bias
    bc_scale=1.0,        # reuse: multiplies K and Q rows (and biases); ["taylor", c]: per head c * sqrt((1 - a) / sqrt(P)), so
                         # that C.B is about softmax's first order, (1 - a) q.k / sqrt(P), over the 1 / (1 - a) tokens in reach
    out_scale=1.0,       # reuse: multiplies out_proj
    const=False,         # reuse, qkv_bias: each head's weakest K/Q channel becomes the constant bc_scale * P^(1/4): exp(s) ~ 1 + s
    extra_c=1.0,         # reuse, N > P: multiplies the random C rows of the channels that K and Q do not fill
    pos="none",          # reuse: "mean" adds the mean position embedding to the token embedding
    zgate="random",      # random | one: z rows * z_rand, z_bias such that silu(z_bias) = 1
    z_rand=1.0,
    d=1.0,               # D
    out_zero=1.0,        # scratch: multiplies out_proj and fc2 (residual branches)
    bridge="random",     # random | identity (depth 1, equal widths)
)
SILU_ONE = 1.2784645427610738                # silu(z) = 1


def uniform(shape, fan, gen):
    return (torch.rand(shape, generator=gen) * 2 - 1) / math.sqrt(fan)


def matched_decay(teacher, ids):
    """Per layer and head a = m / (m + 1), m the mean attended distance, over the second half of the windows."""
    maps = teacher(ids, attention=True)[3]
    l = ids.shape[1]
    pos = torch.arange(l, device=ids.device, dtype=torch.float32)
    dist = (pos[:, None] - pos[None]).clamp(min=0)
    mean = torch.stack([(m * dist).sum(-1)[:, :, l // 2:].mean((0, 2)) for m in maps]).cpu()
    return mean / (mean + 1)


def initialise(cfg, teacher, n, depth, width, seed, matched):
    """One replica's parameters (without the replica axis), layers stacked on axis 0."""
    o, gen = {**INIT, **cfg}, torch.Generator().manual_seed(7000 + seed)
    v, d = teacher.cfg["vocab_size"], teacher.cfg["n_embd"]
    s, hn, e = teacher.layers, H_ * n, d
    rows, ch = 2 * e + 2 * hn + H_, e + 2 * hn

    def lin(*shape):
        return uniform(shape, shape[-1], gen) if o["std"] == "fan" else torch.randn(shape, generator=gen) * o["std"]

    p = dict(embedding=torch.randn(v, d, generator=gen) * o["emb_std"], head_w=lin(v, d), head_b=torch.zeros(v),
             fnorm_w=torch.ones(d), fnorm_b=torch.zeros(d), norm_w=torch.ones(s, d), norm_b=torch.zeros(s, d),
             in_proj=lin(s, rows, d), conv_w=uniform((s, ch, 4), 4, gen), conv_b=torch.zeros(s, ch),
             D=torch.full((s, H_), float(o["d"])), z_bias=torch.zeros(s, e), out_proj=lin(s, d, e) * o["out_zero"],
             fc1_w=lin(s, 4 * d, d), fc1_b=torch.zeros(s, 4 * d), fc2_w=lin(s, d, 4 * d) * o["out_zero"], fc2_b=torch.zeros(s, d))
    decay = None
    if o["decay"] is not None:
        decay = matched if o["decay"] == "matched" else torch.tensor(o["decay"], dtype=torch.float32).expand(s, H_)
    for side in "BC":
        sizes = [hn] + [width] * (depth - 1) + [d]
        for i in range(depth):
            p[f"bridge_{side}{i}_w"] = uniform((s, sizes[i + 1], sizes[i]), sizes[i], gen)
            p[f"bridge_{side}{i}_b"] = torch.zeros(s, sizes[i + 1])
        if o["bridge"] == "identity":
            p[f"bridge_{side}0_w"] = torch.eye(d) / bc_scales(o, decay)[:s, :, None].expand(s, H_, d // H_).reshape(s, 1, d)
    if o["conv"] == "delta":
        p["conv_w"].zero_()[:, :, 3] = 1
    if o["zgate"] == "one":
        p["in_proj"][:, ch:ch + e] *= o["z_rand"]
        p["z_bias"].fill_(SILU_ONE)
    plain = o["norm"] == "plain" and o["source"] == "reuse" or o["source"] == "scratch" and o["decay"] is not None
    if plain:
        p["norm_b"].fill_(o["beta"])
    if o["source"] == "reuse":
        reuse(p, o, teacher, n, plain, bc_scales(o, decay))
    if decay is not None:
        p["in_proj"][:, ch + e:] *= o["a_rand"]
        nb = p["norm_b"]                                            # W_A nb = -logit(a): a = sigmoid(-A_log)
        got = torch.einsum("shd,sd->sh", p["in_proj"][:, ch + e:], nb)
        p["in_proj"][:, ch + e:] += ((-torch.logit(decay.double()).float() - got) / nb.square().sum(-1, keepdim=True))[..., None] * nb[:, None]
    return p


def bc_scales(o, decay):
    """The factor of each layer's and head's K and Q rows."""
    s = o["bc_scale"]
    if isinstance(s, (int, float)):
        return torch.full((64, H_), float(s)) if decay is None else torch.full_like(decay, float(s))
    return s[1] * ((1 - decay) / math.sqrt(P_)).sqrt()


def reuse(p, o, teacher, n, plain, scales):
    """Copies what fits of the teacher into p (in place)."""
    w = {k: v.cpu() for k, v in teacher.w.items()}
    d = e = teacher.cfg["n_embd"]
    hn = H_ * n
    p["embedding"] = w["wte.weight"].clone()
    if o["pos"] == "mean":
        p["embedding"] += w["wpe.weight"].mean(0)
    p["head_w"] = w["wte.weight"].clone()
    p["fnorm_w"], p["fnorm_b"] = w["ln_f.weight"].clone(), w["ln_f.bias"].clone()
    for i in range(teacher.layers):
        t = {k.removeprefix(f"h.{i}."): v for k, v in w.items() if k.startswith(f"h.{i}.")}
        g1, b1, g2, b2 = t["ln_1.weight"], t["ln_1.bias"], t["ln_2.weight"], t["ln_2.bias"]
        qw, kw, vw = t["attn.c_attn.weight"].T.chunk(3, 0)             # Conv1D stores (in, out)
        qb, kb, vb = t["attn.c_attn.bias"].chunk(3)
        qkv = {"v": (vw, vb), "k": (kw, kb), "q": (qw, qb)}
        if plain:                                                      # u = LN(x) + beta: fold ln_1 into the rows
            ng, nb = torch.ones(d), torch.full((d,), o["beta"])
            qkv = {k: (m * g1, b + m @ b1 - (m * g1) @ nb) for k, (m, b) in qkv.items()}
        else:
            ng, nb = g1, b1
        p["norm_w"][i], p["norm_b"][i] = ng, nb
        (vw, vb), (kw, kb), (qw, qb) = qkv["v"], qkv["k"], qkv["q"]
        s = scales[i].repeat_interleave(P_)
        kw, kb, qw, qb = kw * s[:, None], kb * s, qw * s[:, None], qb * s
        kc, qc = kb.clone(), qb.clone()                                # conv biases
        if o["const"]:
            kw, qw = kw.clone(), qw.clone()
            for h in range(H_):
                r = slice(h * P_, h * P_ + P_)
                j = h * P_ + int((kw[r].norm(dim=1) * qw[r].norm(dim=1)).argmin())
                kw[j], qw[j], kc[j], qc[j] = 0, 0, s[j] * P_ ** 0.25, s[j] * P_ ** 0.25
        p["in_proj"][i, :e] = vw
        p["in_proj"][i, e + hn:e + 2 * hn] *= o["extra_c"]             # before the copied rows overwrite their part
        for h in range(H_):                                            # heads of N >= P channels: the first P are copied
            p["in_proj"][i, e + h * n: e + h * n + P_] = kw[h * P_:(h + 1) * P_]
            p["in_proj"][i, e + hn + h * n: e + hn + h * n + P_] = qw[h * P_:(h + 1) * P_]
        if o["qkv_bias"]:
            p["conv_b"][i, :e] = vb
            for h in range(H_):
                p["conv_b"][i, e + h * n: e + h * n + P_] = kc[h * P_:(h + 1) * P_]
                p["conv_b"][i, e + hn + h * n: e + hn + h * n + P_] = qc[h * P_:(h + 1) * P_]
        p["out_proj"][i] = t["attn.c_proj.weight"].T * o["out_scale"]
        if o["mlp"] != "random":
            fw, fb = t["mlp.c_fc.weight"].T, t["mlp.c_fc.bias"]
            if o["mlp"] == "fold":
                fold = fw * (g2 / ng)
                fw, fb = fold, fb + fw @ b2 - fold @ nb
            p["fc1_w"][i], p["fc1_b"][i] = fw, fb
            p["fc2_w"][i], p["fc2_b"][i] = t["mlp.c_proj.weight"].T, t["mlp.c_proj.bias"]
            if o["proj_bias"]:
                p["fc2_b"][i] += t["attn.c_proj.bias"]


# -------------------------------------------------------------------------------------------------- stages to schedules

SPEC = [0.8, 0.95, 0.985, 0.996]             # a spread of constant decays, one for each head

STAGE = dict(part=1.0, ce=1.0, kl=1.0, tau=1.0, align=0.0, align_end=None, align_shape="linear", lr=2e-3, warmup=0.07,
             sched="cosine", floor=0.03, freeze=(), lr_mul=None)
RUN = dict(init={}, stages=[{}], wd=0.1, ema=0.0, beta2=0.95)


def lr_at(kind, x, floor):
    """Learning-rate factor at x in 0..1 of the part after warm-up."""
    if kind == "cosine":
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * x))
    if kind == "linear":
        return 1 - (1 - floor) * x
    if kind == "wsd":                                                   # constant, last 40 % linear
        return 1.0 if x < 0.6 else 1 - (1 - floor) * (x - 0.6) / 0.4
    if kind == "const":
        return 1.0
    raise ValueError(kind)


def tables(runs, steps):
    """Per step and replica: learning rate of each part, loss weights, temperature, step within the stage."""
    r = len(runs)
    tab = dict(lr=np.zeros((steps, r, len(PARTS))), ce=np.zeros((steps, r)), kl=np.zeros((steps, r)),
               al=np.zeros((steps, r)), tau=np.ones((steps, r)), k=np.zeros((steps, r)))
    for i, run in enumerate(runs):
        stages = [{**STAGE, **s} for s in run["stages"]]
        total, begin, done = sum(s["part"] for s in stages), 0, 0.0
        for s in stages:
            done += s["part"]
            end = round(steps * done / total)
            m, warm = end - begin, max(1, round(s["warmup"] * (end - begin)))
            for t in range(m):
                f = (t + 1) / warm if t < warm else lr_at(s["sched"], (t - warm) / max(1, m - warm), s["floor"])
                x = t / max(1, m - 1)
                row = begin + t
                for j, part in enumerate(PARTS):
                    tab["lr"][row, i, j] = 0 if part in s["freeze"] else s["lr"] * f * (s["lr_mul"] or {}).get(part, 1.0)
                end_al = s["align"] if s["align_end"] is None else s["align_end"]
                mix = x if s["align_shape"] == "linear" else 0.5 * (1 - math.cos(math.pi * x))
                tab["ce"][row, i], tab["kl"][row, i], tab["tau"][row, i] = s["ce"], s["kl"], s["tau"]
                tab["al"][row, i], tab["k"][row, i] = s["align"] + (end_al - s["align"]) * mix, t + 1
            begin = end
    return tab


def part_of(name):
    for key, part in (("bridge", "bridge"), ("embedding", "embedding"), ("head", "head"), ("fnorm", "norm"), ("norm", "norm"),
                      ("fc", "mlp"), ("in_proj", "in_proj"), ("conv", "conv"), ("D", "D"), ("z_bias", "z_bias"), ("out_proj", "out_proj")):
        if name.startswith(key):
            return part
    raise KeyError(name)


def decayed(name):
    """Weight decay acts on matrices only."""
    return name in ("embedding", "head_w", "in_proj", "out_proj", "fc1_w", "fc2_w") or name.startswith("bridge") and name.endswith("_w")


def adamw(w, g, m, v, ema, lr, on, k, wd, b2, clip, ema_d):
    """One AdamW step (0.9, b2) of one stacked parameter; all coefficients (R, 1).  k = step in the stage (1: fresh state)."""
    fresh = (k == 1).float()
    g = g * clip
    m2 = 0.9 * m * (1 - fresh) + 0.1 * g
    v2 = b2 * v * (1 - fresh) + (1 - b2) * g * g
    upd = (m2 / (1 - 0.9 ** k)) / ((v2 / (1 - b2 ** k)).sqrt() + 1e-8)
    w2 = torch.where(on > 0, w - lr * (upd + wd * w), w)
    return w2, m2, v2, ema_d * ema + (1 - ema_d) * w2


# ------------------------------------------------------------------------------------------------------------ training

class Search:
    def __init__(self, args):
        self.a, self.dev = args, torch.device(args.device)
        from tokenizers import Tokenizer
        self.tok = Tokenizer.from_file(os.path.join(args.teacher, "tokenizer.json"))
        self.teacher = Teacher(args.teacher, self.dev)
        self.train = read_docs(os.path.join(args.data, "train.txt"), self.tok)
        order = np.random.default_rng(12345).permutation(len(self.train))
        self.dev_docs = [self.train[i] for i in order[-DEV_DOCS:]]
        self.search_docs = [self.train[i] for i in order[:-DEV_DOCS]]
        self.val_docs = None
        self.cd = torch.float32 if args.fp32 else torch.bfloat16
        comp = (lambda f: torch.compile(f, dynamic=False)) if args.compile else (lambda f: f)
        if args.compile:
            torch._dynamo.config.cache_size_limit = 256
        torch.set_float32_matmul_precision("high")
        self.fn = dict(block=comp(block), head=comp(head_loss), bridge=comp(bridge_mse),
                       adamw=torch.compile(adamw, dynamic=True) if args.compile else adamw)
        self.matched = None
        self.results, self.start = [], time.time()

    def left(self):
        return self.a.time_limit - (time.time() - self.start)

    def teacher_floor(self, docs):
        ids, w = windows(docs, self.a.length, 1)
        ids, w = ids.to(self.dev), w.to(self.dev)
        nll = 0.0
        for i in range(0, len(ids), 64):
            lp = self.teacher(ids[i:i + 64, :-1])[0].log_softmax(-1)
            nll -= (lp.gather(-1, ids[i:i + 64, 1:, None])[..., 0] * w[i:i + 64]).sum().item()
        return math.exp(nll / w.sum().item())

    @torch.no_grad()
    def evaluate(self, p, docs, batch, n):
        """Per replica: perplexity, KL per token, top-1 agreement."""
        ids, w = windows(docs, self.a.length, batch)
        ids, w = ids.to(self.dev), w.to(self.dev)
        r = p["embedding"].shape[0]
        tot, wsum = torch.zeros(3, r, device=self.dev), 0.0
        one = torch.ones(r, device=self.dev)
        for i in range(0, len(ids), batch):
            x, y = ids[i:i + batch, :-1].contiguous(), ids[i:i + batch, 1:].reshape(1, -1)
            wt = w[i:i + batch].reshape(1, -1)
            tl = self.teacher(x)[0].reshape(1, -1, self.teacher.cfg["vocab_size"])
            h, _, _ = student(p, x.reshape(1, -1), batch, n, self.cd, self.fn)
            ce, kl, logits = self.fn["head"](h, p["fnorm_w"], p["fnorm_b"], p["head_w"], p["head_b"], y, wt, tl, one, self.cd)
            agree = ((logits.argmax(-1) == tl.argmax(-1)).float() * wt).sum(-1)
            s = wt.sum().item()
            tot += torch.stack([ce * s, kl * s, agree])
            wsum += s
        tot = (tot / wsum).cpu()
        return torch.stack([tot[0].exp(), tot[1], tot[2]], 1).numpy()

    def launch(self, title, configs, groups, steps=300, batch=8, n=32, depth=2, width=128, on="dev"):
        """Trains every configuration on every (fraction, seed) group; returns [(name, cfg, group, metrics)]."""
        a, dev, t0 = self.a, self.dev, time.time()
        if a.tiny:
            steps = max(2, steps // 100)
        full = [{**RUN, **c} for c in configs]
        g, kk = len(groups), len(full)
        runs = full * g                                                  # replica = group * K + configuration
        r = len(runs)
        docs = self.train if on == "val" else self.search_docs
        data = torch.stack([batches(fraction_of(docs, f, s), s, steps, batch, a.length) for f, s in groups], 1).to(dev)
        if self.matched is None:
            self.matched = matched_decay(self.teacher, windows(fraction_of(docs, 0.05, 0), a.length, 1)[0][:64, :-1].to(dev))
        cache, built = {}, []
        for i, run in enumerate(runs):
            key = (json.dumps(run["init"], sort_keys=True), groups[i // kk][1])
            if key not in cache:
                cache[key] = initialise(run["init"], self.teacher, n, depth, width, key[1], self.matched)
            built.append(cache[key])
        p = {k: torch.stack([b[k] for b in built]).to(dev) for k in built[0]}
        tab = {k: torch.tensor(v, dtype=torch.float32, device=dev) for k, v in tables(runs, steps).items()}
        col = lambda key: torch.tensor([run[key] for run in runs], dtype=torch.float32, device=dev)[:, None]
        wd, ema_d, b2 = col("wd"), col("ema"), col("beta2")
        use_ema, use_al = bool((ema_d > 0).any()), bool((tab["al"] > 0).any())
        names = [k for k in p if use_al or not k.startswith("bridge")]
        m = {k: torch.zeros_like(p[k]) for k in names}
        v = {k: torch.zeros_like(p[k]) for k in names}
        ema = {k: p[k].clone() for k in names} if use_ema else None
        ones = torch.ones(g, batch * a.length, device=dev)
        log = []
        for t in range(steps):
            for k in names:
                p[k].requires_grad_(True)
            x = data[t, :, :, :-1]
            flat = x.reshape(g, -1)
            tl, tk, tq = self.teacher(x.reshape(g * batch, -1))
            h, bs, cs = student(p, flat, batch, n, self.cd, self.fn)
            ce, kl, _ = self.fn["head"](h, p["fnorm_w"], p["fnorm_b"], p["head_w"], p["head_b"], data[t, :, :, 1:].reshape(g, -1),
                                        ones, tl.reshape(g, batch * a.length, -1), tab["tau"][t], self.cd)
            loss = tab["ce"][t] * ce + tab["kl"][t] * kl
            if use_al:
                al = 0
                for i in range(self.teacher.layers):
                    for side, val, tgt in (("B", bs[i], tk[i]), ("C", cs[i], tq[i])):
                        ws = [p[f"bridge_{side}{j}_{q}"][:, i] for j in range(depth) for q in "wb"]
                        al = al + self.fn["bridge"](val, tgt.reshape(g, batch * a.length, -1), ws, self.cd) / self.teacher.layers
                loss = loss + tab["al"][t] * al
            grads = torch.autograd.grad(loss.sum(), [p[k] for k in names])
            with torch.no_grad():
                on_ = [(tab["lr"][t, :, PARTS.index(part_of(k))] > 0).float() for k in names]
                sq = sum(q.flatten(1).square().sum(1) * o for q, o in zip(grads, on_))
                clip = (1.0 / (sq.sqrt() + 1e-6)).clamp(max=1.0)[:, None]
                step = tab["k"][t][:, None]
                for k, q, o in zip(names, grads, on_):
                    w = p[k].detach()
                    sh = w.shape
                    f2 = lambda z: z.reshape(r, -1)
                    lr = tab["lr"][t, :, PARTS.index(part_of(k)), None]
                    w2, m2, v2, e2 = self.fn["adamw"](f2(w), f2(q), f2(m[k]), f2(v[k]), f2(ema[k]) if use_ema else f2(w), lr, o[:, None],
                                                      step, wd * float(decayed(k)), b2, clip, ema_d)
                    p[k], m[k], v[k] = w2.view(sh), m2.view(sh), v2.view(sh)
                    if use_ema:
                        ema[k] = e2.view(sh)
            if t % max(1, steps // 6) == 0 or t == steps - 1:
                log.append((t, ce.detach(), kl.detach(), al.detach() if use_al else None))
        for k in p:
            p[k] = p[k].detach()
        t1 = time.time()
        where = {"dev": self.dev_docs, "val": self.val_docs}[on]
        ev = self.evaluate(p, where, batch, n)
        if use_ema:
            for k in names:
                p[k] = torch.where((ema_d > 0).view(-1, *[1] * (p[k].dim() - 1)), ema[k], p[k])
            ev = self.evaluate(p, where, batch, n)
        if dev.type == "cuda":
            torch.cuda.synchronize()
        out = []
        for i, run in enumerate(runs):
            out.append(dict(round=title, name=run["name"], fraction=groups[i // kk][0], seed=groups[i // kk][1], steps=steps, batch=batch,
                            n=n, depth=depth, width=width, on=on, ppl=float(ev[i, 0]), kl=float(ev[i, 1]), agree=float(ev[i, 2]),
                            train=[[tt, round(c[i].item(), 3), round(q[i].item(), 3), None if z is None else round(z[i].item(), 3)]
                                   for tt, c, q, z in log] if a.trace else None,
                            cfg={k: run[k] for k in ("init", "stages", "wd", "ema", "beta2")}))
        self.results += out
        json.dump(self.results, open(a.out, "w"))
        mem = torch.cuda.max_memory_allocated() / 2**30 if dev.type == "cuda" else 0
        print(f"== {title}: {kk} configs x {g} groups, {steps} x {batch} x {a.length}, N {n}: train {t1 - t0:.0f} s, eval {time.time() - t1:.0f} s, "
              f"{mem:.0f} GiB, {self.left():.0f} s left", flush=True)
        self.report(out)
        return out

    @staticmethod
    def mean(out):
        """{(name, fraction): [mean ppl (geometric), kl, agree, per-seed ppl]}"""
        acc = {}
        for o in out:
            acc.setdefault((o["name"], o["fraction"]), []).append(o)
        return {k: (math.exp(np.mean([math.log(o["ppl"]) if np.isfinite(o["ppl"]) else 99 for o in v])), float(np.mean([o["kl"] for o in v])),
                    float(np.mean([o["agree"] for o in v])), [round(o["ppl"], 2) for o in v]) for k, v in acc.items()}

    def report(self, out):
        for (name, f), (ppl, kl, ag, seeds) in sorted(self.mean(out).items(), key=lambda q: (q[0][1], q[1][0])):
            print(f"  {f:5.2f} {name:58s} ppl {ppl:8.2f}  kl {kl:6.3f}  agree {ag:.3f}  {seeds if len(seeds) > 1 else ''}")
        sys.stdout.flush()


# ------------------------------------------------------------------------------------------------------------- presets

def run(name, init=None, stages=None, **kw):
    return dict(name=name, init=init or {}, stages=stages or [{}], **kw)


DELTA = dict(conv="delta")
NAIVE = dict(source="reuse", conv="delta")
BEST = dict(source="reuse", conv="delta", norm="plain", beta=0.1, mlp="fold", qkv_bias=True, proj_bias=True, decay=[0.9] * 4, a_rand=0.0,
            zgate="one", z_rand=0.0, d=0.0, bc_scale=0.15)


def two_stage(init, part, lr):
    return dict(init=init, stages=[dict(part=part, ce=0, kl=0, align=1.0, lr=lr), dict(part=1 - part, lr=lr)])


def presets():
    """The recipe presets.  Weight decay 0.1, AdamW (0.9, 0.95), clip 1, 7 % warm-up, cosine to 3 % throughout."""
    return [
        run("vanilla", DELTA, [dict(lr=1e-3, kl=0)]),
        run("soft", DELTA, [dict(lr=8e-3)]),
        dict(name="cab", **two_stage(DELTA, 0.2, 8e-3)),
        run("cab-joint", DELTA, [dict(lr=1.2e-2, align=10.0, align_end=1.0)]),
        run("weight-reuse", NAIVE, [dict(lr=4e-3)]),
        run("cab-best", BEST, [dict(lr=2e-3, ce=0, tau=4.0)]),
    ]


def ablations():
    """Rows beside the presets: other learning rates for more data, the public initialisation, single changes."""
    b = dict(lr=2e-3, ce=0, tau=4.0)
    return [
        run("cab-joint 3->0, lr 8e-3", DELTA, [dict(lr=8e-3, align=3.0, align_end=0.0)]),
        run("vanilla lr 8e-3", DELTA, [dict(lr=8e-3, kl=0)]),
        dict(name="cab lr 1.2e-2", **two_stage(DELTA, 0.2, 1.2e-2)),
        run("soft, KL only", DELTA, [dict(lr=4e-3, ce=0)]),
        run("cab-joint, KL only, lambda 1", DELTA, [dict(lr=4e-3, ce=0, align=1.0)]),
        run("soft, random conv", {}, [dict(lr=8e-3)]),
        run("cab-joint, random conv, lambda 5", {}, [dict(lr=1.2e-2, align=5.0)]),
        run("soft, wd 2", DELTA, [dict(lr=8e-3)], wd=2.0),
        run("cab-joint, lambda 3, wd 2", DELTA, [dict(lr=8e-3, align=3.0)], wd=2.0),
        run("weight-reuse, random conv", dict(source="reuse"), [dict(lr=4e-3)]),
        run("weight-reuse + align 10", NAIVE, [dict(lr=3e-3, align=10.0)]),
        run("weight-reuse, KL only, tau 4", NAIVE, [dict(lr=3e-3, ce=0, tau=4.0)]),
        run("cab-best init, CE + KL", BEST, [dict(lr=1e-3)]),
        run("cab-best init, CE + KL + align 3", BEST, [dict(lr=2e-3, align=3.0)]),
        run("cab-best init, CE + KL tau 4", BEST, [dict(b, ce=1.0)]),
        run("cab-best init, CE + KL tau 4 + align 3", BEST, [dict(b, ce=1.0, align=3.0)]),
        run("cab-best + align 0.03", BEST, [dict(b, align=0.03)]),
        run("cab-best + align 0.1", BEST, [dict(b, align=0.1)]),
    ]


# --------------------------------------------------------------------------------------------------------------- rounds
# The search as it was made, round after round; each looked at the last.  Selection is on `dev` throughout.

FAITHFUL = dict(source="reuse", conv="delta", norm="plain", mlp="fold", qkv_bias=True, proj_bias=True, pos="mean", decay="matched", a_rand=0.1,
                zgate="one", z_rand=0.1, d=0.0, bc_scale=["taylor", 0.7], const=True)


def grid1():
    """First look: lr and initialisation of soft and reuse, without alignment."""
    c, base = [], dict(source="reuse")
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        c.append(run(f"soft lr {lr}", {}, [dict(lr=lr)]))
    for lr in (4e-3, 8e-3):
        for tag, o in (("std .02", dict(std=0.02)), ("emb .1", dict(emb_std=0.1)), ("emb .5", dict(emb_std=0.5)), ("delta", dict(conv="delta")),
                       ("decay", dict(decay=SPEC, a_rand=.3)), ("z one", dict(zgate="one")), ("out .35", dict(out_zero=.35)),
                       ("all", dict(conv="delta", decay=SPEC, a_rand=.3, zgate="one", emb_std=.1))):
            c.append(run(f"soft {tag} lr {lr}", o, [dict(lr=lr)]))
    c.append(run("soft kl only lr 4e-3", {}, [dict(lr=4e-3, ce=0)]))
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        c.append(run(f"reuse plainest lr {lr}", base, [dict(lr=lr)]))
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        c.append(run(f"faithful lr {lr}", FAITHFUL, [dict(lr=lr)]))
    lr = 3e-3
    c.append(run("faithful", FAITHFUL, [dict(lr=lr)]))
    c.append(run("faithful kl only", FAITHFUL, [dict(lr=lr, ce=0)]))
    c.append(run("faithful kl only tau 2", FAITHFUL, [dict(lr=lr, ce=0, tau=2.0)]))
    c.append(run("faithful kl 4", FAITHFUL, [dict(lr=lr, kl=4.0)]))
    c.append(run("faithful wd .01", FAITHFUL, [dict(lr=lr)], wd=0.01))
    c.append(run("faithful wd .5", FAITHFUL, [dict(lr=lr)], wd=0.5))
    for tag, o in (("conv random", dict(conv="random", qkv_bias=False, const=False)), ("norm ln1", dict(norm="ln1")),
                   ("norm ln1 mlp copy", dict(norm="ln1", mlp="copy")), ("norm ln1 decay spec", dict(norm="ln1", decay=SPEC)),
                   ("mlp random", dict(mlp="random")), ("no qkv bias", dict(qkv_bias=False, const=False)), ("no proj bias", dict(proj_bias=False)),
                   ("pos none", dict(pos="none")), ("decay none", dict(decay=None, bc_scale=0.15)), ("decay spec", dict(decay=SPEC)),
                   ("decay .9", dict(decay=[.9] * 4)), ("decay .95", dict(decay=[.95] * 4)), ("decay .99", dict(decay=[.99] * 4)),
                   ("a_rand 1", dict(a_rand=1.0)), ("a_rand 0", dict(a_rand=0.0)), ("z random", dict(zgate="random")),
                   ("z_rand 1", dict(z_rand=1.0)), ("z_rand 0", dict(z_rand=0.)), ("d 1", dict(d=1.0)), ("d .3", dict(d=.3)),
                   ("no const", dict(const=False)), ("bc taylor .4", dict(bc_scale=["taylor", .4])), ("bc taylor 1", dict(bc_scale=["taylor", 1.0])),
                   ("bc 1", dict(bc_scale=1.0)), ("out .7", dict(out_scale=.7)), ("beta .03", dict(beta=.03)), ("beta .3", dict(beta=.3)),
                   ("beta 1", dict(beta=1.))):
        c.append(run(f"faithful {tag}", {**FAITHFUL, **o}, [dict(lr=lr)]))
    return c


def grid2():
    """First look: alignment."""
    c, base, lr = [], dict(source="reuse"), 4e-3
    for l in (.1, .3, 1., 3., 10.):
        c.append(run(f"cab-joint {l}", {}, [dict(lr=lr, align=l)]))
        c.append(run(f"cab-joint {l} lr 8e-3", {}, [dict(lr=8e-3, align=l)]))
        c.append(run(f"cab-joint all {l}", dict(conv="delta", decay=SPEC, a_rand=.3, zgate="one", emb_std=.1), [dict(lr=lr, align=l)]))
        c.append(run(f"cab-joint decay {l}", dict(decay=SPEC, a_rand=.3), [dict(lr=lr, align=l)]))
        c.append(run(f"cab-joint {l}->0", {}, [dict(lr=lr, align=l, align_end=0.)]))
    for f in (.1, .2, .3):
        for l in (4e-3, 8e-3):
            c.append(run(f"cab {f} lr {l}", {}, [dict(part=f, ce=0, kl=0, align=1., lr=l), dict(part=1 - f, lr=l)]))
    for l in (.1, .3, 1., 3., 10.):
        c.append(run(f"reuse+ plainest {l}", base, [dict(lr=lr, align=l)]))
        c.append(run(f"faithful+ {l}", FAITHFUL, [dict(lr=3e-3, align=l)]))
        c.append(run(f"faithful+ {l}->0", FAITHFUL, [dict(lr=3e-3, align=l, align_end=0.)]))
        c.append(run(f"faithful+ kl only {l}", FAITHFUL, [dict(lr=3e-3, ce=0, align=l)]))
        c.append(run(f"faithful+ lr 6e-3 {l}", FAITHFUL, [dict(lr=6e-3, align=l)]))
    mix = ("embedding", "head", "norm", "mlp")
    for l in (0., 1., 3.):
        for f in (.15, .3):
            c.append(run(f"faithful+ mixer first {f} {l}", FAITHFUL, [dict(part=f, lr=5e-3, align=l, freeze=mix), dict(part=1 - f, lr=3e-3, align=l)]))
    c.append(run("faithful wsd", FAITHFUL, [dict(lr=3e-3, sched="wsd")]))
    c.append(run("faithful linear", FAITHFUL, [dict(lr=3e-3, sched="linear", floor=0.)]))
    return c


def round_one(s):
    s.launch("one", grid1()[:64], [(0.05, 0)])
    if s.left() > 90:
        s.launch("two", grid2()[:64], [(0.05, 0)])


def grid_scratch():
    c = []
    delta = dict(conv="delta")
    for lr in (1e-3, 2e-3, 4e-3, 8e-3):
        c.append(run(f"soft lr {lr}", {}, [dict(lr=lr)]))
        c.append(run(f"soft delta lr {lr}", delta, [dict(lr=lr)]))
    for tag, o in (("std .02", dict(std=.02)), ("z one", dict(zgate="one")), ("decay", dict(decay=SPEC)), ("emb .1", dict(emb_std=.1)), ("d 0", dict(d=0.))):
        for lr in (4e-3, 8e-3):
            c.append(run(f"soft delta {tag} lr {lr}", {**delta, **o}, [dict(lr=lr)]))
    for lr in (5e-4, 1e-3, 2e-3, 4e-3):
        c.append(run(f"vanilla lr {lr}", {}, [dict(lr=lr, kl=0)]))
        c.append(run(f"vanilla delta lr {lr}", delta, [dict(lr=lr, kl=0)]))
    for lr in (4e-3, 8e-3, 1.2e-2):
        for l in (5., 10., 20.):
            c.append(run(f"cab-joint {l} lr {lr}", {}, [dict(lr=lr, align=l)]))
    for lr in (4e-3, 8e-3):
        for l in (.3, 1., 3., 10.):
            c.append(run(f"cab-joint delta {l} lr {lr}", delta, [dict(lr=lr, align=l)]))
    for lr in (4e-3, 8e-3):
        for f in (.2, .3, .4):
            c.append(run(f"cab {f} lr {lr}", {}, [dict(part=f, ce=0, kl=0, align=1., lr=4e-3), dict(part=1 - f, lr=lr)]))
        for f in (.1, .2, .3):
            c.append(run(f"cab delta {f} lr {lr}", delta, [dict(part=f, ce=0, kl=0, align=1., lr=4e-3), dict(part=1 - f, lr=lr)]))
    c.append(run("soft delta kl only", delta, [dict(lr=4e-3, ce=0)]))
    c.append(run("soft delta kl only tau 2", delta, [dict(lr=4e-3, ce=0, tau=2.)]))
    c.append(run("cab-joint delta kl only 1", delta, [dict(lr=4e-3, ce=0, align=1.)]))
    c.append(run("cab-joint delta kl only 3", delta, [dict(lr=4e-3, ce=0, align=3.)]))
    c.append(run("cab-joint kl only 10", {}, [dict(lr=8e-3, ce=0, align=10.)]))
    return c[:64]


def grid_best():
    c, base = [], dict(source="reuse")
    for lr in (1e-3, 2e-3, 4e-3, 6e-3):
        c.append(run(f"reuse lr {lr}", base, [dict(lr=lr)]))
        c.append(run(f"reuse delta lr {lr}", {**base, "conv": "delta"}, [dict(lr=lr)]))
    c.append(run("reuse delta bc .15", {**base, "conv": "delta", "bc_scale": .15}, [dict(lr=2e-3)]))
    c.append(run("reuse delta bc .15 z one", {**base, "conv": "delta", "bc_scale": .15, "zgate": "one", "z_rand": .1}, [dict(lr=2e-3)]))
    for tau in (1., 2., 3., 5.):
        for lr in (1e-3, 2e-3, 3e-3, 5e-3):
            c.append(run(f"F tau {tau} lr {lr}", FAITHFUL, [dict(lr=lr, ce=0, tau=tau)]))
    b = dict(lr=2e-3, ce=0, tau=2.)
    for l in (.03, .1, .3, 1., 3.):
        c.append(run(f"F2 align {l}", FAITHFUL, [dict(b, align=l)]))
        c.append(run(f"F2 align {l}->0", FAITHFUL, [dict(b, align=l, align_end=0.)]))
    for l in (1., 3.):
        c.append(run(f"F2 align first 0.1 {l}", FAITHFUL, [dict(b, part=.1, kl=0, align=l), dict(b, part=.9)]))
    c.append(run("F2 align 1 ce 1", FAITHFUL, [dict(b, align=1., ce=1.)]))
    c.append(run("F2 ce .1", FAITHFUL, [dict(b, ce=.1)]))
    c.append(run("F2 ce .3", FAITHFUL, [dict(b, ce=.3)]))
    for wd in (0., .3, 1.):
        c.append(run(f"F2 wd {wd}", FAITHFUL, [b], wd=wd))
    for e in (.97, .99):
        c.append(run(f"F2 ema {e}", FAITHFUL, [b], ema=e))
    c.append(run("F2 beta2 .99", FAITHFUL, [b], beta2=.99))
    for w in (.02, .15, .3):
        c.append(run(f"F2 warmup {w}", FAITHFUL, [dict(b, warmup=w)]))
    c.append(run("F2 linear", FAITHFUL, [dict(b, sched="linear", floor=0.)]))
    c.append(run("F2 wsd", FAITHFUL, [dict(b, sched="wsd", floor=0.)]))
    c.append(run("F2 floor 0", FAITHFUL, [dict(b, floor=0.)]))
    c.append(run("F2 floor .1", FAITHFUL, [dict(b, floor=.1)]))
    for m in (.3, 0.):
        c.append(run(f"F2 emb head x {m}", FAITHFUL, [dict(b, lr_mul=dict(embedding=m, head=m))]))
        c.append(run(f"F2 emb head mlp x {m}", FAITHFUL, [dict(b, lr_mul=dict(embedding=m, head=m, mlp=m))]))
    c.append(run("F2 emb x 0", FAITHFUL, [dict(b, lr_mul=dict(embedding=0.))]))
    c.append(run("F2 head x 0", FAITHFUL, [dict(b, lr_mul=dict(head=0.))]))
    c.append(run("F2 mixer x 2", FAITHFUL, [dict(b, lr_mul=dict(in_proj=2., conv=2., out_proj=2., D=2., z_bias=2.))]))
    c.append(run("F2 conv x 3", FAITHFUL, [dict(b, lr_mul=dict(conv=3., D=3., z_bias=3., norm=3.))]))
    return c


def grid_ablate():
    b, c = dict(lr=2e-3, ce=0, tau=2.), []
    for tag, o in (("", {}), ("conv random", dict(conv="random", qkv_bias=False, const=False)), ("norm ln1", dict(norm="ln1")),
                   ("norm ln1 mlp copy", dict(norm="ln1", mlp="copy")), ("mlp random", dict(mlp="random")), ("no qkv bias", dict(qkv_bias=False, const=False)),
                   ("no proj bias", dict(proj_bias=False)), ("pos none", dict(pos="none")), ("decay none", dict(decay=None, bc_scale=0.15)),
                   ("decay none const 0", dict(decay=None, bc_scale=0.15, const=False)),
                   ("decay spec", dict(decay=SPEC)), ("decay .8", dict(decay=[.8] * 4)), ("decay .9", dict(decay=[.9] * 4)), ("decay .95", dict(decay=[.95] * 4)),
                   ("decay .8-.98", dict(decay=[.8, .9, .95, .98])), ("a_rand 1", dict(a_rand=1.0)), ("a_rand 0", dict(a_rand=0.0)), ("z random", dict(zgate="random")), ("z_rand .3", dict(z_rand=.3)),
                   ("z_rand 0", dict(z_rand=0.)), ("d .3", dict(d=.3)), ("no const", dict(const=False)),
                   ("bc taylor .4", dict(bc_scale=["taylor", .4])), ("bc taylor 1", dict(bc_scale=["taylor", 1.0])), ("bc .15", dict(bc_scale=.15)),
                   ("bc .15 decay .9 no const", dict(bc_scale=.15, decay=[.9] * 4, const=False)), ("bc .05", dict(bc_scale=.05)), ("beta .03", dict(beta=.03)), ("beta .3", dict(beta=.3)), ("beta 1", dict(beta=1.)),
                   ("simple", dict(decay=[.9] * 4, const=False, pos="none", bc_scale=.15)), ("out .7", dict(out_scale=.7))):
        c.append(run(f"F2 {tag}", {**FAITHFUL, **o}, [b]))
    return c


def grid_identity():
    b, c = dict(lr=2e-3, ce=0, tau=2.), []
    for l in (0., .03, .1, .3, 1., 3.):
        c.append(run(f"F2 identity bridge {l}", {**FAITHFUL, "bridge": "identity"}, [dict(b, align=l)]))
        c.append(run(f"F2 linear bridge {l}", FAITHFUL, [dict(b, align=l)]))
    for l in (.3, 1.):
        c.append(run(f"F2 identity bridge frozen {l}", {**FAITHFUL, "bridge": "identity"}, [dict(b, align=l, freeze=("bridge",))]))
        c.append(run(f"F2 identity no const {l}", {**FAITHFUL, "bridge": "identity", "const": False}, [dict(b, align=l)]))
    return c


def round_two(s):
    two = [(0.05, 1), (0.05, 2)]
    s.launch("scratch", grid_scratch(), two)
    s.launch("best", grid_best(), two)
    s.launch("ablate", grid_ablate(), two)
    s.launch("identity", grid_identity(), two, depth=1)


SIMPLE = dict(source="reuse", conv="delta", norm="plain", beta=0.1, mlp="fold", qkv_bias=True, proj_bias=True, decay=[.9] * 4, a_rand=0.1,
              zgate="one", z_rand=0.1, d=0.0, bc_scale=.15)
SLOW = dict(embedding=.3, head=.3, mlp=.3)
FAST = dict(conv=3., D=3., z_bias=3., norm=3.)


def grid_best2():
    c = []
    for tau in (3., 5., 8., 12.):
        for lr in (1.5e-3, 2e-3, 3e-3, 4e-3):
            c.append(run(f"S tau {tau} lr {lr}", SIMPLE, [dict(lr=lr, ce=0, tau=tau)]))
    b = dict(lr=3e-3, ce=0, tau=5.)
    for lr in (2e-3, 3e-3):
        b = dict(lr=lr, ce=0, tau=5.)
        for tag, m in (("slow", SLOW), ("fast", FAST), ("both", {**SLOW, **FAST}), ("fast10", dict(conv=10., D=10., z_bias=10.)), ("mlp slow", dict(mlp=.3)),
                       ("in_proj fast", dict(in_proj=1.5, out_proj=1.5))):
            c.append(run(f"S5 {tag} lr {lr}", SIMPLE, [dict(b, lr_mul=m)]))
        for l in (.1, .3, 1.):
            c.append(run(f"S5 align {l} lr {lr}", SIMPLE, [dict(b, align=l)]))
        c.append(run(f"S5 linear lr {lr}", SIMPLE, [dict(b, sched="linear")]))
        c.append(run(f"S5 linear warmup .15 lr {lr}", SIMPLE, [dict(b, sched="linear", warmup=.15)]))
    for tag, o in (("bc .08", dict(bc_scale=.08)), ("bc .25", dict(bc_scale=.25)), ("bc .4", dict(bc_scale=.4)), ("decay .8", dict(decay=[.8] * 4)), ("decay .6", dict(decay=[.6] * 4)),
                   ("z_rand 0", dict(z_rand=0.)), ("no proj bias", dict(proj_bias=False)), ("faithful", FAITHFUL),
                   ("pos mean", dict(pos="mean"))):
        c.append(run(f"S5 {tag}", {**SIMPLE, **o}, [dict(lr=2e-3, ce=0, tau=5.)]))
    return c


def grid_scratch2():
    c = []
    for lr in (6e-3, 1.2e-2, 1.6e-2):
        c.append(run(f"soft delta lr {lr}", DELTA, [dict(lr=lr)]))
        for l in (2., 3., 5.):
            c.append(run(f"joint delta {l} lr {lr}", DELTA, [dict(lr=lr, align=l)]))
        c.append(run(f"joint delta 5->0 lr {lr}", DELTA, [dict(lr=lr, align=5., align_end=0.)]))
        c.append(run(f"joint delta 10->0 lr {lr}", DELTA, [dict(lr=lr, align=10., align_end=0.)]))
        c.append(run(f"joint delta 10->1 lr {lr}", DELTA, [dict(lr=lr, align=10., align_end=1.)]))
    for w in (3., 10.):
        c.append(run(f"soft delta kl {w} lr 8e-3", DELTA, [dict(lr=8e-3, kl=w)]))
        c.append(run(f"joint delta kl {w} align {w} lr 8e-3", DELTA, [dict(lr=8e-3, kl=w, align=w)]))
    for tag, o in (("std .02", dict(std=.02)), ("std .04", dict(std=.04)), ("z one", dict(zgate="one")), ("d 0", dict(d=0.)), ("emb .05", dict(emb_std=.05))):
        c.append(run(f"joint delta 3 {tag} lr 8e-3", {**DELTA, **o}, [dict(lr=8e-3, align=3.)]))
    c.append(run("soft delta std .04 lr 8e-3", {**DELTA, "std": .04}, [dict(lr=8e-3)]))
    for wd in (.01, .3, 1.):
        c.append(run(f"soft delta wd {wd} lr 8e-3", DELTA, [dict(lr=8e-3)], wd=wd))
        c.append(run(f"joint delta 3 wd {wd} lr 8e-3", DELTA, [dict(lr=8e-3, align=3.)], wd=wd))
        c.append(run(f"vanilla delta wd {wd} lr 1e-3", DELTA, [dict(lr=1e-3, kl=0)], wd=wd))
    c.append(run("vanilla delta lr 1.5e-3", DELTA, [dict(lr=1.5e-3, kl=0)]))
    c.append(run("vanilla delta lr 7e-4", DELTA, [dict(lr=7e-4, kl=0)]))
    for f in (.05, .1, .2):
        for lr in (6e-3, 8e-3, 1.2e-2):
            c.append(run(f"cab delta {f} lr {lr}", DELTA, [dict(part=f, ce=0, kl=0, align=1., lr=lr), dict(part=1 - f, lr=lr)]))
    for lr in (3e-3, 5e-3):
        c.append(run(f"reuse delta lr {lr}", NAIVE, [dict(lr=lr)]))
        for l in (3., 10.):
            c.append(run(f"reuse delta align {l} lr {lr}", NAIVE, [dict(lr=lr, align=l)]))
    c.append(run("reuse delta kl only lr 3e-3", NAIVE, [dict(lr=3e-3, ce=0)]))
    c.append(run("reuse delta kl only align 1 lr 3e-3", NAIVE, [dict(lr=3e-3, ce=0, align=1.)]))
    c.append(run("reuse delta kl only align 3 lr 3e-3", NAIVE, [dict(lr=3e-3, ce=0, align=3.)]))
    return c[:64]


def grid_length():
    c = []
    for lr in (1e-3, 1.5e-3, 2e-3, 3e-3):
        c.append(run(f"S5 lr {lr}", SIMPLE, [dict(lr=lr, ce=0, tau=5.)]))
    c.append(run("S5 align .1 lr 2e-3", SIMPLE, [dict(lr=2e-3, ce=0, tau=5., align=.1)]))
    for lr in (4e-3, 8e-3):
        c.append(run(f"soft delta lr {lr}", DELTA, [dict(lr=lr)]))
        c.append(run(f"joint delta 3 lr {lr}", DELTA, [dict(lr=lr, align=3.)]))
        c.append(run(f"cab delta .1 lr {lr}", DELTA, [dict(part=.1, ce=0, kl=0, align=1., lr=lr), dict(part=.9, lr=lr)]))
    for lr in (5e-4, 1e-3):
        c.append(run(f"vanilla delta lr {lr}", DELTA, [dict(lr=lr, kl=0)]))
    for lr in (2e-3, 4e-3):
        c.append(run(f"reuse delta lr {lr}", NAIVE, [dict(lr=lr)]))
    c.append(run("S ce+kl lr 1e-3", SIMPLE, [dict(lr=1e-3)]))
    return c


def grid_n64():
    c = []
    for x in (1., .3, 0.):
        c.append(run(f"S5 extra_c {x}", {**SIMPLE, "extra_c": x}, [dict(lr=2e-3, ce=0, tau=5.)]))
    c.append(run("S5 align .1", {**SIMPLE, "extra_c": 0.}, [dict(lr=2e-3, ce=0, tau=5., align=.1)]))
    c.append(run("soft delta lr 8e-3", DELTA, [dict(lr=8e-3)]))
    c.append(run("joint delta 3 lr 8e-3", DELTA, [dict(lr=8e-3, align=3.)]))
    c.append(run("reuse delta lr 4e-3", NAIVE, [dict(lr=4e-3)]))
    return c


def round_three(s):
    two = [(0.05, 1), (0.05, 2)]
    s.launch("best2", grid_best2(), two)
    s.launch("scratch2", grid_scratch2(), two)
    s.launch("short batches", grid_length(), two, steps=600, batch=4)
    s.launch("twice as long", grid_length(), two, steps=600)
    s.launch("n64", grid_n64(), two, n=64)


def grid_decay():
    c = []
    for wd in (1., 2., 4.):
        for lr in (4e-3, 8e-3):
            c.append(run(f"soft wd {wd} lr {lr}", DELTA, [dict(lr=lr)], wd=wd))
            c.append(run(f"joint 5 wd {wd} lr {lr}", DELTA, [dict(lr=lr, align=5.)], wd=wd))
            c.append(run(f"joint 10->1 wd {wd} lr {lr}", DELTA, [dict(lr=lr, align=10., align_end=1.)], wd=wd))
        c.append(run(f"joint 3 wd {wd} lr 0.008", DELTA, [dict(lr=8e-3, align=3.)], wd=wd))
        c.append(run(f"cab .2 wd {wd} lr 0.008", DELTA, [dict(part=.2, ce=0, kl=0, align=1., lr=8e-3), dict(part=.8, lr=8e-3)], wd=wd))
        c.append(run(f"vanilla wd {wd} lr 0.001", DELTA, [dict(lr=1e-3, kl=0)], wd=wd))
        c.append(run(f"vanilla wd {wd} lr 0.002", DELTA, [dict(lr=2e-3, kl=0)], wd=wd))
        c.append(run(f"reuse wd {wd} lr 0.004", NAIVE, [dict(lr=4e-3)], wd=wd))
        c.append(run(f"S5 wd {wd}", SIMPLE, [dict(lr=2e-3, ce=0, tau=5.)], wd=wd))
    c.append(run("joint 5 wd .1 lr 0.008", DELTA, [dict(lr=8e-3, align=5.)]))
    c.append(run("joint 10->1 wd .1 lr 0.008", DELTA, [dict(lr=8e-3, align=10., align_end=1.)]))
    none = dict(z_rand=0., a_rand=0.)
    for tag, o in (("", {}), ("nothing random", none), ("nothing random, decay .8", {**none, "decay": [.8] * 4}),
                   ("nothing random, decay .7-.95", {**none, "decay": [.7, .8, .9, .95]}), ("nothing random, bc .1", {**none, "bc_scale": .1})):
        for tau in (4., 5.):
            c.append(run(f"S tau {tau} {tag}", {**SIMPLE, **o}, [dict(lr=2e-3, ce=0, tau=tau)]))
    c.append(run("S5 nothing random, align .03", {**SIMPLE, **none}, [dict(lr=2e-3, ce=0, tau=5., align=.03)]))
    c.append(run("S5 nothing random, align .3->0", {**SIMPLE, **none}, [dict(lr=2e-3, ce=0, tau=5., align=.3, align_end=0.)]))
    c.append(run("S5 ce .1", SIMPLE, [dict(lr=2e-3, ce=.1, tau=5.)]))
    c.append(run("S5 ce 1 align 3", SIMPLE, [dict(lr=2e-3, ce=1., tau=5., align=3.)]))
    c.append(run("S5 ce 1", SIMPLE, [dict(lr=2e-3, ce=1., tau=5.)]))
    return c


def grid_fractions():
    c = []
    for lr in (1e-3, 2e-3, 3e-3):
        c.append(run(f"S5 lr {lr}", SIMPLE, [dict(lr=lr, ce=0, tau=5.)]))
    c.append(run("S2 lr 2e-3", SIMPLE, [dict(lr=2e-3, ce=0, tau=2.)]))
    c.append(run("S5 align .1 lr 2e-3", SIMPLE, [dict(lr=2e-3, ce=0, tau=5., align=.1)]))
    for lr in (2e-3, 4e-3, 8e-3, 1.2e-2):
        c.append(run(f"soft lr {lr}", DELTA, [dict(lr=lr)]))
        c.append(run(f"joint 5 lr {lr}", DELTA, [dict(lr=lr, align=5.)]))
        c.append(run(f"cab .2 lr {lr}", DELTA, [dict(part=.2, ce=0, kl=0, align=1., lr=lr), dict(part=.8, lr=lr)]))
        c.append(run(f"vanilla lr {lr}", DELTA, [dict(lr=lr, kl=0)]))
        c.append(run(f"reuse lr {lr}", NAIVE, [dict(lr=lr)]))
    return c


def grid_short():
    c = []
    for lr in (2e-3, 4e-3):
        for l in (0., .1, .3, 1.):
            c.append(run(f"S5 align {l} lr {lr}", SIMPLE, [dict(lr=lr, ce=0, tau=5., align=l)]))
            c.append(run(f"S5 align {l}->0 lr {lr}", SIMPLE, [dict(lr=lr, ce=0, tau=5., align=l, align_end=0.)]))
    return c


def round_four(s):
    two = [(0.05, 1), (0.05, 2)]
    s.launch("weight decay", grid_decay(), two)
    s.launch("fractions", grid_fractions(), [(0.2, 1), (1.0, 1)])
    s.launch("60 steps", grid_short(), two, steps=60)


def grid_joint():
    """lambda and learning rate of cab-joint at 5 %."""
    c = []
    for lr in (6e-3, 8e-3, 1.2e-2):
        for l in (2., 3., 5.):
            c.append(run(f"cab-joint {l} lr {lr}", DELTA, [dict(lr=lr, align=l)]))
        c.append(run(f"cab-joint 10->1 lr {lr}", DELTA, [dict(lr=lr, align=10., align_end=1.)]))
    return c


def grid_joint_more():
    """The same for more data."""
    c = [run(f"soft lr {lr}", DELTA, [dict(lr=lr)]) for lr in (6e-3, 8e-3, 1.2e-2)]
    for l in (.1, .3, 1., 3.):
        c.append(run(f"cab-joint {l} lr 0.008", DELTA, [dict(lr=8e-3, align=l)]))
        c.append(run(f"cab-joint {l}->0 lr 0.008", DELTA, [dict(lr=8e-3, align=l, align_end=0.)]))
        c.append(run(f"cab-joint {l} lr 0.012", DELTA, [dict(lr=1.2e-2, align=l)]))
    return c


def round_five(s):
    s.launch("joint 5 %", grid_joint(), [(0.05, k) for k in (1, 2, 3, 4)])
    s.launch("joint 20 and 100 %", grid_joint_more(), [(f, k) for f in (.2, 1.0) for k in (1, 2)])


def round_final(s):
    """The tables of search-tales.md: validation, three seeds that no search round used."""
    s.val_docs = read_docs(os.path.join(s.a.data, "val.txt"), s.tok)
    print(f"teacher: {s.teacher_floor(s.val_docs):.4f} on validation", flush=True)
    seeds = (11, 12, 13)
    s.launch("final", presets() + ablations(), [(f, k) for f in (0.05, 0.2, 1.0) for k in seeds], on="val")
    s.launch("final, 600 x 4", presets(), [(0.05, k) for k in seeds], steps=600, batch=4, on="val")
    s.launch("final, 600 x 8", presets(), [(0.05, k) for k in seeds], steps=600, on="val")


def round_presets(s):
    """The presets alone at 5 %, three seeds."""
    s.val_docs = read_docs(os.path.join(s.a.data, "val.txt"), s.tok)
    s.launch("presets", presets(), [(0.05, k) for k in (11, 12, 13)], on="val")


# --------------------------------------------------------------------------------------------------------- golden check

def golden(path):
    """Compares logits, CE, alignment loss and their gradients with the golden vectors of the same block."""
    from safetensors.torch import load_file
    global H_
    c, w = json.load(open(path + ".json")), load_file(path + ".safetensors")
    H_, n, l = c["n_v_heads"], c["d_state"], c["n_layer"]
    names = dict(norm_w="input_layernorm.weight", norm_b="input_layernorm.bias", in_proj="mixer.in_proj.weight", conv_w="mixer.conv1d.weight",
                 conv_b="mixer.conv1d.bias", D="mixer.D", z_bias="mixer.z_bias", out_proj="mixer.out_proj.weight", fc1_w="mlp.fc1.weight",
                 fc1_b="mlp.fc1.bias", fc2_w="mlp.fc2.weight", fc2_b="mlp.fc2.bias")
    full = {k: [f"backbone.layers.{i}.{v}" for i in range(l)] for k, v in names.items()}
    full.update(embedding="backbone.embedding.weight", fnorm_w="backbone.final_layernorm.weight", fnorm_b="backbone.final_layernorm.bias",
                head_w="lm_head.weight", head_b="lm_head.bias")
    get = lambda v, kind: torch.stack([w[f"{kind}.{x}"].squeeze() if "conv1d" in x else w[f"{kind}.{x}"] for x in v])[None] if isinstance(v, list) else w[f"{kind}.{v}"][None]
    p = {k: get(v, "param").clone().requires_grad_(True) for k, v in full.items()}
    ids = w["input_ids"].long()
    b, t = ids.shape
    x, bs, cs = student(p, ids.reshape(1, -1), b, n, torch.float32, dict(block=block))
    lab = torch.cat([ids[:, 1:], ids[:, :1]], 1).reshape(1, -1)
    wt = (torch.arange(t) < t - 1).float().expand(b, t).reshape(1, -1)
    args = (x, p["fnorm_w"], p["fnorm_b"], p["head_w"], p["head_b"], lab)
    ce, _, logits = head_loss(*args, wt, w["teacher_logits"].reshape(1, b * t, -1), torch.ones(1), torch.float32)
    _, kl, _ = head_loss(*args, torch.ones_like(wt), w["teacher_logits"].reshape(1, b * t, -1), torch.ones(1), torch.float32)
    al = sum(bridge_mse(v[i], w[f"teacher.{i}.{q}"].reshape(1, b * t, -1), [w[f"bridge.{s}.{i}.{j}.{z}"][None] for j in (0, 2) for z in ("weight", "bias")],
                        torch.float32) for i in range(l) for s, v, q in (("B", bs, "k"), ("C", cs, "q"))) / l
    err = lambda u, v: ((u - v).norm() / v.norm().clamp(min=1e-12)).item()
    print("logits", err(logits.view(b, t, -1), w["logits"]), "ce", err(ce[0], w["loss_ce"]), "kl", err(kl[0], w["loss_kl_all_positions"]),
          "align", err(al[0], w["loss_align"]))
    for tag, loss in (("grad_ce", ce), ("grad_kl", kl)):
        gr = torch.autograd.grad(loss, list(p.values()), retain_graph=True)
        print(tag, max((err(q, get(full[k], tag)), k) for k, q in zip(p, gr)))
    gr = torch.autograd.grad(al, p["in_proj"])[0]
    print("grad_align in_proj", err(gr, get(full["in_proj"], "grad_align")))


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--teacher")
    ap.add_argument("--data")
    ap.add_argument("--golden")
    ap.add_argument("--round", default="final")
    ap.add_argument("--out", default="results.json")
    ap.add_argument("--device", default="cuda")
    ap.add_argument("--length", type=int, default=256)
    ap.add_argument("--time-limit", type=float, default=1e9, help="seconds; a round starts only while enough is left")
    ap.add_argument("--compile", type=int, default=1)
    ap.add_argument("--fp32", action="store_true", help="fp32 instead of bf16 matrix inputs")
    ap.add_argument("--tiny", action="store_true", help="a hundredth of the steps: tests the script")
    ap.add_argument("--trace", action="store_true", help="keep loss curves")
    args = ap.parse_args()
    if args.golden:
        return golden(args.golden)
    s = Search(args)
    for name in args.round.split(","):
        globals()["round_" + name](s)


if __name__ == "__main__":
    main()
