/* gguf_patterns.c - the table. */
#include "data/gguf_patterns.h"

#include <stddef.h>
#include <stdio.h>

#define SPLIT(pattern)                                                                                                 \
    "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"" pattern "\"}, \"behavior\": \"Isolated\", \"invert\": false}"
#define DIGITS "{\"type\": \"Digits\", \"individual_digits\": true}"
#define BYTES_ALONE                                                                                                    \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": false}"
#define BYTES_AND_WORDS                                                                                                \
    "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}"
#define SEQUENCE(first, second) "{\"type\": \"Sequence\", \"pretokenizers\": [" first ", " second "]}"

#define LLAMA3_PATTERN                                                                                                 \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| "                             \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define QWEN2_PATTERN                                                                                                  \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}| "                                  \
    "?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"

#define GPT2_SPLIT BYTES_AND_WORDS
#define DIGITS_SPLIT SEQUENCE(DIGITS, BYTES_AND_WORDS)
#define LLAMA3_SPLIT SEQUENCE(SPLIT(LLAMA3_PATTERN), BYTES_ALONE)
#define QWEN2_SPLIT SEQUENCE(SPLIT(QWEN2_PATTERN), BYTES_ALONE)
#define NFC "{\"type\": \"NFC\"}"

const cab_gguf_pattern cab_gguf_patterns[] = {
    {"gpt-2", GPT2_SPLIT, NULL, false},       {"phi-2", GPT2_SPLIT, NULL, false},
    {"olmo", GPT2_SPLIT, NULL, false},        {"smollm", DIGITS_SPLIT, NULL, false},
    {"starcoder", DIGITS_SPLIT, NULL, false}, {"refact", DIGITS_SPLIT, NULL, false},
    {"llama-bpe", LLAMA3_SPLIT, NULL, true},  {"llama3", LLAMA3_SPLIT, NULL, true},
    {"llama-v3", LLAMA3_SPLIT, NULL, true},   {"falcon-h1", LLAMA3_SPLIT, NULL, true},
    {"dbrx", LLAMA3_SPLIT, NULL, false},      {"qwen2", QWEN2_SPLIT, NFC, false},
    {"stablelm2", QWEN2_SPLIT, NULL, false},  {NULL, NULL, NULL, false},
};

const char *cab_gguf_pattern_names(char out[256])
{
    size_t used = 0;
    out[0] = '\0';
    for (const cab_gguf_pattern *p = cab_gguf_patterns; p->name != NULL && used < 256; p++)
        used += (size_t)snprintf(out + used, 256 - used, "%s%s", used > 0 ? ", " : "", p->name);
    return out;
}
