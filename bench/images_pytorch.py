#!/usr/bin/env python3
"""images_pytorch.py - the steps of bench_images in Pillow, torchvision and timm, for comparison on the same processor.

    python3 images_pytorch.py FOLDER [--size S] [--batch B] [--threads T] [--seconds X]

FOLDER holds folders of classes. One thread and processor time for the single steps, as bench_images has it; the loader is
torch's DataLoader with T worker processes, by the clock. Needs torch, torchvision, timm."""
import argparse
import time

import torch
import torchvision
from timm.data import Mixup, create_transform
from torch.utils.data import DataLoader


def rate(seconds, prepare, run):
    spent, n = 0.0, 0
    while spent < seconds or n < 8:
        given = prepare(n)
        start = time.process_time()
        run(given)
        spent += time.process_time() - start
        n += 1
    return n / spent


def loader_rate(data, options, mix):
    loader = DataLoader(data, options.batch, shuffle=True, drop_last=True, num_workers=options.threads, persistent_workers=True)
    n, start = -1, 0.0
    while n < 0 or time.time() - start < options.seconds:
        for batch in loader:
            batch = mix(*batch) if mix else batch
            n += 1
            if n == 0:  # the workers are there now
                start = time.time()
    return n * options.batch / (time.time() - start)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = torchvision.datasets.ImageFolder(options.folder)
    load = lambda n: data.loader(data.samples[n % len(data)][0])
    evaluate = create_transform(options.size, interpolation="bicubic", crop_pct=0.875)
    augment = create_transform(options.size, is_training=True, auto_augment="rand-m9-mstd0.5-inc1", color_jitter=0.3,
                               interpolation="bicubic", re_prob=0.25, re_mode="pixel")
    mix = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=len(data.classes))
    print(f"torch {torch.__version__}, torchvision {torchvision.__version__}, {len(data)} images")
    for name, prepare, run in (("decode", lambda n: n, load), ("resize, crop, normalise", load, evaluate),
                               ("augment (DeiT)", load, augment)):
        print(f"  {name:34} {rate(options.seconds, prepare, run):8.0f} images/s per core")
    for name, transform, mixed in (("DataLoader, evaluation", evaluate, None), ("DataLoader, training", augment, mix)):
        data.transform = transform
        mixed_cpu = (lambda x, y: mixed(x, y)) if mixed else None
        print(f"  {name:34} {loader_rate(data, options, mixed_cpu):8.0f} images/s by the clock")


if __name__ == "__main__":
    main()
