"""Time of a forward pass of whole windows in bf16, of cab and of transformers, turn by turn on two cores.

  chrt -f 10 build/interop/venv/bin/python tests/interop/speed_forward.py MODEL [WINDOWS] [LENGTH]

cab computes the cross-entropy of every position; transformers the same (loss), and its logits alone (logits), which is less. Each turn is a pass
of each; the ratio is the median of the turns' own. The losses are printed beside the times: they are of the same text."""
import os
import shutil
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
import transformers as tf

from interop import REFERENCE, WORK, book, cab

ROUNDS, WARM = 9, 2


class Ours:
    def __init__(self, path, ids):
        self.process = subprocess.Popen([REFERENCE, "loss", path, *map(str, ids.shape)], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE)
        self.process.stdin.write(ids.astype(np.int32).tobytes())

    def __call__(self):
        self.process.stdin.write(b".")
        self.process.stdin.flush()
        seconds, loss = map(float, self.process.stdout.readline().split())
        return seconds, loss

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Theirs:
    def __init__(self, path, ids, loss):
        self.model = tf.AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16).eval()
        self.ids, self.labels = torch.tensor(ids), torch.tensor(ids) if loss else None

    def __call__(self):
        with torch.inference_mode():
            started = time.perf_counter()
            out = self.model(self.ids, labels=self.labels, use_cache=False)
            seconds = time.perf_counter() - started
        return seconds, float(out.loss) if self.labels is not None else float("nan")


def main():
    path, shape = sys.argv[1], tuple(int(n) for n in sys.argv[2:4] + ["1", "1024"][len(sys.argv) - 2:])
    torch.set_num_threads(2)
    directory = f"{WORK}/speed"
    shutil.rmtree(directory, ignore_errors=True)
    cab("export", path, "--to", directory, "--type", "bf16", "-q")
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_file=os.path.join(directory, "tokenizer.json"))
    ids = np.array(tokenizer(book(), add_special_tokens=False)["input_ids"][:shape[0] * shape[1]]).reshape(shape)
    sides = {"cab": Ours(directory, ids), "loss": Theirs(directory, ids, True), "logits": Theirs(directory, ids, False)}
    for _ in range(WARM):
        for side in sides.values():
            side()
    turns = [{name: side() for name, side in sides.items()} for _ in range(ROUNDS)]
    sides["cab"].close()
    shutil.rmtree(directory)
    print("| transformers computes | cab, ms | transformers, ms | ratio | loss, cab | loss, transformers |\n|---|---|---|---|---|---|")
    for name in ("loss", "logits"):
        a, b = (statistics.median(t[side][0] for t in turns) for side in ("cab", name))
        ratio = statistics.median(t[name][0] / t["cab"][0] for t in turns)
        print(f"| {name} | {1e3 * a:.0f} | {1e3 * b:.0f} | {ratio:.2f} | {turns[0]['cab'][1]:.4f} | {turns[0][name][1]:.4f} |")


if __name__ == "__main__":
    main()
