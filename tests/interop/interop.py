"""cab, transformers and llama.cpp on the same models: logits, ids, greedy text, and what Q8_0 costs. Run by run.sh.

Every model is a directory of Hugging Face's layout; cab export writes the GGUF file that llama.cpp opens. Exit code 1: a row that is not
within its bounds."""
import argparse
import contextlib
import json
import lzma
import os
import platform
import shutil
import subprocess
import sys
import time

import numpy as np
import torch
import transformers as tf

import models

with contextlib.redirect_stderr(open(os.devnull, "w", encoding="utf-8")):
    import llama_cpp

tf.utils.logging.set_verbosity_error()
tf.utils.logging.disable_progress_bar()
TOKENS, GREEDY, WINDOWS = 256, 64, 8
BOUND, Q8_BOUND = 1e-4, 0.01
GELU_BOUND = 5e-3  # llama.cpp takes GELU from a table of fp16
WORK = "build/interop"
CAB = os.environ.get("CAB", "build/release/cab")
REFERENCE = os.environ.get("CAB_REFERENCE", "build/release/tests/interop_reference")
SHARED = "../shared"
TEXTS = ["Once upon a time there was", "  two  spaces,\ttabs\n\nand lines\r\n", "It's 12345 o'clock; they'RE late, we'll see.",
         "été ☃ 😀 日本語 ﬁ", "a" * 50, "", " ", "x = [1, 2];  // code\n\n\n    return x;\n", "<|endoftext|>Tom<|endoftext|>"]


def cab(*arguments):
    return subprocess.run([CAB, *arguments], check=True, stdout=subprocess.PIPE).stdout


def reference(what, model, data):
    return subprocess.run([REFERENCE, what, model], input=data, check=True, stdout=subprocess.PIPE).stdout


def distance(a, b):
    """The largest difference over the largest value."""
    return float(np.abs(a - b).max() / np.abs(b).max())


class Llama:
    """A GGUF file in llama.cpp, everything in fp32 but the weights; plain: as llama.cpp would have it."""

    def __init__(self, path, context=TOKENS + GREEDY, logits_all=True, plain=False):
        exact = {} if plain else {"flash_attn": False, "type_k": 0, "type_v": 0}
        with contextlib.redirect_stderr(sys.stdout):
            self.model = llama_cpp.Llama(path, n_ctx=context, n_batch=context, n_threads=2, n_threads_batch=2,
                                         logits_all=logits_all, verbose=False, **exact)

    def logits(self, ids):
        self.model.reset()
        self.model._ctx.kv_cache_clear()
        self.model.eval([int(i) for i in ids])
        return np.array(self.model.scores[:len(ids)])

    def ids(self, text):
        return self.model.tokenize(text.encode(), add_bos=False, special=True)

    def greedy(self, ids):
        row, out = self.logits(ids)[-1], []
        for _ in range(GREEDY):
            out.append(int(row.argmax()))
            self.model.eval([out[-1]])
            row = self.model.scores[self.model.n_tokens - 1]
        return self.model.detokenize(list(ids) + out, special=True).decode(errors="replace")


class Transformers:
    def __init__(self, path):
        self.model = tf.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()
        file = os.path.join(path, "tokenizer.json")
        self.tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=file) if os.path.exists(file) else None

    def logits(self, ids):
        with torch.no_grad():
            return self.model(torch.tensor([list(ids)])).logits[0].float().numpy()

    def ids(self, text):
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def greedy(self, ids):
        settings = tf.GenerationConfig(do_sample=False, max_new_tokens=GREEDY, eos_token_id=None, pad_token_id=0)
        out = self.model.generate(torch.tensor([list(ids)]), generation_config=settings)
        return self.tokenizer.decode(out[0].tolist(), clean_up_tokenization_spaces=False)


def perplexity(logits, ids):
    x = logits[:-1].astype(np.float64)
    x -= x.max(1, keepdims=True)
    return np.log(np.exp(x).sum(1)) - x[np.arange(len(ids) - 1), ids[1:]]


def book():
    path = f"{SHARED}/data/books/val.txt.xz"
    if os.path.exists(path):
        with lzma.open(path, "rt", encoding="utf-8") as file:
            return file.read(200000)
    with open("examples/tales/val.txt", encoding="utf-8") as file:
        return file.read(200000)


def cab_greedy(model, prompt):
    out = cab("generate", model, "-p", prompt, "-t", "0", "-n", str(GREEDY), "--ignore-end", "--json", "-q", "--precision",
              "fp32")
    return prompt + json.loads(out)["text"]


def compare(name, path, opens_in_cab=True):
    """One row of the table, and whether it is good."""
    base = f"{WORK}/{name.replace(',', '').replace(' ', '-')}"
    files = {kind: f"{base}-{kind}.gguf" for kind in ("f32", "q8_0")}
    for kind, file in files.items():
        cab("export", path, "-o", file, "--type", kind, "-q")
    theirs, llama = Transformers(path), Llama(files["f32"])
    config = theirs.model.config
    length = min(TOKENS, getattr(config, "max_position_embeddings", TOKENS))
    bound = GELU_BOUND if "gelu" in str(getattr(config, "hidden_activation", "")) + str(getattr(config, "hidden_act", "")) else BOUND
    row = {"model": name, "type": config.model_type, "tokens": length}
    good = True
    text = book()
    if theirs.tokenizer is not None:
        ids = np.array(theirs.ids(text)[:WINDOWS * TOKENS], np.int32)
        samples = TEXTS + [text[i:i + 500] for i in range(0, 20000, 500)]
        row["ids"] = all(theirs.ids(t) == llama.ids(t) == np.frombuffer(reference("ids", path, t.encode()), np.int32).tolist()
                         for t in samples)
        good = good and row["ids"]
    else:
        ids = np.random.default_rng(1).integers(0, config.vocab_size, WINDOWS * length).astype(np.int32)
    expected, found = theirs.logits(ids[:length]), llama.logits(ids[:length])
    row["llama"] = distance(found, expected)
    good = good and row["llama"] <= bound
    if opens_in_cab:
        ours = np.frombuffer(reference("logits", path, ids[:length].tobytes()), np.float32).reshape(length, -1)
        row["cab"] = distance(ours, expected)
        good = good and row["cab"] <= BOUND
    if theirs.tokenizer is not None:
        prompt = text[:200].rsplit(" ", 1)[0]
        texts = {theirs.greedy(theirs.ids(prompt)), llama.greedy(llama.ids(prompt)).removeprefix(" ")}
        if opens_in_cab:
            texts.add(cab_greedy(path, prompt))
        row["greedy"] = len(texts) == 1
        good = good and row["greedy"]
        if not row["greedy"]:
            print(name, texts)
    windows = [ids[i:i + length] for i in range(0, len(ids) - length + 1, length)]
    row["f32"] = float(np.exp(np.mean([perplexity(llama.logits(w), w) for w in windows])))
    small = Llama(files["q8_0"])
    row["q8_0"] = float(np.exp(np.mean([perplexity(small.logits(w), w) for w in windows])))
    good = good and abs(row["q8_0"] / row["f32"] - 1) <= Q8_BOUND
    for file in files.values():
        os.remove(file)
    row["good"] = good
    return row


def cells(row):
    def word(key):
        return {True: "equal", False: "**differ**", None: ""}[row.get(key)]

    return [row["model"], row["type"], str(row["tokens"]), f"{row['cab']:.1e}" if "cab" in row else "not read",
            f"{row['llama']:.1e}", word("ids"), word("greedy"), f"{row['f32']:,.2f}", f"{row['q8_0'] / row['f32'] - 1:+.2%}"]


def distil(path, layout, keep):
    """A student of books-llama after a few steps; what is compared is its arithmetic."""
    with lzma.open(f"{SHARED}/data/books/val.txt.xz", "rt", encoding="utf-8") as file:
        text = file.read(400000)
    for name, part in (("train", text[:300000]), ("val", text[380000:])):
        with open(f"{path}-{name}.txt", "w", encoding="utf-8") as file:
            file.write(part)
    settings = [f"student.layout={layout}", f"student.keep_list={','.join(str(i) for i in range(keep))}", "data.seq_len=256",
                "train.batch=2", "train.tokens=4096", "student.architecture=in-place", f"data.cache={path}-cache"]
    with open(f"{path}.yaml", "w", encoding="utf-8") as file:
        file.write(f"method: cab-best\nteacher: {{path: {SHARED}/teachers/books-llama}}\n"
                   f"data: {{train: [{path}-train.txt], eval: [{path}-val.txt]}}\n")
    cab("distill", "-q", f"{path}.yaml", "--out", path, *(part for setting in settings for part in ("--set", setting)))


def all_models():
    """(name, path)"""
    for name in ("books-llama", "stories260k-llama"):
        yield name, f"{SHARED}/teachers/{name}"
    for name in ("llama", "llama3", "llama_mlp_bias", "qwen2", "qwen2_yarn", "qwen3", "phi3", "olmo2", "granite", "gemma2", "gemma3", "falcon_h1",
                 "falcon_h1_norm", "granite_hybrid", "granite_hybrid_bias", "mamba2", "mamba"):
        yield f"golden {name}", f"{SHARED}/golden/hf_{name}"
    for name in models.MODELS:
        path = f"{WORK}/models/{name.replace(',', '').replace(' ', '-')}"
        if not os.path.exists(f"{path}/config.json") and os.path.exists(f"{SHARED}/teachers/books-llama"):
            models.make(name, path, f"{SHARED}/teachers/books-llama")
        yield f"random {name}", path
    for layout, keep in (("falcon-h1", 1), ("falcon-h1", 0), ("granite-hybrid", 1)):
        path = f"{WORK}/models/{layout}-{keep}"
        if not os.path.exists(f"{path}/student/config.json") and os.path.exists(f"{SHARED}/teachers/books-llama"):
            distil(path, layout, keep)
        yield f"student of books-llama, {layout}, {keep} kept", f"{path}/student"
    files = os.environ.get("CAB_GGUF", "build/teachers")
    for name in ("smollm2",):  # a real model that comes as a GGUF file
        path = f"{WORK}/models/{name}"
        if not os.path.exists(f"{path}/config.json") and os.path.exists(f"{files}/{name}.gguf"):
            cab("export", f"{files}/{name}.gguf", "--to", path, "--type", "f32")
        yield name, path


HEADINGS = ["model", "model_type", "tokens", "cab", "llama.cpp", "ids", "greedy text", "perplexity, F32", "Q8_0"]


def report(rows, out):
    versions = f"transformers {tf.__version__}, PyTorch {torch.__version__}, llama.cpp of llama-cpp-python {llama_cpp.__version__}"
    lines = ["# cab, transformers and llama.cpp on the same models", "",
             "Written by `make interop` (`tests/interop/`). " + versions + f"; {platform.machine()}.", "",
             f"cab and llama.cpp: the largest difference of their logits from those of transformers, over the largest logit, in fp32; at most "
             f"{BOUND:g}. llama.cpp reads the F32 file of `cab export`; it takes GELU from a table of fp16, so models with GELU have "
             f"{GELU_BOUND:g}. Ids: those of {len(TEXTS) + 40} texts, in all three. Greedy text: {GREEDY} tokens after a prompt, in all three. "
             "Perplexity: llama.cpp, of the F32 file, and how far that of the Q8_0 file is from it; at most 1 %. Golden models have no "
             "tokenizer, and 64 positions at most; random ones have that of books-llama. SmolLM2 came out of a GGUF file by `cab export --to`.", "",
             "| " + " | ".join(HEADINGS) + " |", "|" + "---|" * len(HEADINGS)]
    lines += ["| " + " | ".join(cells(row)) + " |" for row in rows]
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="bench/results/interop.md")
    parser.add_argument("--only", default="", help="models whose name has this in it; nothing is written")
    options = parser.parse_args()
    os.makedirs(f"{WORK}/models", exist_ok=True)
    rows = []
    for name, path in all_models():
        if options.only not in name:
            continue
        if not os.path.exists(path):
            print(f"skipped: {path} is not there")
            continue
        started = time.time()
        rows.append(compare(name, path))
        print("  ".join(cells(rows[-1])), "" if rows[-1]["good"] else "  NOT GOOD", f"({time.time() - started:.0f} s)", flush=True)
    if not options.only:
        report(rows, options.out)
        print(f"{options.out}: {len(rows)} models")
    sys.exit(not all(row["good"] for row in rows))


if __name__ == "__main__":
    main()
