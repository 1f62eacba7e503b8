/* dataset.h - documents of several files as sequences to train on and windows to evaluate.
 *
 * Training. The documents kept by (seed, fraction) are put in an order drawn from (seed, epoch), each followed by the
 * end-of-text token when there is one, and the stream is cut into windows of seq_len + 1 tokens overlapping by one:
 * inputs w[0..L), labels w[1..L]. The windows are shuffled too. What is left at an epoch's end, less than a window, is
 * dropped; another order leaves another rest. Sequence `index` is a pure function of (files, seed, index): to resume, a
 * counter is enough.
 *
 * Conversations (chat.h): with `answers_only` a label that is no token of an answer is -1.
 *
 * Evaluation. The documents in file order, each followed by the end-of-text token, cut into windows that do not overlap
 * in their labels; every token but the first is predicted once. */
#ifndef CAB_DATA_DATASET_H
#define CAB_DATA_DATASET_H

#include "base/error.h"
#include "base/fingerprint.h"
#include "data/chat.h"
#include "data/expand.h"
#include "data/tokenizer.h"
#include "data/tokens.h"

#include <stdint.h>

typedef struct cab_dataset cab_dataset;

typedef struct cab_dataset_options {
    const cab_tokenizer *tokenizer; /* needed for text files only, and not kept */
    const char *separator;          /* of .txt files; NULL: "<|endoftext|>" */
    const char *text_field;         /* of .jsonl, .json, .csv and .tsv; NULL: "text" */
    cab_expand_limits limits;       /* of packed files and long documents */
    const cab_chat *chat;           /* of conversations; NULL: they are refused. Not kept */
    bool answers_only;
    const char *cache;       /* directory of the token cache; needed for text files */
    cab_token_type bin_type; /* element type of .bin files */
    int64_t vocab_size;      /* rows of the model's embedding: ids must be below it */
    int32_t end_id;          /* end-of-text; -1: none */
    double fraction;         /* of the documents that is kept, 0 < fraction <= 1: ceil(fraction * documents) */
    uint64_t seed;
    bool
        same_windows; /* training: documents in file order in every epoch, so that windows are the same; their order is drawn */
} cab_dataset_options;

/* `paths`: any mixture of text files (text.h), .npy and .bin, folders of them, and patterns (data_paths.h). CAB_EFORMAT when there is no document. */
cab_status cab_dataset_open(const char *const *paths, size_t count, const cab_dataset_options *options,
                            cab_dataset **out);
void cab_dataset_free(cab_dataset *dataset);

/* The files, in the order in which they were opened: path, and content (of text all of it, whatever its size). */
size_t cab_dataset_files(const cab_dataset *dataset);
const char *cab_dataset_file(const cab_dataset *dataset, size_t index, cab_fingerprint *content);

/* Documents kept, and before the fraction was taken. */
uint64_t cab_dataset_documents(const cab_dataset *dataset);
uint64_t cab_dataset_documents_all(const cab_dataset *dataset);
/* Tokens of the kept documents, separators included. */
uint64_t cab_dataset_tokens(const cab_dataset *dataset);
/* Bytes of text of the kept documents, separators not included; 0 when a token file makes it unknown. */
uint64_t cab_dataset_text_bytes(const cab_dataset *dataset);

/* Chooses the length of training sequences, L > 0. A corpus shorter than one sequence is CAB_EFORMAT, with both
 * counts. Called before the two functions below; may be called again. */
cab_status cab_dataset_set_sequence(cab_dataset *dataset, uint64_t seq_len);
/* Sequences in an epoch. */
uint64_t cab_dataset_sequences(const cab_dataset *dataset);
/* ids, labels: seq_len each. Fast for indices that rise; each change of epoch draws its order anew. */
cab_status cab_dataset_train_sequence(cab_dataset *dataset, uint64_t index, int32_t *ids, int32_t *labels);

/* Of the same sequence, after it: which window it is, 0 to cab_dataset_sequences() - 1; with same_windows the same in every epoch. */
uint64_t cab_dataset_train_window(const cab_dataset *dataset, uint64_t index);

/* Of the same sequence, after it: starts[k], the first token in it of token k's document, its separator included. Labels that begin
 * another document become -1, so that every document is as if it were alone. */
void cab_dataset_train_starts(const cab_dataset *dataset, uint64_t index, int32_t *starts, int32_t *labels);

/* Windows of seq_len; a corpus of a single token has none. */
uint64_t cab_dataset_eval_windows(const cab_dataset *dataset, uint64_t seq_len);
/* ids, labels: seq_len each; the last window is padded with id 0 and label -1. Returns the number of labels. */
uint64_t cab_dataset_eval_window(const cab_dataset *dataset, uint64_t seq_len, uint64_t window, int32_t *ids,
                                 int32_t *labels);
/* As cab_dataset_train_starts(), of seq_len tokens; those past the end are of the last document. */
void cab_dataset_eval_starts(const cab_dataset *dataset, uint64_t seq_len, uint64_t window, int32_t *starts,
                             int32_t *labels);

/* One kept document, in file order, without its separator. */
uint64_t cab_dataset_document_tokens(const cab_dataset *dataset, uint64_t document);
void cab_dataset_document_copy(const cab_dataset *dataset, uint64_t document, uint64_t begin, uint64_t count,
                               int32_t *ids);
/* The same as labels. */
void cab_dataset_document_labels(const cab_dataset *dataset, uint64_t document, uint64_t begin, uint64_t count,
                                 int32_t *labels);

#endif
