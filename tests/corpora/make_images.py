#!/usr/bin/env python3
"""make_images.py - writes tests/corpora/images: small generated pictures of every kind that the decoders know, and
expected.tsv with what Pillow makes of them; and tests/fuzz/corpus/fuzz_image and fuzz_archive, where fuzzing starts. Run once, with Pillow 13 (the order of its two passes of resampling changed
there) and numpy:  python3 tests/corpora/make_images.py

Lines of expected.tsv; hash is FNV-1a over the RGB bytes:
  decode    file  width height hash                   the picture upright, as RGB
  reduce    file  min_side  width height hash         decoded at a reduced size
  resample  x y width height  filter  width height hash      a part of base.png scaled (0 nearest, 1 bilinear, 2 bicubic)
  adjust    name value filter  hash                   base.png after one operation of augmentation
  refuse    file  words of the error
"""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

OUT = Path(__file__).parent / "images"
SEEDS = Path(__file__).parent.parent / "fuzz" / "corpus"
FILL = (124, 116, 104)
lines = []


def fnv(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"


def row(*fields):
    lines.append("\t".join(str(f) for f in fields))


def picture(width, height):
    """Gradients, edges, flat parts, a little noise: something of all that pictures have."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([255 * x / width, 255 * y / height, 128 + 100 * np.sin(x / 3 + y / 5)], -1)
    image = Image.fromarray(np.clip(pixels + random.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 8, height // 4, width // 2, height // 2), fill=(250, 30, 20))
    draw.ellipse((width // 2, height // 3, width - 4, height - 6), fill=(10, 40, 200), outline=(255, 255, 255))
    return image


def decoded(name, **options):
    image = Image.open(OUT / name)
    return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def keep(name, image, **options):
    image.save(OUT / name, **options)
    pixels = decoded(name)
    row("decode", name, pixels.shape[1], pixels.shape[0], fnv(pixels.tobytes()))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, scanlines, interlace=0):
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(scanlines, 9)) + chunk(b"IEND", b"")


def adam7(pixels):
    out = b""
    for x0, y0, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)):
        for line in pixels[y0::dy, x0::dx]:
            if line.size:
                out += b"\0" + line.tobytes()
    return out


def kinds(base):
    keep("base.png", base)
    keep("base.jpg", base, quality=85)
    keep("full-chroma.jpg", base, quality=70, subsampling=0)
    keep("progressive.jpg", base, quality=60, progressive=True)
    keep("gray.jpg", base.convert("L"))
    keep("cmyk.jpg", base.convert("CMYK"))
    keep("gray.png", base.convert("L"))
    keep("bilevel.png", base.convert("1"))
    keep("palette8.png", base.quantize(150))
    keep("palette4.png", base.quantize(11), bits=4)
    keep("palette2.png", base.quantize(4), bits=2)
    keep("palette-transparent.png", base.quantize(50), transparency=2)
    alpha = base.copy()
    alpha.putalpha(base.convert("L"))
    keep("rgba.png", alpha)
    keep("gray-alpha.png", alpha.convert("LA"))
    pixels = np.asarray(base)
    height, width = pixels.shape[:2]
    deep = pixels.astype(np.uint16) * 257 - np.minimum(pixels, 3)
    lines16 = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    (OUT / "deep.png").write_bytes(png(width, height, 16, 2, lines16))
    row("decode", "deep.png", width, height, fnv((deep >> 8).astype(np.uint8).tobytes()))
    (OUT / "interlaced.png").write_bytes(png(width, height, 8, 2, adam7(pixels), 1))
    row("decode", "interlaced.png", width, height, fnv(decoded("interlaced.png").tobytes()))
    (OUT / "png-inside.jpg").write_bytes((OUT / "gray.png").read_bytes())
    row("decode", "png-inside.jpg", width, height, fnv(decoded("gray.png").tobytes()))
    small = base.resize((9, 6))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[274] = orientation
        keep(f"turned{orientation}.jpg", small, exif=exif, quality=95)
        keep(f"turned{orientation}.png", small, exif=exif)


def reductions(base):
    for side in (47, 24, 23, 12, 5, 1):
        image = Image.open(OUT / "base.jpg")
        scale = max(s for s in (1, 2, 4, 8) if s == 1 or -(-47 // s) >= side)
        image.draft("RGB", (61 // scale, 47 // scale))
        pixels = np.asarray(image.convert("RGB"))
        row("reduce", "base.jpg", side, pixels.shape[1], pixels.shape[0], fnv(pixels.tobytes()))


def resamples(base):
    filters = (Image.NEAREST, Image.BILINEAR, Image.BICUBIC)
    boxes = ((0, 0, 61, 47), (5, 3, 40, 41), (60, 46, 1, 1), (0, 10, 61, 1), (30, 0, 1, 47), (7, 1, 20, 45))
    sizes = ((61, 47), (24, 24), (100, 13), (13, 100), (1, 1), (130, 99), (60, 20), (50, 46))
    for box in boxes:
        for size in sizes:
            for code, method in enumerate(filters):
                x, y, w, h = box
                pixels = np.asarray(base.crop((x, y, x + w, y + h)).resize(size, method))
                row("resample", *box, code, *size, fnv(pixels.tobytes()))


def adjustments(base):
    def affine(*matrix):
        return lambda method: base.transform(base.size, Image.AFFINE, matrix, resample=method, fillcolor=FILL)

    def table(f):
        return base.point([f(i) for i in range(256)] * 3)

    for name, make in (("brightness", ImageEnhance.Brightness), ("contrast", ImageEnhance.Contrast),
                       ("colour", ImageEnhance.Color), ("sharpness", ImageEnhance.Sharpness)):
        for factor in (0.0, 0.1, 0.73, 1.0, 1.31, 1.9):
            row("adjust", name, factor, 0, fnv(make(base).enhance(factor).tobytes()))
    row("adjust", "autocontrast", 0, 0, fnv(ImageOps.autocontrast(base).tobytes()))
    row("adjust", "equalize", 0, 0, fnv(ImageOps.equalize(base).tobytes()))
    row("adjust", "invert", 0, 0, fnv(ImageOps.invert(base).tobytes()))
    row("adjust", "mirror", 0, 0, fnv(ImageOps.mirror(base).tobytes()))
    for bits in (0, 1, 3, 8):  # Pillow knows 1 to 8; timm's increasing variant can ask for 0
        row("adjust", "posterize", bits, 0, fnv(table(lambda v: v & ~(2 ** (8 - bits) - 1)).tobytes()))
    for threshold in (0, 26, 256):
        row("adjust", "solarize", threshold, 0, fnv(ImageOps.solarize(base, threshold).tobytes()))
    for added in (0, 99):
        row("adjust", "solarize_add", added, 0, fnv(table(lambda v: min(255, v + added) if v < 128 else v).tobytes()))
    for code, method in enumerate((Image.NEAREST, Image.BILINEAR, Image.BICUBIC)):
        for f in (-0.27, 0.0, 0.3):
            row("adjust", "shear_x", f, code, fnv(affine(1, f, 0, 0, 1, 0)(method).tobytes()))
            row("adjust", "shear_y", f, code, fnv(affine(1, 0, 0, f, 1, 0)(method).tobytes()))
        for f in (-24.7, 0.5, 3.0):
            row("adjust", "translate_x", f, code, fnv(affine(1, 0, f, 0, 1, 0)(method).tobytes()))
            row("adjust", "translate_y", f, code, fnv(affine(1, 0, 0, 0, 1, f)(method).tobytes()))
        for f in (-30.0, 0.01, 11.3, 27.0):
            if code > 0:  # at the edges of pixels, the nearest one depends on Pillow's fixed point
                row("adjust", "rotate", f, code, fnv(base.rotate(f, resample=method, fillcolor=FILL).tobytes()))


def bad(base):
    def refuse(name, data, words):
        (OUT / name).write_bytes(data)
        row("refuse", name, words)

    jpeg, whole = (OUT / "base.jpg").read_bytes(), (OUT / "base.png").read_bytes()
    refuse("cut.jpg", jpeg[: len(jpeg) // 2], "truncated")
    refuse("header-only.jpg", jpeg[:4], "not a readable JPEG")
    refuse("cut.png", whole[: len(whole) // 2], "truncated")
    refuse("damaged.png", whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], "not a readable PNG")
    refuse("empty.jpg", b"", "is empty")
    refuse("text.jpg", b"This is a text.\n", "neither a JPEG nor a PNG")
    refuse("page.png", b"<html></html>\n", "HTML")
    refuse("gif.jpg", b"GIF89a" + bytes(20), "is a GIF")
    refuse("bomb.png", png(100000, 100000, 8, 2, bytes(1000)), "100000 x 100000 pixels")
    sof = jpeg.index(b"\xff\xc0")
    refuse("bomb.jpg", jpeg[: sof + 5] + struct.pack(">HH", 65000, 65000) + jpeg[sof + 9:], "65000 x 65000 pixels")
    progressive = (OUT / "progressive.jpg").read_bytes()
    last = progressive.rindex(b"\xff\xda")
    refuse("scans.jpg", progressive[:-2] + progressive[last:-2] * 250 + b"\xff\xd9", "more than 200 scans")


def tar_of(files, mode):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as archive:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def zip_of(files, method):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return stream.getvalue()


def seeds():
    images, archives = SEEDS / "fuzz_image", SEEDS / "fuzz_archive"
    images.mkdir(parents=True, exist_ok=True)
    archives.mkdir(parents=True, exist_ok=True)
    for name in ("turned6.jpg", "turned6.png", "progressive.jpg", "cmyk.jpg", "gray.jpg", "full-chroma.jpg", "bilevel.png",
                 "palette4.png", "palette-transparent.png", "gray-alpha.png", "gray.png", "cut.jpg"):
        for first in (0, 9):  # at full and at reduced size
            (images / f"{name}-{first}").write_bytes(bytes([first]) + (OUT / name).read_bytes())
    files = [(f"train/{c}/{i}.png", (OUT / f"turned{i}.png").read_bytes()) for i, c in ((1, "cat"), (2, "dog"))]
    files.append(("train/notes.txt", b"text"))
    (archives / "targz").write_bytes(gzip.compress(tar_of(files, "w:"), mtime=0))
    for mode in ("", "xz", "bz2"):
        (archives / f"tar{mode}").write_bytes(tar_of(files, f"w:{mode}"))
    (archives / "deflated.zip").write_bytes(zip_of(files, zipfile.ZIP_DEFLATED))
    (archives / "stored.zip").write_bytes(zip_of(files, zipfile.ZIP_STORED))
    named = [("train/caf\u00e9/na\u00efve.png", files[0][1]), ("train/zoo/x.png", files[1][1])]
    (OUT / "utf8-names.tar").write_bytes(tar_of(named, "w:"))
    (OUT / "utf8-names.zip").write_bytes(zip_of(named, zipfile.ZIP_DEFLATED))
    (archives / "classes.tsv").write_text("label\tname\tteacher\twords\n0\tcat\t281\ttabby\n1\tdog\t207\n")


def main():
    OUT.mkdir(exist_ok=True)
    base = picture(61, 47)
    kinds(base)
    base = Image.open(OUT / "base.png").convert("RGB")
    reductions(base)
    resamples(base)
    adjustments(base)
    bad(base)
    seeds()
    (OUT / "expected.tsv").write_text("\n".join(lines) + "\n")


main()
