/* vocab.c - the tables of a tokenizer: strings to ids, merges, and the trie of added tokens.
 *
 * All hashes are open addressing with linear probing over a power of two of slots, at most half full, sized once. */
#include "base/file.h"
#include "base/memory.h"
#include "data/tokenizer_internal.h"

#include <string.h>

/* The power of two that keeps `count` entries at or under half of the slots. */
static cab_status table_size(uint64_t count, uint64_t *slots)
{
    uint64_t size = 16;
    if (count > UINT32_MAX)
        return cab_fail(CAB_EFORMAT, "a tokenizer of %llu entries, at most %u are read", (unsigned long long)count,
                        UINT32_MAX);
    while (size < 2 * count)
        size *= 2;
    *slots = size;
    return CAB_OK;
}

cab_status cab_vocab_init(cab_vocab *vocab, int32_t size, uint64_t strings)
{
    uint64_t slots = 0;
    *vocab = (cab_vocab){0};
    CAB_TRY(table_size(strings, &slots));
    CAB_TRY(CAB_NEW(&vocab->tokens, (size_t)size, "the vocabulary"));
    vocab->size = size;
    CAB_TRY(CAB_NEW(&vocab->slots, slots, "the vocabulary"));
    vocab->mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++)
        vocab->slots[i].id = -1;
    return CAB_OK;
}

void cab_vocab_free(cab_vocab *vocab)
{
    cab_bytes_free(&vocab->text);
    cab_free(vocab->tokens);
    cab_free(vocab->slots);
    *vocab = (cab_vocab){0};
}

/* The slot of the string, or the free one where it belongs. */
static struct cab_vocab_slot *vocab_slot(const cab_vocab *vocab, const char *text, size_t size)
{
    uint64_t at = cab_hash(CAB_HASH_START, text, size);
    for (at ^= at >> 32;; at++) {
        struct cab_vocab_slot *slot = &vocab->slots[at & vocab->mask];
        if (slot->id < 0 || (slot->size == size && memcmp(vocab->text.data + slot->offset, text, size) == 0))
            return slot;
    }
}

cab_status cab_vocab_add(cab_vocab *vocab, const char *text, size_t size, int32_t id)
{
    if (vocab->text.count + size > UINT32_MAX)
        return cab_fail(CAB_EFORMAT, "a vocabulary of more than %u bytes of text", UINT32_MAX);
    uint32_t offset = (uint32_t)vocab->text.count;
    CAB_TRY(cab_bytes_append(&vocab->text, text, size));
    vocab->tokens[id] = (cab_token_text){.offset = offset, .size = (uint32_t)size, .present = true};
    struct cab_vocab_slot *slot = vocab_slot(vocab, text, size);
    if (slot->id < 0)
        *slot = (struct cab_vocab_slot){offset, (uint32_t)size, id};
    return CAB_OK;
}

int32_t cab_vocab_find(const cab_vocab *vocab, const char *text, size_t size)
{
    return vocab_slot(vocab, text, size)->id;
}

/* ---- merges --------------------------------------------------------------------------------------------------------- */

cab_status cab_merges_init(cab_merges *merges, uint64_t count)
{
    uint64_t slots = 0;
    *merges = (cab_merges){0};
    CAB_TRY(table_size(count, &slots));
    CAB_TRY(CAB_NEW(&merges->slots, slots, "the merges"));
    merges->mask = slots - 1;
    for (uint64_t i = 0; i < slots; i++)
        merges->slots[i].key = UINT64_MAX;
    return CAB_OK;
}

void cab_merges_free(cab_merges *merges)
{
    cab_free(merges->slots);
    *merges = (cab_merges){0};
}

static cab_merge *merge_slot(const cab_merges *merges, uint64_t key)
{
    uint64_t at = (key * UINT64_C(0x9E3779B97F4A7C15)) >> 29; /* Fibonacci hashing; the middle bits mix both halves */
    while (merges->slots[at & merges->mask].key != key && merges->slots[at & merges->mask].key != UINT64_MAX)
        at++;
    return &merges->slots[at & merges->mask];
}

static uint64_t merge_key(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

void cab_merges_add(cab_merges *merges, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    *merge_slot(merges, merge_key(left, right)) = (cab_merge){merge_key(left, right), rank, id};
}

const cab_merge *cab_merges_find(const cab_merges *merges, int32_t left, int32_t right)
{
    const cab_merge *slot = merge_slot(merges, merge_key(left, right));
    return slot->key == UINT64_MAX ? NULL : slot;
}

/* ---- added tokens ----------------------------------------------------------------------------------------------------- */

static cab_status trie_node(cab_trie *trie)
{
    CAB_TRY(CAB_GROW(&trie->leaf, &trie->leaf_capacity, (size_t)trie->nodes + 1, "added tokens"));
    trie->leaf[trie->nodes++] = -1;
    return CAB_OK;
}

cab_status cab_trie_init(cab_trie *trie, uint64_t bytes)
{
    *trie = (cab_trie){0};
    if (bytes >= INT32_MAX)
        return cab_fail(CAB_EFORMAT, "added tokens of more than %d bytes together", INT32_MAX);
    CAB_TRY(cab_merges_init(&trie->edges, bytes));
    return trie_node(trie);
}

void cab_trie_free(cab_trie *trie)
{
    cab_merges_free(&trie->edges);
    cab_free(trie->leaf);
    cab_free(trie->added);
    *trie = (cab_trie){0};
}

cab_status cab_trie_add(cab_trie *trie, const char *text, size_t size, const cab_added *added)
{
    int32_t node = 0;
    if (size == 0)
        return CAB_OK;
    for (size_t i = 0; i < size; i++) {
        const cab_merge *edge = cab_merges_find(&trie->edges, node, (uint8_t)text[i]);
        if (edge == NULL) {
            CAB_TRY(trie_node(trie));
            cab_merges_add(&trie->edges, node, (uint8_t)text[i], 0, trie->nodes - 1);
            node = trie->nodes - 1;
        } else {
            node = edge->id;
        }
    }
    if (trie->leaf[node] >= 0) /* the first of equals counts */
        return CAB_OK;
    CAB_TRY(CAB_GROW(&trie->added, &trie->added_capacity, (size_t)trie->added_count + 1, "added tokens"));
    trie->leaf[node] = trie->added_count;
    trie->added[trie->added_count++] = *added;
    trie->first[(uint8_t)text[0]] = true;
    return CAB_OK;
}

const cab_added *cab_trie_find(const cab_trie *trie, const char *text, size_t size, size_t from, size_t *begin,
                               size_t *end)
{
    if (trie->added_count == 0)
        return NULL;
    for (size_t at = from; at < size; at++) {
        if (!trie->first[(uint8_t)text[at]])
            continue;
        const cab_added *best = NULL;
        int32_t node = 0;
        for (size_t i = at; i < size; i++) {
            const cab_merge *edge = cab_merges_find(&trie->edges, node, (uint8_t)text[i]);
            if (edge == NULL)
                break;
            node = edge->id;
            if (trie->leaf[node] >= 0) {
                best = &trie->added[trie->leaf[node]];
                *begin = at;
                *end = i + 1;
            }
        }
        if (best != NULL)
            return best;
    }
    return NULL;
}
