"""Ids of cab's tokenizers against those of the `tokenizers` library, on a megabyte of mixed text.

    pip install tokenizers
    python3 dev/tokenizers/compare.py [TOKENIZER.json ...]

Without arguments: the pipelines of families whose tokenizer.json is public, each with a small vocabulary that is trained here on the text itself, and every
tokenizer.json that is found in examples/ and ../shared/. Needs build/release/libcab.a (cmake --build --preset release)."""

import glob
import json
import os
import random
import subprocess
import sys
import tempfile

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SIZE = 1 << 20
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def documents():
    """Stories, code, markdown, tables, and characters of every block of Unicode, in documents of some thousand bytes."""
    texts = []
    for pattern in ("examples/tales/val.txt", "src/*/*.c", "src/ops/cuda/*.cu", "docs/*.md", "dev/*.md", "cmake/*"):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
            if os.path.isfile(path):
                texts.append(open(path, encoding="utf-8").read())
    dice = random.Random(1)
    blocks = [range(0x20, 0x7F), range(0xA0, 0x250), range(0x300, 0x370), range(0x370, 0x600), range(0x900, 0xE00),
              range(0x1E00, 0x2100), range(0x2000, 0x2070), range(0x3040, 0x3100), range(0x4E00, 0x5200), range(0xAC00, 0xAD00),
              range(0xFF00, 0xFFEF), range(0x1F300, 0x1F650), range(0x1D400, 0x1D800), range(9, 14)]
    for _ in range(400):
        words = []
        for _ in range(dice.randrange(80)):
            block = dice.choice(blocks)
            words.append("".join(chr(dice.choice(block)) for _ in range(dice.randrange(1, 9))))
        texts.append(dice.choice([" ", "  ", "\n", "", "\r\n", "\t", " \n "]).join(words))
    texts += ["", " ", "  ", "\n", "\n\n  x", "a  b   c    d", "1234567 12,345.67 0x1F 1e-9", "it's I'LL we'Ve 'tis",
              "e\u0301 \u00e9 \u212b \ufb01", "\u2581 \u2581x", "<s> </s> <unk> <0x41> [INST] <|endoftext|> <|im_end|>"]
    pieces = []
    for text in texts:
        text = text.replace("\0", "")
        while text:
            n = dice.randrange(1, 4000)
            pieces.append(text[:n])
            text = text[n:]
    dice.shuffle(pieces)
    chosen, used = [], 0
    for piece in pieces:
        if used < SIZE:
            chosen.append(piece)
            used += len(piece.encode())
    return chosen


def byte_level(texts, pre, normalizer=None, added=(), **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre
    t.decoder = decoders.ByteLevel()
    if normalizer:
        t.normalizer = normalizer
    t.train_from_iterator(texts[::2], trainers.BpeTrainer(vocab_size=3000, show_progress=False, special_tokens=["<|endoftext|>"],
                                                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.add_tokens(list(added))
    return t.to_str()


def pieces(texts, normalizer, pre, added=()):
    """SentencePiece's BPE with byte fallback: merges learnt on words, then the family's own pipeline around them."""
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    t.train_from_iterator(texts[::2], trainers.BpeTrainer(vocab_size=3000, limit_alphabet=300, show_progress=False))
    learnt = json.loads(t.to_str())["model"]
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for i in range(256):
        vocab["<0x%02X>" % i] = len(vocab)
    for token in sorted(learnt["vocab"], key=learnt["vocab"].get):
        vocab.setdefault(token, len(vocab))
    special = [{"id": vocab[s], "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
                "special": True} for s in ("<unk>", "<s>", "</s>")]
    for word in added:
        vocab[word] = len(vocab)
        special.append(dict(special[0], id=vocab[word], content=word))
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": normalizer,
        "pre_tokenizer": pre, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
                  "vocab": vocab, "merges": learnt["merges"]}})


def families(texts):
    split = lambda pattern: pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    digits = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                      pre_tokenizers.ByteLevel(add_prefix_space=False)])
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    legacy = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"}, replace]}
    metaspace = lambda scheme: {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
    yield "llama-3", byte_level(texts, split(LLAMA3), ignore_merges=True)
    yield "qwen2", byte_level(texts, split(QWEN2), normalizers.NFC())
    yield "gpt-neox", byte_level(texts, plain, normalizers.NFC(), [" " * n for n in range(24, 1, -1)])
    yield "opt", byte_level(texts, plain)
    yield "starcoder2, smollm", byte_level(texts, digits)
    yield "mistral v1, llama-2", pieces(texts, legacy, None)
    yield "mistral v3", pieces(texts, None, metaspace("first"), ["[INST]", "[/INST]"])
    yield "mistral, always", pieces(texts, None, metaspace("always"))
    yield "gemma", pieces(texts, replace, {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
                                           "invert": False})


def compare(name, path, texts, encode, data):
    reference = Tokenizer.from_file(path)
    run = subprocess.run([encode, path, data], capture_output=True, text=True)
    if run.returncode:
        print(f"{name:28} {run.stderr.strip()}")
        return False
    lines = run.stdout.split("\n")
    wrong = total = 0
    for text, line in zip(texts, lines):
        want = reference.encode(text, add_special_tokens=False).ids
        got = [int(i) for i in line.split()]
        total += len(want)
        if want != got:
            wrong += 1
            if wrong <= 3:
                at = next((k for k, (a, b) in enumerate(zip(want, got)) if a != b), min(len(want), len(got)))
                print(f"    {text[:60]!r}... at token {at}: {[reference.id_to_token(i) for i in want[at:at + 6]]}, "
                      f"cab has {[reference.id_to_token(i) for i in got[at:at + 6]]}")
    print(f"{name:28} {len(texts)} documents, {total} tokens: {wrong or 'none'} differ")
    return wrong == 0


def main():
    texts = [t for t in documents() if t]
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        encode, data = os.path.join(scratch, "encode"), os.path.join(scratch, "text")
        subprocess.run(["cc", "-std=gnu17", "-O1", "-I" + os.path.join(ROOT, "src"), "-I" + os.path.join(ROOT, "include"),
                        "-I/usr/include/json-c", os.path.join(ROOT, "dev/tokenizers/encode.c"), "-o", encode,
                        os.path.join(ROOT, "build/release/libcab.a"), "-ljson-c", "-larchive", "-lpcre2-8", "-lutf8proc",
                        "-lgomp", "-lm", "-lz"], check=True)
        with open(data, "wb") as f:
            f.write(b"\0".join(t.encode() for t in texts))
        if len(sys.argv) > 1:
            found = [(p, p) for p in sys.argv[1:]]
        else:
            found = [(os.path.relpath(p, ROOT), p) for pattern in ("examples/*/teacher/tokenizer.json", "../shared/*/*/tokenizer.json",
                     "../shared/golden/*_tokenizer.json") for p in sorted(glob.glob(os.path.join(ROOT, pattern)))]
            for name, text in families(texts):
                path = os.path.join(scratch, "tokenizer.json")
                open(path, "w").write(text)
                good = compare(name, path, texts, encode, data) and good
        for name, path in found:
            good = compare(name, path, texts, encode, data) and good
    sys.exit(0 if good else 1)


main()
