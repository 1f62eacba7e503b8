/* teacher_cache.h - what a teacher said of every token of the training windows: its k likeliest words and their log-probabilities, in
 * one file that later passes, and other runs, map.
 *
 *   0    "CABTEACH"
 *   8    u32 version 1, u32 k, u64 V, u64 L, u64 windows
 *   40   u64 of the teacher's weights and of how it was asked
 *   48   u64 0
 *   56   u64 XXH64 of the bytes before
 *   64   windows times { u64 XXH64 of the window's tokens and of the documents that it is of, u64 XXH64 of its record; 0: not there yet }
 *   ..   from the next multiple of 64 on: windows times
 *        L k ids, u16 where V <= 65536, else u32; L k u16, round(-2048 log p), at most 65535
 *
 * All numbers are little-endian. A record is written before its line of the table, so that a process may be killed at any moment. */
#ifndef CAB_TRAIN_TEACHER_CACHE_H
#define CAB_TRAIN_TEACHER_CACHE_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct cab_teacher_cache_key {
    uint64_t k, vocab_size, length, windows;
    uint64_t teacher; /* hash */
} cab_teacher_cache_key;

typedef struct cab_teacher_cache cab_teacher_cache;

/* Opens the file for this process alone, or makes it. CAB_EFORMAT: it is damaged, or of other sizes, of another teacher: the text says
 * which. CAB_EARG: another process writes it. */
cab_status cab_teacher_cache_open(const char *path, const cab_teacher_cache_key *key, cab_teacher_cache **cache);
void cab_teacher_cache_close(cab_teacher_cache *cache);

/* Whether the window is there for these tokens. */
bool cab_teacher_cache_has(const cab_teacher_cache *cache, uint64_t window, uint64_t tokens);
/* Adds or replaces: ids, top [L * k]. */
cab_status cab_teacher_cache_put(cab_teacher_cache *cache, uint64_t window, uint64_t tokens, const int32_t *ids,
                                 const float *top);
/* Nothing is put any more: others may read, too. */
cab_status cab_teacher_cache_ready(cab_teacher_cache *cache);
/* Reads a window into ids, top [L * k]. CAB_EFORMAT: not there for these tokens, or its bytes are not those that were written. */
cab_status cab_teacher_cache_get(const cab_teacher_cache *cache, uint64_t window, uint64_t tokens, int32_t *ids,
                                 float *top);
/* Bytes of the whole file. */
uint64_t cab_teacher_cache_bytes(const cab_teacher_cache_key *key);

#endif
