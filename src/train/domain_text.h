/* domain_text.h - the data of a run on text. Internal to this folder. */
#ifndef CAB_TRAIN_DOMAIN_TEXT_H
#define CAB_TRAIN_DOMAIN_TEXT_H

#include "data/dataset.h"
#include "train/domain.h"

typedef struct cab_text_data {
    cab_domain_setup setup;
    cab_tokenizer *tokenizer;
    cab_dataset *train, *eval;
    int64_t seq_len, batch, micro_batch;
    int32_t *ids, *labels; /* one micro-batch */
} cab_text_data;

#endif
