/* bpe.c - byte-pair encoding of one word (Sennrich et al. 2016).
 *
 *   symbols <- the characters (byte level: the bytes) of the word
 *   while some neighbours merge: merge the pair of least rank, the leftmost of equals
 *
 * Candidate pairs wait in a binary heap ordered by (rank, position), symbols are a linked list, so a word of n symbols
 * takes O(n log n) however long it is. Words met before come from a cache: text is mostly words seen already. */
#include "base/memory.h"
#include "data/tokenizer_internal.h"
#include "data/utf8.h"

#include <string.h>

/* ---- GPT-2's byte alphabet ------------------------------------------------------------------------------------------ */

/* Printable Latin-1 stands for itself; the 68 other bytes are, in order, U+0100 and on. */
static bool is_printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

uint32_t cab_byte_level_char(uint8_t byte)
{
    if (is_printable(byte))
        return byte;
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte <= 0xA0)
        return 0x121u + byte - 0x7F;
    return 0x143; /* 0xAD */
}

int cab_byte_level_byte(uint32_t code)
{
    if (code <= 0xFF)
        return is_printable(code) ? (int)code : -1;
    if (code >= 0x100 && code <= 0x120)
        return (int)code - 0x100;
    if (code >= 0x121 && code <= 0x142)
        return (int)code - 0x121 + 0x7F;
    return code == 0x143 ? 0xAD : -1;
}

/* ---- scratch and cache ------------------------------------------------------------------------------------------------ */

typedef struct symbol {
    int32_t id; /* -1: merged into its left neighbour */
    int32_t previous, next;
} symbol;

typedef struct candidate {
    uint64_t order; /* rank << 32 | position of the left symbol */
    int32_t id;     /* what the pair becomes */
} candidate;

/* A word's bytes lie in its slot, zero-padded, so that a hit touches one cache line here and one of ids. Longer words are
 * rare and not kept; SLOTS_MAX bounds the cache to some 20 MB a thread. */
enum { CACHED_WORD_MAX = 24, SLOTS_MIN = 1 << 12, SLOTS_MAX = 1 << 19 };

typedef struct cached_word {
    uint64_t word[CACHED_WORD_MAX / 8];
    uint32_t ids;  /* offset into ids */
    uint16_t size; /* 0: free slot */
    uint16_t count;
} cached_word;

struct cab_bpe_state {
    symbol *symbols;
    size_t symbols_capacity, count;
    candidate *heap;
    size_t heap_capacity, heap_count;
    cached_word *slots;
    uint64_t slots_count, slots_used;
    cab_ids ids;
    cab_bytes mapped;
};

cab_status cab_bpe_state_new(cab_bpe_state **out)
{
    cab_bpe_state *state = NULL;
    *out = NULL;
    CAB_TRY(CAB_NEW(&state, 1, "an encoder"));
    cab_status status = CAB_NEW(&state->slots, SLOTS_MIN, "the word cache");
    if (status != CAB_OK) {
        cab_free(state);
        return status;
    }
    state->slots_count = SLOTS_MIN;
    *out = state;
    return CAB_OK;
}

void cab_bpe_state_free(cab_bpe_state *state)
{
    if (state == NULL)
        return;
    cab_free(state->symbols);
    cab_free(state->heap);
    cab_free(state->slots);
    cab_ids_free(&state->ids);
    cab_bytes_free(&state->mapped);
    cab_free(state);
}

/* The key of a word, size at most CACHED_WORD_MAX. */
static cached_word make_key(const char *word, size_t size)
{
    cached_word key = {.size = (uint16_t)size};
    memcpy(key.word, word, size);
    return key;
}

/* The slot of the key, or the free one where it belongs. Rounds of multiply and fold, as in splitmix64. */
static cached_word *cache_slot(const cab_bpe_state *state, const cached_word *key)
{
    uint64_t hash = key->size;
    for (size_t i = 0; i < CACHED_WORD_MAX / 8; i++) {
        hash = (hash ^ key->word[i]) * UINT64_C(0x9E3779B97F4A7C15);
        hash ^= hash >> 32;
    }
    for (uint64_t at = hash;; at++) {
        cached_word *slot = &state->slots[at & (state->slots_count - 1)];
        if (slot->size == 0 || (slot->size == key->size && slot->word[0] == key->word[0] &&
                                slot->word[1] == key->word[1] && slot->word[2] == key->word[2]))
            return slot;
    }
}

static cab_status cache_grow(cab_bpe_state *state)
{
    cached_word *old = state->slots;
    uint64_t count = state->slots_count;
    CAB_TRY(CAB_NEW(&state->slots, count * 2, "the word cache"));
    state->slots_count = count * 2;
    for (uint64_t i = 0; i < count; i++)
        if (old[i].size != 0)
            *cache_slot(state, &old[i]) = old[i];
    cab_free(old);
    return CAB_OK;
}

/* When the cache is full, the words it met first stay: those are the frequent ones. */
static cab_status cache_add(cab_bpe_state *state, cached_word key, const int32_t *ids, size_t count)
{
    if (state->slots_used * 2 >= state->slots_count) {
        if (state->slots_count == SLOTS_MAX)
            return CAB_OK;
        CAB_TRY(cache_grow(state));
    }
    key.ids = (uint32_t)state->ids.count;
    key.count = (uint16_t)count;
    CAB_TRY(cab_ids_append(&state->ids, ids, count));
    *cache_slot(state, &key) = key;
    state->slots_used++;
    return CAB_OK;
}

/* ---- symbols ---------------------------------------------------------------------------------------------------------- */

static cab_status add_symbol(cab_bpe_state *state, int32_t id)
{
    CAB_TRY(CAB_GROW(&state->symbols, &state->symbols_capacity, state->count + 1, "the symbols of a word"));
    state->symbols[state->count] = (symbol){id, (int32_t)state->count - 1, (int32_t)state->count + 1};
    state->count++;
    return CAB_OK;
}

static cab_status byte_symbols(const cab_bpe *bpe, cab_bpe_state *state, const char *word, size_t size)
{
    bool unknown = false; /* one <unk> for a run of them, if fused */
    for (size_t i = 0; i < size; i++) {
        int32_t id = bpe->byte_ids[(uint8_t)word[i]];
        if (id < 0 && (bpe->unk < 0 || (unknown && bpe->fuse_unk)))
            continue;
        unknown = id < 0;
        CAB_TRY(add_symbol(state, id < 0 ? bpe->unk : id));
    }
    return CAB_OK;
}

/* All bytes of a character as "<0xNN>" tokens; *done is false unless every one exists. */
static cab_status fallback_symbols(const cab_bpe *bpe, cab_bpe_state *state, const char *text, unsigned length,
                                   bool *done)
{
    *done = bpe->byte_fallback;
    for (unsigned i = 0; i < length && *done; i++)
        *done = bpe->byte_ids[(uint8_t)text[i]] >= 0;
    for (unsigned i = 0; i < length && *done; i++)
        CAB_TRY(add_symbol(state, bpe->byte_ids[(uint8_t)text[i]]));
    return CAB_OK;
}

/* An unknown character waits until the next known one, past any that fall back to bytes: the reference does so. */
static cab_status char_symbols(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                               size_t size)
{
    bool unknown = false;
    unsigned length = 0;
    for (size_t i = 0; i < size; i += length) {
        bool done = false;
        cab_utf8_decode(word + i, &length);
        int32_t id = cab_vocab_find(vocab, word + i, length);
        if (id < 0)
            CAB_TRY(fallback_symbols(bpe, state, word + i, length, &done));
        if (done || (id < 0 && bpe->unk < 0))
            continue;
        if (unknown && (id >= 0 || !bpe->fuse_unk))
            CAB_TRY(add_symbol(state, bpe->unk));
        unknown = id < 0;
        if (id >= 0)
            CAB_TRY(add_symbol(state, id));
    }
    return unknown ? add_symbol(state, bpe->unk) : CAB_OK;
}

/* ---- merging ---------------------------------------------------------------------------------------------------------- */

static cab_status heap_push(cab_bpe_state *state, candidate item)
{
    CAB_TRY(CAB_GROW(&state->heap, &state->heap_capacity, state->heap_count + 1, "the merges of a word"));
    size_t at = state->heap_count++;
    for (; at > 0 && item.order < state->heap[(at - 1) / 2].order; at = (at - 1) / 2)
        state->heap[at] = state->heap[(at - 1) / 2];
    state->heap[at] = item;
    return CAB_OK;
}

static candidate heap_pop(cab_bpe_state *state)
{
    candidate top = state->heap[0];
    candidate last = state->heap[--state->heap_count];
    size_t at = 0;
    for (size_t child = 1; child < state->heap_count; child = 2 * at + 1) {
        if (child + 1 < state->heap_count && state->heap[child + 1].order < state->heap[child].order)
            child++;
        if (last.order <= state->heap[child].order)
            break;
        state->heap[at] = state->heap[child];
        at = child;
    }
    state->heap[at] = last;
    return top;
}

static cab_status push_pair(const cab_bpe *bpe, cab_bpe_state *state, int32_t left)
{
    if (left < 0 || state->symbols[left].next < 0)
        return CAB_OK;
    const cab_merge *merge =
        cab_merges_find(&bpe->merges, state->symbols[left].id, state->symbols[state->symbols[left].next].id);
    if (merge == NULL)
        return CAB_OK;
    return heap_push(state, (candidate){(uint64_t)merge->rank << 32 | (uint32_t)left, merge->id});
}

static cab_status merge_symbols(const cab_bpe *bpe, cab_bpe_state *state)
{
    symbol *symbols = state->symbols;
    state->heap_count = 0;
    symbols[state->count - 1].next = -1;
    for (size_t i = 0; i + 1 < state->count; i++)
        CAB_TRY(push_pair(bpe, state, (int32_t)i));
    while (state->heap_count > 0) {
        candidate top = heap_pop(state);
        int32_t left = (int32_t)(uint32_t)top.order;
        int32_t right = symbols[left].next;
        if (symbols[left].id < 0 || right < 0)
            continue;
        const cab_merge *merge = cab_merges_find(&bpe->merges, symbols[left].id, symbols[right].id);
        if (merge == NULL || merge->id != top.id) /* one of the two has changed since */
            continue;
        symbols[left].id = top.id;
        symbols[left].next = symbols[right].next;
        symbols[right].id = -1;
        if (symbols[left].next >= 0)
            symbols[symbols[left].next].previous = left;
        CAB_TRY(push_pair(bpe, state, symbols[left].previous));
        CAB_TRY(push_pair(bpe, state, left));
    }
    return CAB_OK;
}

/* The word itself as a token, for models that look before they merge; -1: none. */
static cab_status whole_word(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                             size_t size, int32_t *id)
{
    if (!bpe->byte_level) {
        *id = cab_vocab_find(vocab, word, size);
        return CAB_OK;
    }
    state->mapped.count = 0;
    for (size_t i = 0; i < size; i++) {
        char encoded[4];
        CAB_TRY(
            cab_bytes_append(&state->mapped, encoded, cab_utf8_encode(cab_byte_level_char((uint8_t)word[i]), encoded)));
    }
    *id = cab_vocab_find(vocab, state->mapped.data, state->mapped.count);
    return CAB_OK;
}

static cab_status encode_word(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                              size_t size, cab_ids *ids)
{
    if (bpe->ignore_merges) {
        int32_t id = -1;
        CAB_TRY(whole_word(bpe, vocab, state, word, size, &id));
        if (id >= 0)
            return cab_ids_push(ids, id);
    }
    if (size >= INT32_MAX)
        return cab_fail(CAB_EUNSUPPORTED, "a single word of %zu bytes, at most %d are encoded", size, INT32_MAX - 1);
    state->count = 0;
    if (bpe->byte_level)
        CAB_TRY(byte_symbols(bpe, state, word, size));
    else
        CAB_TRY(char_symbols(bpe, vocab, state, word, size));
    if (state->count == 0)
        return CAB_OK;
    CAB_TRY(merge_symbols(bpe, state));
    for (int32_t i = 0; i >= 0; i = state->symbols[i].next)
        CAB_TRY(cab_ids_push(ids, state->symbols[i].id));
    return CAB_OK;
}

static cab_status cached_or_encoded(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                                    size_t size, cab_ids *ids)
{
    if (size > CACHED_WORD_MAX)
        return encode_word(bpe, vocab, state, word, size, ids);
    cached_word key = make_key(word, size);
    const cached_word *slot = cache_slot(state, &key);
    if (slot->size != 0)
        return cab_ids_append(ids, state->ids.data + slot->ids, slot->count);
    size_t before = ids->count;
    CAB_TRY(encode_word(bpe, vocab, state, word, size, ids));
    return ids->count == before ? CAB_OK : cache_add(state, key, ids->data + before, ids->count - before);
}

/* The next Metaspace that follows something else; `size` when none. */
static size_t next_cut(const char *word, size_t size, size_t from)
{
    size_t run = from; /* just past the Metaspaces seen last */
    for (size_t at = from; at + CAB_METASPACE_SIZE <= size;) {
        const char *hit = memchr(word + at, CAB_METASPACE[0], size - at);
        if (hit == NULL || (size_t)(word + size - hit) < CAB_METASPACE_SIZE)
            return size;
        at = (size_t)(hit - word);
        if (memcmp(hit, CAB_METASPACE, CAB_METASPACE_SIZE) != 0) {
            at++;
            continue;
        }
        if (at > run)
            return at;
        at += CAB_METASPACE_SIZE;
        run = at;
    }
    return size;
}

cab_status cab_bpe_encode(const cab_bpe *bpe, const cab_vocab *vocab, cab_bpe_state *state, const char *word,
                          size_t size, cab_ids *ids)
{
    if (!bpe->cut_at_metaspace)
        return cached_or_encoded(bpe, vocab, state, word, size, ids);
    for (size_t begin = 0, end = 0; begin < size; begin = end) {
        end = next_cut(word, size, begin);
        CAB_TRY(cached_or_encoded(bpe, vocab, state, word + begin, end - begin, ids));
    }
    return CAB_OK;
}
