"""Writes tests/data/tokenizer_variants.jsonl: small tokenizers of every supported family with the ids and the text that
the `tokenizers` library (0.23.3, from PyPI) gives for tricky strings.

    python tests/data/make_variants.py [extra random cases per tokenizer] > tests/data/tokenizer_variants.jsonl
"""
import json
import random
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXT = ["The quick brown fox jumps over the lazy dog; the dog was not amused, and 12 or 1234 foxes won't mind.",
        "In the year 2024 they said: \"it's the end of the world\" -- naive cafe, naïve café, Straße, ÉCOLE.",
        "def f(x):\n    return x + 1\n\n\tfor i in range(10):  print(i)\n", "日本語のテスト 中文 中文 テスト", "the  end   of    it all"]
CASES = ["", " ", "  ", "Hello the world", " the end", "the end ", "  two  spaces  ", "I'll we've THEY'RE don't 'S",
         "tabs\tand\nnewlines\n\n\n  x", "naïve café Ünïcödé ß É", "cafe\u0301 ﬁne Å İstanbul ΣΑΣ", "日本語のテスト 한국어 中文",
         "emoji 👩‍👩‍👧‍👦 🏳️‍🌈", "1234567890 3.14159 1,000,000 ½ ² Ⅷ", "a" * 70, "\u00a0nbsp\u2003em\u200bzw\u180emvs\u0085nel",
         "<s></s> <mask> x <mask>y", "[W]x [W] [w]. é[W] x[w]", "<|end|>the<|end|> the <|end|>", "▁▁the▁end ▁", "\r\n win\r\n", "\ufeffBOM",
         "x = foo(bar[0], **kw)  # comment", "\x01\x7f", "...!!!???", "  <sp>   the   <sp>  ", "the<nl>\n\n<nl> x", "𝕏𝕖", "<0x41> <0x0A>", "THE End"]


def byte_bpe(size=400, **model):
    t = Tokenizer(models.BPE(**model))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(TEXT * 3, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=["<|end|>"],
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return t


def metaspace_bpe(fallback, size=400):
    special = ["<unk>", "<s>", "</s>"] + (["<0x%02X>" % b for b in range(256)] if fallback else [])
    t = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.train_from_iterator(TEXT * 3, trainers.BpeTrainer(vocab_size=size, show_progress=False, special_tokens=special))
    j = json.loads(t.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if a["id"] < 3]
    j["model"]["byte_fallback"] = fallback
    t = Tokenizer.from_str(json.dumps(j))
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                   decoders.Strip(" ", 1, 0)])
    return t


def change(t, **model):
    j = json.loads(t.to_str())
    j["model"].update(model)
    return Tokenizer.from_str(json.dumps(j))


LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
          "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")


def split_then_bytes(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def variants():
    yield "gpt2", byte_bpe()
    t = byte_bpe()
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    t.add_special_tokens(["<s>", "</s>", AddedToken("<mask>", lstrip=True, special=True)])
    yield "roberta", t
    t = change(byte_bpe(size=500), ignore_merges=True)
    t.pre_tokenizer = split_then_bytes(LLAMA3)
    t.add_special_tokens(["<s>"])
    yield "llama3", t
    t = byte_bpe()
    t.normalizer = normalizers.NFC()
    t.pre_tokenizer = split_then_bytes(LLAMA3.replace("{1,3}", ""))
    yield "qwen2", t
    t = byte_bpe()
    t.add_tokens([AddedToken(" " * n, normalized=True) for n in range(2, 6)] + [AddedToken("\t", normalized=True)])
    yield "phi", t
    t = byte_bpe()
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(False)])
    yield "starcoder", t
    t = byte_bpe()
    t.add_tokens([AddedToken("[w]", single_word=True), AddedToken("<sp>", lstrip=True, rstrip=True),
                  AddedToken("<nl>", rstrip=True, normalized=False)])
    t.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC(), normalizers.Lowercase()])
    yield "added", t
    t = metaspace_bpe(True)
    t.pre_tokenizer = None
    t.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    yield "llama2", t
    for scheme in ["first", "always", "never"]:
        for split in [False, True]:
            t = metaspace_bpe(True)
            t.pre_tokenizer = pre_tokenizers.Metaspace("▁", scheme, split)
            t.decoder = decoders.Metaspace("▁", scheme, split)
            yield "metaspace-%s-%s" % (scheme, split), t
    t = metaspace_bpe(True)
    t.normalizer = normalizers.Replace(" ", "▁")
    t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    t.add_tokens([AddedToken("\n\n", normalized=False), AddedToken("▁▁", normalized=False)])
    yield "gemma", t
    for fuse in [True, False]:
        yield "unk-%s" % fuse, change(metaspace_bpe(False), fuse_unk=fuse)
    j = json.loads(metaspace_bpe(True).to_str())
    for name in ["<0xC3>", "<0xE6>", "<0x01>"]:
        j["model"]["vocab"]["gone" + name] = j["model"]["vocab"].pop(name)
    for fuse in [True, False]:
        j["model"]["fuse_unk"] = fuse
        yield "holes-%s" % fuse, Tokenizer.from_str(json.dumps(j))
    for behavior in ["isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        for invert in [False, True]:
            t = byte_bpe()
            t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex("[\\s.]|\\d*"), behavior, invert),
                                                       pre_tokenizers.ByteLevel(False, use_regex=False)])
            yield "split-%s-%s" % (behavior, invert), t
    t = metaspace_bpe(False)
    t.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Replace(Regex("\\p{Mn}+"), ""),
                                         normalizers.NFKD(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(False), pre_tokenizers.Metaspace()])
    yield "replace", t


def random_text(rng):
    pool = list("abcdeéßñ中日の  \n\t.,'\"!?0123½▁-_<>[]W \u00a0\u2003\u0301👩") + ["the", " the", "<s>", "<mask>", "<sp>", "<nl>",
                                                                                "[W]", "<|end|>", "'ll", "'S", "  "]
    return "".join(rng.choice(pool) for _ in range(rng.randrange(1, 40)))


def main():
    extra = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    rng = random.Random(7)
    for name, t in variants():
        # decoders are compared on whole texts only: what malformed byte sequences become is not specified
        texts = CASES + [random_text(rng) for _ in range(extra)]
        cases = []
        for text in texts:
            ids = t.encode(text, add_special_tokens=False).ids
            cases.append({"text": text, "ids": ids, "decoded": t.decode(ids, skip_special_tokens=False)})
        print(json.dumps({"name": name, "tokenizer": json.loads(t.to_str()), "cases": cases}, ensure_ascii=False))


main()
