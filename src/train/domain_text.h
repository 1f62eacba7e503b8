/* domain_text.h - the data of a run on text. Internal to this folder. */
#ifndef CAB_TRAIN_DOMAIN_TEXT_H
#define CAB_TRAIN_DOMAIN_TEXT_H

#include "data/dataset.h"
#include "distill/keep.h"
#include "train/domain.h"
#include "train/teacher_cache.h"

typedef struct cab_text_data {
    cab_domain_setup setup;
    cab_tokenizer *tokenizer;
    cab_chat *chat; /* how the teacher was shown conversations */
    cab_dataset *train, *eval;
    int64_t seq_len, batch, micro_batch;    /* batch and micro_batch: over all ranks */
    int64_t rows;                           /* of a micro-batch, on this rank */
    int32_t *ids, *labels, *valid, *starts; /* one micro-batch; valid: rows with a label; starts: NULL without reset */
    cab_teacher_cache *cache;               /* of teacher.cache; NULL: the teacher runs */
    int64_t words;                          /* of a token in it */
    int32_t *word_ids;                      /* (rows, seq_len, words), and log p of them */
    float *word_top;
    cab_kept kept; /* of the teacher, in a student that keeps attention */
} cab_text_data;

#endif
