/* params.c - a list of parameters, each with its gradient and its bf16 copy beside it, none of which ever moves. */
#include "tensor/params.h"

#include "base/memory.h"

#include <fnmatch.h>
#include <inttypes.h>
#include <string.h>

typedef struct entry {
    cab_tensor tensor;
    cab_tensor grad;
    cab_tensor low;
    cab_tensor quantised, scale; /* in one block */
    cab_decay decay;
    bool mapped;    /* values belong to somebody else */
    int stored_dim; /* 0: stored as it is */
    int64_t stored_shape[CAB_MAX_DIMS];
} entry;

typedef struct gradient_block {
    float *data;
    size_t count, used; /* elements; used: those in buckets, from the front */
} gradient_block;

struct cab_params {
    cab_backend *backend;
    entry **entries; /* each stays where it is: graphs hold pointers into it */
    size_t count, capacity;
    gradient_block *blocks;
    size_t n_blocks, blocks_capacity;
    size_t bytes;
};

cab_status cab_params_new(cab_backend *backend, cab_params **params)
{
    CAB_TRY(CAB_NEW(params, 1, "a parameter store"));
    (*params)->backend = backend;
    return CAB_OK;
}

void cab_params_free(cab_params *params)
{
    if (params == NULL)
        return;
    for (size_t i = 0; i < params->count; i++) {
        entry *e = params->entries[i];
        if (!e->mapped)
            params->backend->release(params->backend, e->tensor.data);
        params->backend->release(params->backend, e->low.data);
        params->backend->release(params->backend, e->quantised.data);
        cab_free(e);
    }
    for (size_t i = 0; i < params->n_blocks; i++)
        params->backend->release(params->backend, params->blocks[i].data);
    cab_free(params->blocks);
    cab_free(params->entries);
    cab_free(params);
}

static cab_status check_new(const cab_params *params, const char *name, int n_dim, const int64_t *shape)
{
    if (cab_params_find(params, name) != NULL)
        return cab_fail(CAB_EARG, "parameter \"%s\" is declared twice", name);
    if (strlen(name) >= CAB_NAME_MAX)
        return cab_fail(CAB_EARG, "parameter name \"%s\" is longer than %d characters", name, CAB_NAME_MAX - 1);
    if (n_dim < 1 || n_dim > CAB_MAX_DIMS)
        return cab_fail(CAB_ESHAPE, "parameter \"%s\" has %d dimensions, expected 1 to %d", name, n_dim, CAB_MAX_DIMS);
    int64_t elements = 1;
    for (int i = 0; i < n_dim; i++)
        if (shape[i] < 1 || __builtin_mul_overflow(elements, shape[i], &elements) || elements > INT64_MAX / 8)
            return cab_fail(CAB_ESHAPE, "parameter \"%s\": dimension %d is %" PRId64 ", too small or too large", name,
                            i, shape[i]);
    return CAB_OK;
}

static void describe(cab_tensor *t, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape)
{
    memcpy(t->name, name, strlen(name) + 1);
    t->kind = CAB_PARAMETER;
    t->dtype = dtype;
    t->n_dim = n_dim;
    memcpy(t->shape, shape, (size_t)n_dim * sizeof *shape);
    t->ld = shape[n_dim - 1];
    t->id = -1;
    t->producer = -1;
}

static cab_status add(cab_params *params, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                      entry **out)
{
    CAB_TRY(check_new(params, name, n_dim, shape));
    CAB_TRY(CAB_GROW(&params->entries, &params->capacity, params->count + 1, "a parameter list"));
    CAB_TRY(CAB_NEW(out, 1, name));
    describe(&(*out)->tensor, name, dtype, n_dim, shape);
    (*out)->tensor.owner = params;
    return CAB_OK;
}

cab_status cab_params_add(cab_params *params, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                          cab_decay decay, cab_tensor **out)
{
    entry *e = NULL;
    CAB_TRY(add(params, name, dtype, n_dim, shape, &e));
    e->decay = decay;
    size_t bytes = cab_tensor_bytes(&e->tensor);
    cab_status status = params->backend->allocate(params->backend, bytes, name, &e->tensor.data);
    if (status != CAB_OK) {
        cab_free(e);
        return status;
    }
    params->bytes += bytes;
    params->entries[params->count++] = e;
    *out = &e->tensor;
    return CAB_OK;
}

cab_status cab_params_add_mapped(cab_params *params, const char *name, cab_dtype dtype, int n_dim, const int64_t *shape,
                                 const void *data, cab_tensor **out)
{
    entry *e = NULL;
    CAB_TRY(add(params, name, dtype, n_dim, shape, &e));
    e->decay = CAB_NO_DECAY;
    e->mapped = true;
    e->tensor.data = (void *)data; /* never written: mapped parameters cannot be made trainable */
    params->entries[params->count++] = e;
    *out = &e->tensor;
    return CAB_OK;
}

size_t cab_params_count(const cab_params *params)
{
    return params->count;
}

cab_tensor *cab_params_at(const cab_params *params, size_t index)
{
    return &params->entries[index]->tensor;
}

cab_decay cab_params_decay(const cab_params *params, size_t index)
{
    return params->entries[index]->decay;
}

cab_tensor *cab_params_find(const cab_params *params, const char *name)
{
    for (size_t i = 0; i < params->count; i++)
        if (strcmp(params->entries[i]->tensor.name, name) == 0)
            return &params->entries[i]->tensor;
    return NULL;
}

uint64_t cab_params_elements(const cab_params *params)
{
    uint64_t n = 0;
    for (size_t i = 0; i < params->count; i++)
        n += (uint64_t)cab_elements(&params->entries[i]->tensor);
    return n;
}

size_t cab_params_bytes(const cab_params *params)
{
    return params->bytes;
}

/* ---- gradients ---------------------------------------------------------------------------------------------------- */

/* A gradient begins at a multiple of so many elements, 256 bytes; so does a rank's piece of a bucket. */
enum { GRADIENT_ALIGNMENT = 64 };
/* Buckets of a block: about so many, of so many elements at least and at most (1 to 32 MiB). The first can go when an
 * eighth of the gradients is there, and large ones use a link well. */
enum { BUCKETS = 8, BUCKET_LEAST = 1 << 18, BUCKET_MOST = 1 << 23 };

static size_t round_to(size_t n, size_t multiple)
{
    return (n + multiple - 1) / multiple * multiple;
}

/* What a bucket's number of elements is a multiple of. */
static size_t bucket_unit(const cab_params *params)
{
    return GRADIENT_ALIGNMENT * (size_t)cab_communicator_size(params->backend->communicator);
}

static size_t bucket_elements(const cab_params *params, const gradient_block *block)
{
    size_t n = block->used / BUCKETS;
    n = n < BUCKET_LEAST ? BUCKET_LEAST : n > BUCKET_MOST ? BUCKET_MOST : n;
    return round_to(n, bucket_unit(params));
}

static size_t buckets_of(const cab_params *params, const gradient_block *block)
{
    const size_t n = bucket_elements(params, block);
    return (block->used + n - 1) / n;
}

size_t cab_params_buckets(const cab_params *params)
{
    size_t n = 0;
    for (size_t i = 0; i < params->n_blocks; i++)
        n += buckets_of(params, &params->blocks[i]);
    return n;
}

cab_bucket cab_params_bucket(const cab_params *params, size_t index)
{
    const gradient_block *block = params->blocks;
    for (; index >= buckets_of(params, block); block++)
        index -= buckets_of(params, block);
    const size_t n = bucket_elements(params, block), first = index * n, left = block->used - first;
    return (cab_bucket){block->data + first, left < n ? left : n};
}

static cab_status check_trainable(const entry *e)
{
    if (e->mapped || e->tensor.dtype != CAB_F32)
        return cab_fail(CAB_EARG, "parameter \"%s\" was loaded frozen and cannot train", e->tensor.name);
    return CAB_OK;
}

/* One block for the gradients of the trainable parameters that have none. */
static cab_status add_gradients(cab_params *params)
{
    size_t count = 0, at = 0;
    for (size_t i = 0; i < params->count; i++) {
        const cab_tensor *t = &params->entries[i]->tensor;
        if (t->trainable && t->grad == NULL)
            count += round_to((size_t)cab_elements(t), GRADIENT_ALIGNMENT);
    }
    if (count == 0)
        return CAB_OK;
    count = round_to(count, bucket_unit(params));
    CAB_TRY(CAB_GROW(&params->blocks, &params->blocks_capacity, params->n_blocks + 1, "gradients"));
    gradient_block *block = &params->blocks[params->n_blocks];
    CAB_TRY(params->backend->allocate(params->backend, count * sizeof(float), "gradients", (void **)&block->data));
    block->count = count;
    block->used = count;
    params->n_blocks++;
    for (size_t i = params->count; i-- > 0;) {
        entry *e = params->entries[i];
        if (!e->tensor.trainable || e->tensor.grad != NULL)
            continue;
        describe(&e->grad, e->tensor.name, CAB_F32, e->tensor.n_dim, e->tensor.shape);
        e->grad.data = block->data + at;
        e->tensor.grad = &e->grad;
        params->bytes += cab_tensor_bytes(&e->grad);
        at += round_to((size_t)cab_elements(&e->tensor), GRADIENT_ALIGNMENT);
    }
    return CAB_OK;
}

static bool lies_in(const entry *e, const gradient_block *block)
{
    const float *data = e->grad.data;
    return e->tensor.grad != NULL && data >= block->data && data < block->data + block->count;
}

/* Gives the gradients of a block that are chosen, or those that are not, their places from *at on. */
static void place_gradients(cab_params *params, const gradient_block *block, const bool *chosen, bool which, size_t *at)
{
    for (size_t i = params->count; i-- > 0;) {
        entry *e = params->entries[i];
        if (!lies_in(e, block) || chosen[i] != which)
            continue;
        e->grad.data = block->data + *at;
        *at += round_to((size_t)cab_elements(&e->tensor), GRADIENT_ALIGNMENT);
    }
}

void cab_params_choose_gradients(cab_params *params, const bool *chosen)
{
    for (size_t b = 0; b < params->n_blocks; b++) {
        size_t at = 0;
        place_gradients(params, &params->blocks[b], chosen, true, &at);
        params->blocks[b].used = round_to(at, bucket_unit(params));
        place_gradients(params, &params->blocks[b], chosen, false, &at);
    }
}

cab_status cab_params_set_trainable(cab_params *params, const char *pattern, bool trainable, size_t *matched)
{
    size_t n = 0;
    for (size_t i = 0; i < params->count; i++) {
        entry *e = params->entries[i];
        if (fnmatch(pattern, e->tensor.name, 0) != 0)
            continue;
        n++;
        if (trainable)
            CAB_TRY(check_trainable(e));
        e->tensor.trainable = trainable;
    }
    if (matched != NULL)
        *matched = n;
    return add_gradients(params);
}

/* ---- host access -------------------------------------------------------------------------------------------------- */

/* Values of another type than fp32 are converted on the host, so many at a time. */
enum { CONVERT_PIECE = 1 << 20 };

static cab_status upload_as(cab_params *params, cab_tensor *t, const float *values)
{
    const size_t n = (size_t)cab_elements(t), size = cab_dtype_size(t->dtype);
    const size_t piece = n < CONVERT_PIECE ? n : CONVERT_PIECE;
    if (t->dtype == CAB_F32)
        return params->backend->upload(params->backend, t->data, values, cab_tensor_bytes(t));
    void *converted = NULL;
    cab_status status;
    CAB_TRY(cab_alloc(&converted, piece, size, t->name));
    for (size_t first = 0; first < n; first += piece) {
        const size_t count = n - first < piece ? n - first : piece;
        cab_convert(converted, t->dtype, values + first, CAB_F32, count);
        CAB_GOTO(params->backend->upload(params->backend, (char *)t->data + first * size, converted, count * size));
    }
    status = CAB_OK;
done:
    cab_free(converted);
    return status;
}

static entry *entry_of(cab_tensor *parameter)
{
    return (entry *)((char *)parameter - offsetof(entry, tensor));
}

void cab_params_store_as(cab_tensor *parameter, int n_dim, const int64_t *shape)
{
    entry *e = entry_of(parameter);
    e->stored_dim = n_dim;
    memcpy(e->stored_shape, shape, (size_t)n_dim * sizeof *shape);
}

const int64_t *cab_params_stored_shape(const cab_params *params, size_t index, int *n_dim)
{
    const entry *e = params->entries[index];
    *n_dim = e->stored_dim > 0 ? e->stored_dim : e->tensor.n_dim;
    return e->stored_dim > 0 ? e->stored_shape : e->tensor.shape;
}

/* The bf16 copy from its master, which is fp32. */
static cab_status refresh(cab_params *params, cab_tensor *parameter)
{
    parameter->low->version++;
    return params->backend->narrow(params->backend, parameter->low->data, parameter->data,
                                   (size_t)cab_elements(parameter));
}

cab_status cab_params_write(cab_params *params, cab_tensor *parameter, const float *values)
{
    if (entry_of(parameter)->mapped)
        return cab_fail(CAB_EARG, "parameter \"%s\" lies in a mapped file and cannot be written", parameter->name);
    CAB_TRY(upload_as(params, parameter, values));
    parameter->version++;
    return parameter->low != NULL ? refresh(params, parameter) : CAB_OK;
}

cab_status cab_params_write_blocks(cab_params *params, cab_tensor *parameter, const void *blocks)
{
    parameter->version++;
    return params->backend->upload(params->backend, parameter->data, blocks, cab_tensor_bytes(parameter));
}

static cab_status download_as(const cab_params *params, const cab_tensor *t, float *values)
{
    const size_t n = (size_t)cab_elements(t), piece = n < CONVERT_PIECE ? n : CONVERT_PIECE; /* whole blocks */
    const bool blocks = cab_dtype_is_blocks(t->dtype);
    if (t->dtype == CAB_F32)
        return params->backend->download(params->backend, values, t->data, cab_tensor_bytes(t));
    void *raw = NULL;
    cab_status status;
    CAB_TRY(cab_alloc(&raw, cab_dtype_bytes(t->dtype, (int64_t)piece), 1, t->name));
    for (size_t first = 0; first < n; first += piece) {
        const size_t count = n - first < piece ? n - first : piece;
        CAB_GOTO(params->backend->download(params->backend, raw,
                                           (const char *)t->data + cab_dtype_bytes(t->dtype, (int64_t)first),
                                           cab_dtype_bytes(t->dtype, (int64_t)count)));
        if (blocks)
            cab_blocks_expand(t->dtype, raw, values + first, (int64_t)count);
        else
            cab_convert(values + first, CAB_F32, raw, t->dtype, count);
    }
    status = CAB_OK;
done:
    cab_free(raw);
    return status;
}

cab_status cab_params_read(const cab_params *params, const cab_tensor *parameter, float *values)
{
    return download_as(params, parameter, values);
}

cab_status cab_params_read_grad(const cab_params *params, const cab_tensor *parameter, float *values)
{
    if (parameter->grad == NULL)
        return cab_fail(CAB_EARG, "parameter \"%s\" does not train and has no gradient", parameter->name);
    return download_as(params, parameter->grad, values);
}

cab_status cab_params_zero_grad(cab_params *params)
{
    for (size_t i = 0; i < params->n_blocks; i++) {
        const size_t bytes = params->blocks[i].count * sizeof(float);
        CAB_TRY(params->backend->fill(params->backend, params->blocks[i].data, 0, bytes, bytes, 1));
    }
    return CAB_OK;
}

cab_status cab_params_low(cab_params *params, cab_tensor *parameter, cab_tensor **low)
{
    if (parameter->low == NULL) {
        entry *e = entry_of(parameter);
        describe(&e->low, parameter->name, CAB_BF16, parameter->n_dim, parameter->shape);
        e->low.owner = params;
        e->low.master = parameter;
        CAB_TRY(params->backend->allocate(params->backend, cab_tensor_bytes(&e->low), parameter->name, &e->low.data));
        params->bytes += cab_tensor_bytes(&e->low);
        parameter->low = &e->low;
        CAB_TRY(refresh(params, parameter));
    }
    *low = parameter->low;
    return CAB_OK;
}

cab_status cab_params_quantised(cab_params *params, cab_tensor *parameter, int64_t rows, int64_t columns,
                                cab_quantised *quantised, bool *fresh)
{
    enum { ALIGNMENT = 256 };
    entry *e = entry_of(parameter);
    *quantised = (cab_quantised){&e->quantised, &e->scale};
    *fresh = e->quantised.data == NULL;
    if (!*fresh)
        return CAB_OK;
    describe(&e->quantised, parameter->name, CAB_U8, 2, (int64_t[]){rows, columns});
    describe(&e->scale, parameter->name, CAB_F32, 1, (int64_t[]){1});
    const size_t bytes = (cab_tensor_bytes(&e->quantised) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    CAB_TRY(params->backend->allocate(params->backend, bytes + sizeof(float), parameter->name, &e->quantised.data));
    e->scale.data = (char *)e->quantised.data + bytes;
    e->quantised.owner = e->scale.owner = params;
    params->bytes += bytes + sizeof(float);
    return CAB_OK;
}

cab_status cab_params_refresh(cab_params *params)
{
    for (size_t i = 0; i < params->count; i++) {
        params->entries[i]->tensor.version++;
        if (params->entries[i]->tensor.low != NULL)
            CAB_TRY(refresh(params, &params->entries[i]->tensor));
    }
    return CAB_OK;
}
