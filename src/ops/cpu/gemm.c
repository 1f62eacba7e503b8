/* gemm.c - the products a backend knows, in a hash table in its library slot, and who computes each. */
#include "ops/cpu/gemm.h"

#include "base/file.h"
#include "base/memory.h"
#include "ops/cpu/bf16_few.h"
#include "ops/cpu/block_gemm.h"
#include "ops/cpu/device.h"
#include "ops/cpu/onednn.h"
#include "ops/cpu/own_gemm.h"
#include "tensor/blocks.h"

#include <string.h>

/* What makes a product what it is, as numbers without padding: hashed and compared as bytes. */
enum { KEY_LENGTH = 24 };
typedef struct gemm_key {
    int64_t field[KEY_LENGTH];
} gemm_key;

struct cab_gemm {
    gemm_key key;
    cab_gemm_shape shape;
    int threads;
    cab_onednn *onednn; /* NULL: own */
    cab_own_gemm *own;
    cab_block_gemm *blocks;     /* B is in blocks; NULL: it is not */
    cab_bf16_few *few;          /* a few rows; NULL: it is not of bf16, or there are more */
    const cab_backend *backend; /* whose products those with blocks are made of */
};

typedef struct gemm_table {
    cab_gemm **place; /* open addressing, a power of two, at most half full */
    size_t size, used;
} gemm_table;

static void gemm_free(cab_gemm *gemm)
{
    if (gemm == NULL)
        return;
    cab_onednn_free(gemm->onednn);
    cab_free(gemm);
}

static void table_free(void *state)
{
    gemm_table *table = state;
    for (size_t i = 0; i < table->size; i++)
        gemm_free(table->place[i]);
    cab_free(table->place);
    cab_free(table);
}

static cab_status table_get(const cab_backend *backend, gemm_table **out)
{
    cab_library *library = backend->library;
    if (library->state == NULL) {
        gemm_table *table;
        CAB_TRY(CAB_NEW(&table, 1, "products"));
        library->state = table;
        library->free = table_free;
    }
    *out = library->state;
    return CAB_OK;
}

static gemm_key make_key(const cab_gemm_shape *s, int threads)
{
    const cab_side *const sides[] = {&s->a, &s->b, &s->c};
    int64_t bias = s->bias ? 1 + (int64_t)s->bias_dtype : 0;
    gemm_key key = {{s->m, s->n, s->k, s->batch[0], s->batch[1], s->accumulate, s->serial, threads, bias}};
    size_t n = 9;
    for (int i = 0; i < 3; i++) {
        key.field[n++] = sides[i]->dtype;
        key.field[n++] = sides[i]->row;
        key.field[n++] = sides[i]->column;
        key.field[n++] = sides[i]->batch[0];
        key.field[n++] = sides[i]->batch[1];
    }
    return key;
}

static cab_gemm **find(cab_gemm **place, size_t size, const gemm_key *key)
{
    size_t i = (size_t)cab_hash(CAB_HASH_START, key, sizeof *key) & (size - 1);
    while (place[i] != NULL && memcmp(&place[i]->key, key, sizeof *key) != 0)
        i = (i + 1) & (size - 1);
    return &place[i];
}

static cab_status make_room(gemm_table *table)
{
    if (table->size > 2 * table->used)
        return CAB_OK;
    size_t size = table->size > 0 ? 2 * table->size : 64;
    cab_gemm **place;
    CAB_TRY(CAB_NEW(&place, size, "products"));
    for (size_t i = 0; i < table->size; i++)
        if (table->place[i] != NULL)
            *find(place, size, &table->place[i]->key) = table->place[i];
    cab_free(table->place);
    table->place = place;
    table->size = size;
    return CAB_OK;
}

static cab_status make_gemm(const cab_backend *backend, const cab_gemm_shape *shape, const gemm_key *key,
                            cab_gemm **out)
{
    static cab_own_gemm *const own[CAB_ISAS] = {cab_own_gemm_v1, cab_own_gemm_v3, cab_own_gemm_v4};
    static cab_block_gemm *const blocks[CAB_ISAS] = {cab_block_gemm_v1, cab_block_gemm_v3, cab_block_gemm_v4};
    static cab_bf16_few *const few[CAB_ISAS] = {cab_bf16_few_v1, cab_bf16_few_v3, cab_bf16_few_v4};
    const bool in_blocks = cab_dtype_is_blocks(shape->b.dtype);
    cab_gemm *gemm;
    if (in_blocks)
        CAB_TRY(cab_product_check_blocks(shape));
    CAB_TRY(CAB_NEW(&gemm, 1, "products"));
    gemm->key = *key;
    gemm->shape = *shape;
    gemm->threads = backend->threads;
    gemm->backend = backend;
    gemm->own = own[cab_cpu_isa(backend)];
    gemm->blocks = in_blocks ? blocks[cab_cpu_isa(backend)] : NULL;
    gemm->few = cab_bf16_few_suits(shape) ? few[cab_cpu_isa(backend)] : NULL;
    cab_status status = CAB_OK;
    if (!in_blocks && gemm->few == NULL && cab_onednn_suits(backend, shape))
        status = cab_onednn_new(shape, backend->threads, &gemm->onednn);
    if (status == CAB_OK)
        *out = gemm;
    else
        gemm_free(gemm);
    return status;
}

cab_status cab_gemm_get(const cab_backend *backend, const cab_gemm_shape *shape, const cab_gemm **out)
{
    gemm_table *table;
    *out = NULL;
    CAB_TRY(table_get(backend, &table));
    CAB_TRY(make_room(table));
    cab_gemm_shape s = *shape;
    for (int i = 0; i < 2; i++)
        s.batch[i] = s.batch[i] > 0 ? s.batch[i] : 1;
    gemm_key key = make_key(&s, backend->threads);
    cab_gemm **place = find(table->place, table->size, &key);
    if (*place == NULL) {
        CAB_TRY(make_gemm(backend, &s, &key, place));
        table->used++;
    }
    *out = *place;
    return CAB_OK;
}

static int own_threads(const cab_gemm *gemm)
{
    return gemm->shape.serial ? 1 : gemm->threads;
}

size_t cab_gemm_scratch(const cab_gemm *gemm)
{
    if (gemm->blocks != NULL)
        return cab_block_gemm_scratch(gemm->backend, &gemm->shape);
    if (gemm->few != NULL)
        return cab_bf16_few_scratch(&gemm->shape);
    return gemm->onednn != NULL ? cab_onednn_scratch(gemm->onednn) : cab_own_gemm_scratch(own_threads(gemm));
}

size_t cab_gemm_scratch_of(const cab_backend *backend, const cab_gemm_shape *shape)
{
    const cab_gemm *gemm;
    return cab_gemm_get(backend, shape, &gemm) == CAB_OK ? cab_gemm_scratch(gemm) : 0;
}

/* ---- a few rows ---------------------------------------------------------------------------------------------------- */

bool cab_bf16_few_suits(const cab_gemm_shape *s)
{
    return s->m <= CAB_BF16_FEW && s->a.dtype == CAB_BF16 && s->b.dtype == CAB_BF16 && s->a.column == 1 &&
           s->batch[0] * s->batch[1] == 1 && !s->serial && !s->accumulate;
}

size_t cab_bf16_few_scratch(const cab_gemm_shape *s)
{
    return ((size_t)(s->m * s->k) * sizeof(float) + 63) / 64 * 64;
}

/* ---- B in blocks --------------------------------------------------------------------------------------------------- */

/* About a MiB of bf16: what is expanded is still in the second-level cache when it is multiplied. */
int64_t cab_block_gemm_tile(const cab_gemm_shape *s)
{
    enum { ELEMENTS = 1 << 19, STEP = 64 };
    const int64_t rows = ELEMENTS / s->k / STEP * STEP, tile = rows > STEP ? rows : STEP;
    return tile < s->n ? tile : s->n;
}

cab_gemm_shape cab_block_gemm_part(const cab_gemm_shape *s, int64_t columns)
{
    cab_gemm_shape part = *s;
    part.n = columns;
    part.b = cab_side_dense(s->a.dtype, s->k, true);
    return part;
}

size_t cab_block_gemm_scratch(const cab_backend *backend, const cab_gemm_shape *s)
{
    const int64_t tile = cab_block_gemm_tile(s), last = s->n % tile;
    const cab_gemm_shape parts[2] = {cab_block_gemm_part(s, tile), cab_block_gemm_part(s, last > 0 ? last : tile)};
    if (s->m <= CAB_BLOCK_FEW)
        return (size_t)(s->m * s->k) * 2 * sizeof(float); /* block_few.c takes 6.25 bytes of an element */
    const size_t expanded = ((size_t)(tile * s->k) * cab_dtype_size(s->a.dtype) + 63) / 64 * 64;
    const size_t a = cab_gemm_scratch_of(backend, &parts[0]), b = cab_gemm_scratch_of(backend, &parts[1]);
    return expanded + (a > b ? a : b);
}

cab_status cab_gemm_run(const cab_gemm *gemm, const void *a, const void *b, void *c, const void *bias, void *scratch)
{
    if (gemm->blocks != NULL)
        return gemm->blocks(gemm->backend, &gemm->shape, a, b, c, bias, scratch);
    if (gemm->few != NULL) {
        gemm->few(gemm->backend, &gemm->shape, a, b, c, bias, scratch);
        return CAB_OK;
    }
    if (gemm->onednn != NULL)
        return cab_onednn_run(gemm->onednn, a, b, c, bias, scratch);
    gemm->own(&gemm->shape, own_threads(gemm), a, b, c, bias, scratch);
    return CAB_OK;
}
