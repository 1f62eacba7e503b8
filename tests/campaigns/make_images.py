#!/usr/bin/env python3
"""make_images.py DIRECTORY - a ViT of two layers with random weights, and pictures of two classes, for runs that take a second.

Writes DIRECTORY/vit (config.json, preprocessor_config.json, model.safetensors) and DIRECTORY/{train,val}/{dark,light}/*.png."""
import json
import os
import random
import struct
import sys
import zlib

SIDE, PATCH, WIDTH, MLP, LAYERS, HEADS = 32, 8, 16, 32, 2, 2
IMAGES = {"train": 24, "val": 6}


def png(path, value, noise):
    rows = b""
    for _ in range(SIDE):
        rows += b"\0" + bytes(max(0, min(255, value + noise.randint(-40, 40))) for _ in range(3 * SIDE))

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def shapes():
    yield "vit.embeddings.cls_token", (1, 1, WIDTH)
    yield "vit.embeddings.position_embeddings", (1, (SIDE // PATCH) ** 2 + 1, WIDTH)
    yield "vit.embeddings.patch_embeddings.projection.weight", (WIDTH, 3, PATCH, PATCH)
    yield "vit.embeddings.patch_embeddings.projection.bias", (WIDTH,)
    linears = [("attention.attention." + n, WIDTH, WIDTH) for n in ("query", "key", "value")]
    linears += [("attention.output.dense", WIDTH, WIDTH), ("intermediate.dense", MLP, WIDTH), ("output.dense", WIDTH, MLP)]
    for layer in range(LAYERS):
        prefix = f"vit.encoder.layer.{layer}."
        for name, rows, columns in linears:
            yield prefix + name + ".weight", (rows, columns)
            yield prefix + name + ".bias", (rows,)
        for name in ("layernorm_before", "layernorm_after"):
            yield prefix + name + ".weight", (WIDTH,)
            yield prefix + name + ".bias", (WIDTH,)
    yield "vit.layernorm.weight", (WIDTH,)
    yield "vit.layernorm.bias", (WIDTH,)
    yield "classifier.weight", (2, WIDTH)
    yield "classifier.bias", (2,)


def model(directory):
    header, body, noise = {}, b"", random.Random(1)
    for name, shape in shapes():
        count = 1
        for size in shape:
            count *= size
        norm = "norm" in name and name.endswith("weight")
        data = struct.pack(f"<{count}f", *(1 + 0.1 * noise.gauss(0, 1) if norm else 0.2 * noise.gauss(0, 1) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    with open(os.path.join(directory, "model.safetensors"), "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + body)
    config = {"architectures": ["ViTForImageClassification"], "model_type": "vit", "hidden_size": WIDTH, "hidden_act": "gelu",
              "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": MLP, "image_size": SIDE,
              "patch_size": PATCH, "num_channels": 3, "qkv_bias": True, "layer_norm_eps": 1e-12,
              "id2label": {"0": "dark", "1": "light"}, "label2id": {"dark": 0, "light": 1}}
    reader = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "do_normalize": True,
              "size": {"height": SIDE, "width": SIDE}, "resample": 3, "rescale_factor": 1 / 255,
              "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    for name, value in (("config.json", config), ("preprocessor_config.json", reader)):
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            json.dump(value, file)


def main():
    root, noise = sys.argv[1], random.Random(2)
    os.makedirs(os.path.join(root, "vit"))
    model(os.path.join(root, "vit"))
    for part, count in IMAGES.items():
        for name, value in (("dark", 70), ("light", 180)):
            os.makedirs(os.path.join(root, part, name))
            for i in range(count):
                png(os.path.join(root, part, name, f"{i}.png"), value, noise)


main()
