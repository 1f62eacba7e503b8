/* corpus.h - a corpus that a model writes: a file of JSON lines, which a training run reads as it is.
 *
 *   plain     {"text": ..., "sample": i, "seed": s, "stop": "end"}            begun by itself, or with a prompt in front
 *   answers   {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": ...}], "sample": i, ...}
 *   turns     the same, where the model also writes the question, behind its template's user header
 *
 * Line i is a function of (model, options, i): a file that was interrupted goes on where its last whole line ends, with the texts that an
 * unbroken one has, up to the rounding of batches of another size. Every batch is appended by one write, then synced. */
#ifndef CAB_TRAIN_CORPUS_H
#define CAB_TRAIN_CORPUS_H

#include "base/options.h"
#include "models/model.h"

typedef enum cab_corpus_kind { CAB_CORPUS_PLAIN, CAB_CORPUS_ANSWERS, CAB_CORPUS_TURNS } cab_corpus_kind;

typedef struct cab_corpus_options {
    cab_corpus_kind kind;
    uint64_t count;          /* lines of the whole file */
    const cab_list *prompts; /* text i continues, or answers, prompt i modulo their number; empty: none */
    uint64_t batch;          /* texts at once */
    cab_generate_options sampling;
} cab_corpus_options;

typedef struct cab_corpus_result {
    uint64_t found, written; /* lines */
    uint64_t tokens;         /* drawn now */
    double seconds;
} cab_corpus_result;

/* CAB_EFORMAT: `path` is not such a file, or of another seed; CAB_EARG: answers without prompts, or another process writes it. */
cab_status cab_corpus_write(cab_model *model, const cab_corpus_options *options, const char *path,
                            cab_corpus_result *result);

#endif
