/* tokenizer_internal.h - what the files of the tokenizer share.
 *
 *   text -> [added tokens, raw] -> normalizers -> [added tokens, normalized] -> pre-tokenizers -> BPE -> ids
 *
 * tokenizer.c reads the file; vocab.c holds tokens, merges and the added-token tries; pattern.c, normalize.c, pretokenize.c
 * and bpe.c are the stages; encode.c drives them; decode.c goes back. */
#ifndef CAB_DATA_TOKENIZER_INTERNAL_H
#define CAB_DATA_TOKENIZER_INTERNAL_H

#define PCRE2_CODE_UNIT_WIDTH 8

#include "base/json.h"
#include "data/tokenizer.h"

#include <pcre2.h>

/* Ids at or above this are refused: tables are indexed by id. */
enum { CAB_TOKEN_ID_LIMIT = 1 << 22 };

/* U+2581, which stands for a space in Metaspace vocabularies. */
#define CAB_METASPACE "\xE2\x96\x81"
enum { CAB_METASPACE_SIZE = 3 };

/* ---- vocab.c: strings to ids ------------------------------------------------------------------------------------ */

typedef struct cab_token_text {
    uint32_t offset;
    uint32_t size;
    bool present;
    bool special;
    bool added; /* not of the model's own vocabulary */
} cab_token_text;

/* Open addressing, linear probing; -1 marks a free slot. Token texts lie back to back in `text`. */
typedef struct cab_vocab {
    cab_bytes text;
    cab_token_text *tokens; /* by id */
    int32_t size;           /* ids are below this */
    struct cab_vocab_slot {
        uint32_t offset;
        uint32_t size;
        int32_t id;
    } * slots;
    uint64_t mask;
    uint64_t used;
} cab_vocab;

/* Room for ids below `size` and for `strings` strings. */
cab_status cab_vocab_init(cab_vocab *vocab, int32_t size, uint64_t strings);
void cab_vocab_free(cab_vocab *vocab);
/* The string becomes the text of the id; a string seen before keeps its first id. */
cab_status cab_vocab_add(cab_vocab *vocab, const char *text, size_t size, int32_t id);
/* -1 when absent. */
int32_t cab_vocab_find(const cab_vocab *vocab, const char *text, size_t size);

/* (left, right) -> rank and the merged id; a free slot has key UINT64_MAX. */
typedef struct cab_merge {
    uint64_t key;
    uint32_t rank;
    int32_t id;
} cab_merge;
typedef struct cab_merges {
    cab_merge *slots;
    uint64_t mask;
} cab_merges;

cab_status cab_merges_init(cab_merges *merges, uint64_t count);
void cab_merges_free(cab_merges *merges);
void cab_merges_add(cab_merges *merges, int32_t left, int32_t right, uint32_t rank, int32_t id);
/* NULL when the pair does not merge. */
const cab_merge *cab_merges_find(const cab_merges *merges, int32_t left, int32_t right);

/* Added tokens found in text, leftmost first and then longest. Nodes are joined by edges in a hash of (node, byte). */
typedef struct cab_added {
    int32_t id;
    bool single_word;
    bool lstrip;
    bool rstrip;
} cab_added;
typedef struct cab_trie {
    cab_merges edges; /* key (node, byte), id = child node */
    int32_t *leaf;    /* by node: index into added, or -1 */
    size_t leaf_capacity;
    int32_t nodes;
    cab_added *added;
    size_t added_capacity;
    int32_t added_count;
    bool first[256]; /* bytes that open a token */
} cab_trie;

/* Room for tokens of `bytes` bytes together. */
cab_status cab_trie_init(cab_trie *trie, uint64_t bytes);
void cab_trie_free(cab_trie *trie);
cab_status cab_trie_add(cab_trie *trie, const char *text, size_t size, const cab_added *added);
/* The next token at or after `from`, its place in *begin, *end; NULL when none. */
const cab_added *cab_trie_find(const cab_trie *trie, const char *text, size_t size, size_t from, size_t *begin,
                               size_t *end);

/* ---- pattern.c: what splits and replaces -------------------------------------------------------------------------- */

/* A literal (literal.count > 0) or a compiled expression. */
typedef struct cab_pattern {
    cab_bytes literal;
    pcre2_code *code;
} cab_pattern;

enum { CAB_COMPONENT_DEPTH = 8 }; /* Sequences within Sequences */

/* `owner` names the component and the file in errors. */
cab_status cab_pattern_literal(cab_pattern *pattern, const char *text, size_t size, const char *owner);
cab_status cab_pattern_regex(cab_pattern *pattern, const char *text, size_t size, const char *owner);
/* The member "pattern" of a component: {"String": ...} or {"Regex": ...}. */
cab_status cab_pattern_read(cab_pattern *pattern, const cab_json *json, json_object *object, const char *owner);
void cab_pattern_free(cab_pattern *pattern);

/* Scratch of one thread for any pattern of one tokenizer. */
typedef struct cab_matcher {
    const char *owner; /* the tokenizer's name, for errors */
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} cab_matcher;
cab_status cab_matcher_init(cab_matcher *matcher, const char *owner);
void cab_matcher_free(cab_matcher *matcher);

/* Walks the matches as Oniguruma's find_iter does: an empty match right after a match is stepped over. */
typedef struct cab_search {
    size_t next;
    size_t last_end; /* SIZE_MAX before the first match */
} cab_search;
#define CAB_SEARCH_START ((cab_search){0, SIZE_MAX})
/* *found is false after the last match. */
cab_status cab_pattern_next(const cab_pattern *pattern, cab_matcher *matcher, const char *text, size_t size,
                            cab_search *search, size_t *begin, size_t *end, bool *found);

/* ---- normalize.c ---------------------------------------------------------------------------------------------------- */

typedef enum cab_normalizer_kind {
    CAB_NORMALIZE_PREPEND,
    CAB_NORMALIZE_REPLACE,
    CAB_NORMALIZE_NFC,
    CAB_NORMALIZE_NFD,
    CAB_NORMALIZE_NFKC,
    CAB_NORMALIZE_NFKD,
    CAB_NORMALIZE_LOWERCASE,
    CAB_NORMALIZE_STRIP
} cab_normalizer_kind;

typedef struct cab_normalizer {
    cab_normalizer_kind kind;
    cab_bytes content; /* Prepend, Replace */
    cab_pattern pattern;
    bool left, right; /* Strip */
} cab_normalizer;

typedef struct cab_normalizers {
    cab_normalizer *items;
    size_t count, capacity;
} cab_normalizers;

cab_status cab_normalizers_read(cab_normalizers *normalizers, const cab_json *json, json_object *object, int depth);
void cab_normalizers_free(cab_normalizers *normalizers);
/* Replaces the content of *text; `spare` is scratch. */
cab_status cab_normalize(const cab_normalizers *normalizers, cab_matcher *matcher, cab_bytes *text, cab_bytes *spare);

/* ---- pretokenize.c -------------------------------------------------------------------------------------------------- */

typedef enum cab_split_kind { CAB_SPLIT_PATTERN, CAB_SPLIT_METASPACE, CAB_SPLIT_PREFIX_SPACE } cab_split_kind;
typedef enum cab_behavior {
    CAB_BEHAVIOR_ISOLATED,
    CAB_BEHAVIOR_REMOVED,
    CAB_BEHAVIOR_MERGED_WITH_PREVIOUS,
    CAB_BEHAVIOR_MERGED_WITH_NEXT,
    CAB_BEHAVIOR_CONTIGUOUS
} cab_behavior;
typedef enum cab_prepend { CAB_PREPEND_NEVER, CAB_PREPEND_FIRST, CAB_PREPEND_ALWAYS } cab_prepend;

typedef struct cab_splitter {
    cab_split_kind kind;
    cab_pattern pattern;
    cab_behavior behavior;
    bool invert;
    cab_prepend prepend; /* Metaspace */
} cab_splitter;

enum { CAB_SPLITTERS_MAX = 16 };
typedef struct cab_splitters {
    cab_splitter items[CAB_SPLITTERS_MAX];
    int count;
    bool byte_level; /* words reach the model as bytes */
} cab_splitters;

/* Receives one word, never empty. */
typedef cab_status (*cab_word_sink)(void *user, const char *word, size_t size);

cab_status cab_splitters_read(cab_splitters *splitters, const cab_json *json, json_object *object, int depth);
void cab_splitters_free(cab_splitters *splitters);
/* Sends the words of text to the sink in order. first: the text opens the input. scratch: CAB_SPLITTERS_MAX buffers. */
cab_status cab_splitters_apply(const cab_splitters *splitters, cab_matcher *matcher, cab_bytes *scratch,
                               const char *text, size_t size, bool first, cab_word_sink sink, void *user);

/* ---- bpe.c ---------------------------------------------------------------------------------------------------------- */

typedef struct cab_bpe {
    cab_merges merges;
    int32_t unk; /* -1: none */
    bool byte_level;
    bool byte_fallback;
    bool fuse_unk;
    bool ignore_merges;
    /* No merge joins something to a Metaspace that follows it, so a text may be cut before each one without changing the
     * result. Documents of Metaspace models are single words otherwise. */
    bool cut_at_metaspace;
    int32_t byte_ids[256]; /* byte level: the byte's token; else the "<0xNN>" token; -1: none */
} cab_bpe;

/* One thread's scratch and word cache. */
typedef struct cab_bpe_state cab_bpe_state;
cab_status cab_bpe_state_new(cab_bpe_state **out);
void cab_bpe_state_free(cab_bpe_state *state);
cab_status cab_bpe_encode(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                          size_t size, cab_ids *ids);

/* GPT-2's alphabet: each byte as a printable character. */
uint32_t cab_byte_level_char(uint8_t byte);
/* The byte that a character stands for; -1: none. */
int cab_byte_level_byte(uint32_t code);

/* ---- decode.c ------------------------------------------------------------------------------------------------------- */

typedef enum cab_decode_kind { CAB_DECODE_PLAIN, CAB_DECODE_BYTE_LEVEL, CAB_DECODE_METASPACE } cab_decode_kind;
typedef struct cab_decode {
    cab_decode_kind kind;
    bool byte_fallback; /* "<0xNN>" is a byte */
    bool fused;
    bool strip_space;      /* Strip: the text loses one space in front */
    bool drop_spaces;      /* Metaspace: the first token loses all of its spaces */
    cab_pattern replaced;  /* Replace: this literal ... */
    cab_bytes replacement; /* ... becomes this */
    cab_bytes pieces;      /* bytes of each id, back to back */
    uint64_t *begin;       /* by id, size + 1 entries */
} cab_decode;

cab_status cab_decode_read(cab_decode *decode, const cab_json *json, json_object *object, int depth);
cab_status cab_decode_build(cab_decode *decode, const cab_vocab *vocab);
void cab_decode_clear(cab_decode *decode);

/* ---- the whole -------------------------------------------------------------------------------------------------------- */

struct cab_tokenizer {
    char *name;
    uint64_t hash;
    cab_vocab vocab;
    cab_bpe bpe;
    cab_trie raw;        /* added tokens sought before normalisation */
    cab_trie normalized; /* and after it */
    cab_normalizers normalizers;
    cab_splitters splitters;
    cab_decode decode;
};

/* merges_text.c: the pairs of "merges" in the text of a tokenizer.json as strings, in place; their meaning stays. */
void cab_merges_shorten(char *text, size_t size);

#endif
