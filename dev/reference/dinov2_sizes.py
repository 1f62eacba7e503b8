#!/usr/bin/env python3
"""dinov2_sizes.py - DINOv2, with registers and without, on images of other sizes than it was trained on: cab against transformers.

    python3 dev/reference/dinov2_sizes.py build/release/cab      # random models, a picture of noise of every size, 5 classes
    python3 dev/reference/dinov2_sizes.py --weights              # what tests/models/test_vision.c expects of a grid of 3

Needs torch and transformers.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy
import torch
from transformers import (
    Dinov2Config,
    Dinov2ForImageClassification,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersForImageClassification,
)

PATCH, TRAINED, SIZES = 14, 56, (14, 28, 42, 56, 70, 126)


def model(registers, directory):
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, mlp_ratio=2, image_size=TRAINED, patch_size=PATCH, num_labels=5)
    torch.manual_seed(1)
    if registers:
        m = Dinov2WithRegistersForImageClassification(Dinov2WithRegistersConfig(num_register_tokens=registers, **sizes))
    else:
        m = Dinov2ForImageClassification(Dinov2Config(**sizes))
    with torch.no_grad():
        for p in m.parameters():
            p.copy_(0.3 * torch.randn_like(p))
        m.classifier.weight *= 0.2
    m.eval().save_pretrained(directory)
    json.dump(
        {"image_processor_type": "BitImageProcessor", "do_resize": False, "do_center_crop": False, "do_rescale": True, "do_normalize": True,
         "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "size": {"shortest_edge": TRAINED}},
        open(os.path.join(directory, "preprocessor_config.json"), "w"))
    return m


def write_png(path, picture):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = picture.shape
    rows = b"".join(b"\0" + row.tobytes() for row in picture)
    with open(path, "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)))
        out.write(chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def compare(cab):
    worst = 0
    for registers in (0, 1, 4):
        with tempfile.TemporaryDirectory() as directory:
            m = model(registers, directory)
            for size in SIZES:
                picture = numpy.random.default_rng(size).integers(0, 256, (size, size, 3), dtype=numpy.uint8)
                path = os.path.join(directory, "noise.png")
                write_png(path, picture)
                pixels = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255 * 2 - 1
                with torch.no_grad():
                    expected = torch.softmax(m(pixels).logits, -1)[0].tolist()
                out = subprocess.run([cab, "classify", directory, path, "-k", "5", "--image-size", str(size), "--precision", "fp32", "-q", "--json"],
                                     check=True, capture_output=True, text=True).stdout
                got = {c["class"]: c["probability"] for c in json.loads(out)["classes"]}
                apart = max(abs(got[i] - expected[i]) for i in range(5))
                worst = max(worst, apart)
                print(f"{registers} registers, {size:3} px: {apart:.1e} apart, likeliest {max(expected):.3f}")
    sys.exit(worst > 1e-5)


def weights():
    for to in (1, 2, 4, 5):
        w = torch.nn.functional.interpolate(torch.eye(3)[:, None, None, :], size=(1, to), mode="bicubic", align_corners=False, antialias=True)
        print(to, [[round(x, 7) for x in row] for row in w[:, 0, 0, :].T.tolist()])


if sys.argv[1:] == ["--weights"]:
    weights()
else:
    compare(*sys.argv[1:])
