#!/usr/bin/env python3
"""phi_mamba.py - reference of the discrete Mamba-2 student in fp64, written for reading, not for speed.

    python3 phi_mamba.py --check ../shared/golden/phi_mamba_small     # reproduces a golden case from its own parameters
    python3 phi_mamba.py --write DIR                                  # cases of other sizes, for CAB_GOLDEN=DIR

A case is <name>.json (sizes) and <name>.safetensors: param.*, input_ids, logits, act.<l>.B|C, teacher_logits,
teacher.<l>.q|k, bridge.*, loss_ce (labels shifted by one), loss_kl_all_positions, loss_soft_ce_all_positions,
loss_align, and the gradients grad_ce.*, grad_kl.*, grad_align.* (none where a loss does not reach).

Needs numpy and autograd (pip install autograd).
"""
import argparse
import json
import os
import struct

import autograd.numpy as np
import numpy
from autograd import value_and_grad


# ---- files -----------------------------------------------------------------------------------------------------------

def load(path):
    data = open(path, "rb").read()
    size = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    types = {"F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}
    return {
        name: numpy.frombuffer(body[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def save(path, tensors):
    header, body = {}, b""
    for name in sorted(tensors):
        value = numpy.asarray(tensors[name])
        integer = numpy.issubdtype(value.dtype, numpy.integer)
        raw = value.astype("<i4" if integer else "<f4").tobytes()
        header[name] = {
            "dtype": "I32" if integer else "F32",
            "shape": list(value.shape),
            "data_offsets": [len(body), len(body) + len(raw)],
        }
        body += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)


# ---- the model -------------------------------------------------------------------------------------------------------

def layer_norm(x, w, b):
    mean = np.mean(x, -1, keepdims=True)
    variance = np.mean((x - mean) ** 2, -1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5) * w + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x):
    return x / (1 + np.exp(-x))


def log_softmax(x):
    x = x - np.max(x, -1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), -1, keepdims=True))


def mixer(p, name, u, c):
    """(x B C | z | a_log) = in_proj u; conv; h[t] = a[t] h[t-1] + x[t] B[t]^T; y = h C + D x; out_proj(y silu(z + z_bias))"""
    batch, length, _ = u.shape
    E, H, G, N, K = c["d_model"], c["n_v_heads"], c["n_qk_heads"], c["d_state"], c["d_conv"]
    P = E // H
    xbcza = u @ p[name + "in_proj.weight"].T
    xbc, z, a_log = np.split(xbcza, [E + 2 * G * N, 2 * E + 2 * G * N], -1)
    w = p[name + "conv1d.weight"][:, 0, :]
    padded = np.concatenate([np.zeros((batch, K - 1, xbc.shape[-1])), xbc], 1)
    xbc = sum(padded[:, k : k + length] * w[:, k] for k in range(K)) + p[name + "conv1d.bias"]
    x, B, C = np.split(xbc, [E, E + G * N], -1)
    x = np.reshape(x, (batch, length, H, P))
    B, C = np.reshape(B, (batch, length, G, N)), np.reshape(C, (batch, length, G, N))
    taps = {"B": B, "C": C}
    B, C = np.repeat(B, H // G, 2), np.repeat(C, H // G, 2)
    a = 1 / (1 + np.exp(a_log))
    h, ys = np.zeros((batch, H, P, N)), []
    for t in range(length):
        h = a[:, t, :, None, None] * h + x[:, t, :, :, None] * B[:, t, :, None, :]
        ys.append(np.sum(h * C[:, t, :, None, :], -1))
    y = np.stack(ys, 1) + p[name + "D"][:, None] * x
    y = np.reshape(y, (batch, length, E)) * silu(z + p[name + "z_bias"])
    return y @ p[name + "out_proj.weight"].T, taps


def model(p, ids, c):
    x, taps = p["backbone.embedding.weight"][ids], []
    for l in range(c["n_layer"]):
        name = f"backbone.layers.{l}."
        u = layer_norm(x, p[name + "input_layernorm.weight"], p[name + "input_layernorm.bias"])
        mixed, tap = mixer(p, name + "mixer.", u, c)
        inner = gelu(u @ p[name + "mlp.fc1.weight"].T + p[name + "mlp.fc1.bias"])
        x = x + mixed + inner @ p[name + "mlp.fc2.weight"].T + p[name + "mlp.fc2.bias"]
        taps.append(tap)
    x = layer_norm(x, p["backbone.final_layernorm.weight"], p["backbone.final_layernorm.bias"])
    return x @ p["lm_head.weight"].T + p["lm_head.bias"], taps


# ---- losses ----------------------------------------------------------------------------------------------------------

def loss_ce(p, ids, c):
    logits, _ = model(p, ids, c)
    log_p = log_softmax(logits)[:, :-1]
    rows, columns = np.meshgrid(np.arange(ids.shape[0]), np.arange(ids.shape[1] - 1), indexing="ij")
    return -np.mean(log_p[rows, columns, ids[:, 1:]])


def loss_kl(p, ids, c, teacher_logits):
    log_q = log_softmax(teacher_logits)
    return np.mean(np.sum(np.exp(log_q) * (log_q - log_softmax(model(p, ids, c)[0])), -1))


def bridge(p, name, x):
    i = 0
    while f"{name}{2 * i}.weight" in p:
        x = x if i == 0 else silu(x)
        x = x @ p[f"{name}{2 * i}.weight"].T + p[f"{name}{2 * i}.bias"]
        i += 1
    return x


def loss_align(p, ids, c, teacher):
    _, taps = model(p, ids, c)
    total = 0
    for l, tap in enumerate(taps):
        t = l * len(teacher) // len(taps)
        for which, target in (("B", "k"), ("C", "q")):
            flat = np.reshape(tap[which], ids.shape + (-1,))
            total = total + np.mean((bridge(p, f"bridge.{which}.{l}.", flat) - teacher[t][target]) ** 2)
    return total / len(taps)


# ---- cases -----------------------------------------------------------------------------------------------------------

def evaluate(p, bridges, ids, c, teacher_logits, teacher):
    """Everything that a case holds besides its inputs."""
    logits, taps = model(p, ids, c)
    out = {"logits": logits}
    for l, tap in enumerate(taps):
        out[f"act.{l}.B"], out[f"act.{l}.C"] = tap["B"], tap["C"]
    log_q = log_softmax(teacher_logits)
    entropy = -np.mean(np.sum(np.exp(log_q) * log_q, -1))
    for name, prefix, function in (
        ("loss_ce", "grad_ce.", lambda p: loss_ce(p, ids, c)),
        ("loss_kl_all_positions", "grad_kl.", lambda p: loss_kl(p, ids, c, teacher_logits)),
        ("loss_align", "grad_align.", lambda p: loss_align(p, ids, c, teacher)),
    ):
        out[name], gradients = value_and_grad(function)({**p, **bridges} if name == "loss_align" else p)
        # no path, no gradient: what alignment cannot reach is absent, not zero
        out.update({prefix + k: v for k, v in gradients.items() if numpy.any(v)})
    out["loss_soft_ce_all_positions"] = out["loss_kl_all_positions"] + entropy
    return out


def read_case(path):
    c, g = json.load(open(path + ".json")), load(path + ".safetensors")
    double = {k: v.astype(numpy.float64) for k, v in g.items() if k != "input_ids"}
    p = {k[len("param.") :]: v for k, v in double.items() if k.startswith("param.")}
    bridges = {k: v for k, v in double.items() if k.startswith("bridge.")}
    teacher, t = [], 0
    while f"teacher.{t}.q" in double:
        teacher.append({"q": double[f"teacher.{t}.q"], "k": double[f"teacher.{t}.k"]})
        t += 1
    return c, g, p, bridges, teacher, double["teacher_logits"]


def check(path):
    c, g, p, bridges, teacher, teacher_logits = read_case(path)
    out = evaluate(p, bridges, g["input_ids"], c, teacher_logits, teacher)
    names = {k for k in g if k.startswith(("grad_", "loss_", "act.")) or k == "logits"}
    largest = 0.0
    for name in sorted(names | set(out)):
        if name not in g or name not in out:
            side = "the file" if name in g else "the reference"
            size = numpy.linalg.norm(g[name] if name in g else out[name])
            print(f"{name}: only in {side}, norm {size:.1e}")
            continue
        expected = g[name].astype(numpy.float64)
        distance = numpy.linalg.norm(out[name] - expected) / max(numpy.linalg.norm(expected), 1e-30)
        largest = max(largest, distance)
    print(f"{len(names)} tensors, largest distance {largest:.2e}")


def draw_case(c, batch, teacher_layers, q_width, k_width, hidden, bridge_layers, seed):
    random = numpy.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (random.standard_normal(shape) * scale).astype(numpy.float32).astype(numpy.float64)

    D, H, G, N, K, V = (c[k] for k in ("d_model", "n_v_heads", "n_qk_heads", "d_state", "d_conv", "vocab_size"))
    channels, F, L = D + 2 * G * N, c.get("intermediate_size", 4 * D), c["seq_len"]
    p = {"backbone.embedding.weight": normal(V, D, scale=0.5)}

    def add_norm(name):
        p[name + ".weight"], p[name + ".bias"] = 1 + normal(D, scale=0.1), normal(D, scale=0.1)

    for l in range(c["n_layer"]):
        name = f"backbone.layers.{l}."
        add_norm(name + "input_layernorm")
        p[name + "mixer.in_proj.weight"] = normal(channels + D + H, D, scale=D**-0.5)
        p[name + "mixer.conv1d.weight"] = normal(channels, 1, K, scale=K**-0.5)
        p[name + "mixer.conv1d.bias"] = normal(channels, scale=0.1)
        p[name + "mixer.D"] = 1 + normal(H, scale=0.2)
        p[name + "mixer.z_bias"] = normal(D, scale=0.3)
        p[name + "mixer.out_proj.weight"] = normal(D, D, scale=0.5 * D**-0.5)
        p[name + "mlp.fc1.weight"], p[name + "mlp.fc1.bias"] = normal(F, D, scale=D**-0.5), normal(F, scale=0.1)
        p[name + "mlp.fc2.weight"], p[name + "mlp.fc2.bias"] = normal(D, F, scale=0.5 * F**-0.5), normal(D, scale=0.1)
    add_norm("backbone.final_layernorm")
    p["lm_head.weight"], p["lm_head.bias"] = normal(V, D, scale=D**-0.5), normal(V, scale=0.1)
    bridges = {}
    for l in range(c["n_layer"]):
        for which, width in (("B", k_width), ("C", q_width)):
            widths = [G * N] + [hidden] * (bridge_layers - 1) + [width]
            for i in range(bridge_layers):
                bridges[f"bridge.{which}.{l}.{2 * i}.weight"] = normal(widths[i + 1], widths[i], scale=widths[i] ** -0.5)
                bridges[f"bridge.{which}.{l}.{2 * i}.bias"] = normal(widths[i + 1], scale=0.1)
    ids = random.integers(0, V, (batch, L), dtype=numpy.int32)
    teacher = [{"q": normal(batch, L, q_width), "k": normal(batch, L, k_width)} for _ in range(teacher_layers)]
    return p, bridges, ids, teacher, normal(batch, L, V, scale=2.0)


# name: sizes, then batch, teacher layers, width of Q, of K, hidden width and layers of the bridge
CASES = {
    "phi_mamba_odd_heads": (dict(vocab_size=61, d_model=30, n_layer=3, d_state=7, n_v_heads=3, n_qk_heads=1, d_conv=3,
                                 expand=1, seq_len=71), 3, 3, 20, 12, 17, 2),
    "phi_mamba_groups": (dict(vocab_size=97, d_model=48, n_layer=1, d_state=16, n_v_heads=6, n_qk_heads=2, d_conv=2,
                              expand=1, seq_len=130, intermediate_size=56), 1, 1, 32, 32, 32, 3),
    "phi_mamba_one_head": (dict(vocab_size=11, d_model=5, n_layer=2, d_state=3, n_v_heads=1, n_qk_heads=1, d_conv=5,
                                expand=1, seq_len=2), 5, 2, 9, 9, 4, 1),
    "phi_mamba_layers": (dict(vocab_size=40, d_model=24, n_layer=5, d_state=8, n_v_heads=4, n_qk_heads=4, d_conv=1,
                              expand=1, seq_len=65), 2, 3, 24, 24, 24, 2),
    "phi_mamba_wide_state": (dict(vocab_size=130, d_model=64, n_layer=2, d_state=64, n_v_heads=4, n_qk_heads=2, d_conv=4,
                                  expand=1, seq_len=96), 4, 2, 64, 32, 48, 2),
}


def write(directory):
    os.makedirs(directory, exist_ok=True)
    for seed, (name, (c, batch, *sizes)) in enumerate(CASES.items()):
        p, bridges, ids, teacher, teacher_logits = draw_case(c, batch, *sizes, seed)
        tensors = evaluate(p, bridges, ids, c, teacher_logits, teacher)
        tensors.update({"param." + k: v for k, v in p.items()})
        tensors.update(bridges)
        for t, taps in enumerate(teacher):
            tensors[f"teacher.{t}.q"], tensors[f"teacher.{t}.k"] = taps["q"], taps["k"]
        tensors.update(input_ids=ids, teacher_logits=teacher_logits)
        save(os.path.join(directory, name + ".safetensors"), tensors)
        with open(os.path.join(directory, name + ".json"), "w") as file:
            json.dump({**c, "teacher_dim": sizes[1]}, file)
        print(name, "loss_ce", float(tensors["loss_ce"]), "loss_align", float(tensors["loss_align"]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", metavar="CASE", help="path of a case without its suffix")
    parser.add_argument("--write", metavar="DIR", help="directory to write cases to")
    arguments = parser.parse_args()
    if arguments.check:
        check(arguments.check)
    if arguments.write:
        write(arguments.write)
