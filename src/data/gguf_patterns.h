/* gguf_patterns.h - how words are split, by the name that llama.cpp has for it ("tokenizer.ggml.pre"), for reading and for writing. */
#ifndef CAB_DATA_GGUF_PATTERNS_H
#define CAB_DATA_GGUF_PATTERNS_H

#include <stdbool.h>

typedef struct cab_gguf_pattern {
    const char *name;
    const char *pre_tokenizer, *normalizer; /* of tokenizer.json; normalizer NULL: none */
    bool whole_words;                       /* a word that is a token is not built by merges */
} cab_gguf_pattern;

/* Ends with a name of NULL. Where several names mean the same, the first is written. */
extern const cab_gguf_pattern cab_gguf_patterns[];

/* All names, for an error: `out` holds 256 bytes. */
const char *cab_gguf_pattern_names(char out[256]);

/* What tokenizer.ggml.token_type says of a token. */
enum {
    CAB_TOKEN_NORMAL = 1,
    CAB_TOKEN_UNKNOWN,
    CAB_TOKEN_CONTROL,
    CAB_TOKEN_USER_DEFINED,
    CAB_TOKEN_UNUSED,
    CAB_TOKEN_BYTE
};

#endif
