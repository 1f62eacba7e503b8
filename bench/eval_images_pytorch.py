#!/usr/bin/env python3
"""eval_images_pytorch.py - cab eval on images beside timm in eager fp32, one after the other on the same processors.

    python3 eval_images_pytorch.py MODEL ARCHIVE --classes FILE --cab PATH [--bench PATH] [--images N] [--threads T] [--batch B]

MODEL is a directory with timm's config.json and model.safetensors, ARCHIVE a tar of folders of classes, FILE a class map. N
images, evenly spaced over the archive, go through both; what is counted begins when the archive has been read into memory,
and contains decoding. --bench names bench_images, for decoding alone. Needs torch, torchvision, timm, safetensors."""
import argparse
import io
import json
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform
from torch.utils.data import DataLoader, Dataset, Subset


class Pictures(Dataset):
    def __init__(self, files, transform):
        self.files, self.transform = files, transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        data, label = self.files[i]
        return self.transform(Image.open(io.BytesIO(data)).convert("RGB")), label


def read_classes(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    rows = [row for row in rows if row[0].isdigit()]
    return {row[1]: (int(row[0]), int(row[2])) for row in rows}


def read_images(path, classes, wanted):
    """[(name, bytes, label)], in the order of their names."""
    with tarfile.open(path) as archive:
        found = [(m.name, archive.extractfile(m).read(), classes[m.name.split("/")[-2]][0]) for m in archive
                 if m.isfile() and m.name.lower().endswith((".jpg", ".jpeg", ".png"))]
    found.sort()
    wanted = min(wanted or len(found), len(found))
    return [found[i * len(found) // wanted] for i in range(wanted)]


def evaluate(model, pictures, workers, columns, options):
    """images/s, top-1 and top-5 in percent"""
    first, fifth, start = 0, 0, time.perf_counter()
    for pixels, labels in DataLoader(pictures, options.batch, num_workers=workers):
        right = model(pixels)[:, columns].topk(5).indices == labels[:, None]
        first, fifth = first + int(right[:, 0].sum()), fifth + int(right.sum())
    n = len(pictures)
    return n / (time.perf_counter() - start), 100 * first / n, 100 * fifth / n


def timm_rates(options, model, pictures, columns):
    """images/s of decoding alone, of the model alone; the number of loading processes that is fastest; evaluate() with it"""
    start = time.perf_counter()
    for _ in DataLoader(pictures, options.batch, num_workers=options.threads):
        pass
    decoding = len(pictures) / (time.perf_counter() - start)
    batch = torch.randn(options.batch, 3, *pictures.transform_size)
    with torch.inference_mode():
        model(batch)
        start, n = time.perf_counter(), 0
        while time.perf_counter() - start < 5:
            model(batch)
            n += options.batch
        alone = n / (time.perf_counter() - start)
        part = Subset(pictures, range(min(512, len(pictures))))
        _, workers = max((evaluate(model, part, workers, columns, options)[0], workers) for workers in {0, 1, options.threads})
        return decoding, alone, workers, *evaluate(model, pictures, workers, columns, options)


def cab_rate(options, images, precision):
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as listing:
        listing.writelines(f"{options.archive.resolve()}/{name},{name.split('/')[-2]}\n" for name, _, _ in images)
        listing.flush()
        command = [options.cab, "eval", options.model, "--data", listing.name, "--classes", options.classes, "--json", "--quiet",
                   "--precision", precision, "--batch", options.batch, "--threads", options.threads, "--on-error", "skip"]
        done = subprocess.run([str(word) for word in command], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--classes", type=Path, required=True)
    parser.add_argument("--cab", type=Path, required=True)
    parser.add_argument("--bench", type=Path)
    parser.add_argument("--images", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config = json.loads((options.model / "config.json").read_text())
    cfg = config["pretrained_cfg"]
    model = timm.create_model(config["architecture"], num_classes=config["num_classes"]).eval()
    model.load_state_dict(load_file(options.model / "model.safetensors"))
    transform = create_transform(cfg["input_size"], interpolation=cfg["interpolation"], mean=cfg["mean"], std=cfg["std"],
                                 crop_pct=cfg["crop_pct"])
    classes = read_classes(options.classes)
    columns = torch.tensor([teacher for _, teacher in sorted(classes.values())])
    images = read_images(options.archive, classes, options.images)
    pictures = Pictures([(data, label) for _, data, label in images], transform)
    pictures.transform_size = cfg["input_size"][1:]
    print(f"torch {torch.__version__}, timm {timm.__version__}; {len(images)} images, {options.threads} threads, batches of {options.batch}")
    results = {p: cab_rate(options, images, p) for p in ("bf16", "fp32")}
    decoding, alone, workers, together, top1, top5 = timm_rates(options, model, pictures, columns)
    print(f"timm  fp32   {together:7.1f} images/s with {workers} loading processes   top-1 {top1:.2f} %   top-5 {top5:.2f} %"
          f"   (decoding alone {decoding:.0f}, the model alone {alone:.1f} images/s)")
    for precision, r in results.items():
        print(f"cab   {precision}   {r['images_per_second']:7.1f} images/s, {r['images_per_second'] / together:.2f} times as fast"
              f"          top-1 {100 * r['top1']:.2f} %   top-5 {100 * r['top5']:.2f} %")
    if options.bench:
        subprocess.run([options.bench, options.archive, "--batch", str(options.batch), "--threads", str(options.threads)], check=True)


if __name__ == "__main__":
    main()
