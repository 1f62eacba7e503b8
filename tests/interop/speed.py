"""Tokens a second, decoding one text, of cab and of llama.cpp from the same GGUF files, turn by turn on two cores.

  chrt -f 10 build/interop/venv/bin/python tests/interop/speed.py MODEL..."""
import json
import os
import statistics
import sys
import time

import numpy as np

from interop import WORK, Llama, cab

ROUNDS, STEPS = 5, 128
PROMPT = "It was a bright cold day in April, and the clocks were striking"


def ours(path):
    out = cab("generate", path, "-p", PROMPT, "-t", "0", "-n", str(STEPS), "--ignore-end", "--json", "-q", "--threads", "2")
    return json.loads(out)["tokens_per_second"]


def theirs(path):
    llama = Llama(path, logits_all=False, plain=True)
    llama.model.eval(llama.ids(PROMPT))
    token, started = 1, time.perf_counter()
    for _ in range(STEPS):
        llama.model.eval([token])
        row = np.ctypeslib.as_array(llama.model._ctx.get_logits(), shape=(llama.model.n_vocab(),))
        token = int(row.argmax())
    return STEPS / (time.perf_counter() - started)


def main():
    print("| model | type | cab, tokens/s | llama.cpp, tokens/s | ratio |\n|---|---|---|---|---|")
    for model in sys.argv[1:]:
        for kind in ("bf16", "q8_0"):
            path = f"{WORK}/speed.gguf"
            cab("export", model, "-o", path, "--type", kind, "-q")
            rounds = [(ours(path), theirs(path)) for _ in range(ROUNDS)]
            os.remove(path)
            a, b = (statistics.median(r[i] for r in rounds) for i in (0, 1))
            print(f"| {os.path.basename(model)} | {kind} | {a:.0f} | {b:.0f} | {a / b:.2f} |", flush=True)


if __name__ == "__main__":
    main()
