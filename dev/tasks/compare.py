#!/usr/bin/env python3
"""compare.py - cab's tasks item by item against transformers.

    python3 dev/tasks/compare.py MODEL DATA [--tasks lambada,piqa] [--items 600]

MODEL is a directory of transformers' layout or a .gguf file, which cab first writes out as such a directory; DATA the folder of the
tasks' files. $CAB names the program, build/release/cab without it. Needs torch and transformers. Exits with 1 where the two choose
otherwise in more than one item of 600."""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
import transformers


def pairs(task, data, count):
    """Contexts with their choices, and the right one, by the templates of lm-evaluation-harness."""
    def lines(name):
        with open(os.path.join(data, name), encoding="utf-8") as file:
            return [json.loads(line) for line in file][:count]

    def labels(name, first):
        with open(os.path.join(data, name), encoding="utf-8") as file:
            return [int(line) - first for line in file][:count]

    if task == "lambada":
        for item in lines("lambada_test.jsonl"):
            context, word = item["text"].strip().rsplit(" ", 1)
            yield context, [" " + word], 0
    elif task == "piqa":
        for item, label in zip(lines("piqa_dev.jsonl"), labels("piqa_dev_labels.lst", 0)):
            yield f"Question: {item['goal']}\nAnswer:", [" " + item["sol1"], " " + item["sol2"]], label
    elif task == "siqa":
        for item, label in zip(lines("siqa_dev.jsonl"), labels("siqa_dev_labels.lst", 1)):
            yield f"Q: {item['context']} {item['question']}\nA:", [" " + item["answer" + x] for x in "ABC"], label
    else:
        for item in lines({"csqa": "csqa_valid.jsonl", "qasc": "qasc_dev.jsonl"}[task]):
            choices = item["question"]["choices"]
            yield (f"Question: {item['question']['stem']}\nAnswer:", [" " + c["text"] for c in choices],
                   [c["label"] for c in choices].index(item["answerKey"]))


@torch.inference_mode()
def score(model, tokenizer, context, choices):
    """log p of every choice, and whether it is what the model finds likeliest, token by token."""
    ids = tokenizer(context, add_special_tokens=False)["input_ids"]
    whole = [tokenizer(context + choice, add_special_tokens=False)["input_ids"] for choice in choices]
    longest = max(map(len, whole))
    batch = torch.tensor([w + [0] * (longest - len(w)) for w in whole])
    logp = model(batch).logits.float().log_softmax(-1)
    out = []
    for row, w in zip(logp, whole):
        rows, labels = row[len(ids) - 1:len(w) - 1], torch.tensor(w[len(ids):])
        out.append((rows.gather(1, labels[:, None]).sum().item(), bool((rows.argmax(1) == labels).all())))
    return out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--tasks", default="lambada,piqa")
    parser.add_argument("--items", type=int, default=600)
    o = parser.parse_args()
    cab = os.environ.get("CAB", "build/release/cab")
    with tempfile.TemporaryDirectory() as scratch:
        directory = o.model
        if o.model.endswith(".gguf"):
            directory = os.path.join(scratch, "model")
            subprocess.run([cab, "export", o.model, "--to", directory, "--type", "f32", "-q"], check=True)
        log = os.path.join(scratch, "items.jsonl")
        table = subprocess.run([cab, "eval", directory, "--task", o.tasks, "--data", o.data, "--items", str(o.items),
                                "--precision", "fp32", "--log-items", log, "-q"], check=True, capture_output=True, text=True)
        print(table.stdout, end="")
        with open(log, encoding="utf-8") as file:
            ours = [json.loads(line) for line in file]
        tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        worst = 0
        for task in o.tasks.split(","):
            mine = [item for item in ours if item["task"] == task]
            right = normalised = other = 0
            apart = 0.0
            for item, (context, choices, label) in zip(mine, pairs(task, o.data, o.items)):
                scores = score(model, tokenizer, context, choices)
                logp = [s[0] for s in scores]
                apart = max(apart, max(abs(a - b) / max(1, abs(b)) for a, b in zip(item["logp"], logp)))
                if task == "lambada":
                    hit = item["hits"] == item["tokens"]
                    right += scores[0][1]
                    other += hit != scores[0][1]
                    continue
                chosen = logp.index(max(logp))
                lengths = [value / len(choice.lstrip(" ")) for value, choice in zip(logp, choices)]
                right += chosen == label
                normalised += lengths.index(max(lengths)) == label
                other += chosen != item["chosen"]
            n = len(mine)
            print(f"{task}: transformers {100 * right / n:.2f} %"
                  + (f", normalised {100 * normalised / n:.2f} %" if task != "lambada" else "")
                  + f"; chosen otherwise by cab: {other} of {n}; log-probabilities at most {apart:.1e} apart", flush=True)
            worst = max(worst, other * 600 / n)
    sys.exit(worst > 1)


if __name__ == "__main__":
    main()
