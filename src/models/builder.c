/* builder.c - where an architecture's parameters come from: a checkpoint, mapped or converted, or fresh zeros. */
#include "models/builder.h"

#include "base/memory.h"
#include "models/outline.h"

#include <fnmatch.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const no_prefixes[] = {"", NULL};

void cab_builder_prefixes(cab_builder *b, const char *const *prefixes)
{
    b->prefixes = prefixes;
}

void cab_builder_layer(cab_builder *b, const char *format, int l)
{
    snprintf(b->scope, sizeof b->scope, format, l);
}

void cab_builder_no_layer(cab_builder *b)
{
    b->scope[0] = '\0';
}

void cab_builder_name(const cab_builder *b, const char *name, char out[CAB_NAME_MAX])
{
    const char *const *prefixes = b->prefixes != NULL ? b->prefixes : no_prefixes;
    for (int i = 0; prefixes[i] != NULL && b->source != NULL; i++) {
        snprintf(out, CAB_NAME_MAX, "%s%s%s", prefixes[i], b->scope, name);
        if (cab_checkpoint_has(b->source, out))
            return;
    }
    snprintf(out, CAB_NAME_MAX, "%s%s%s", prefixes[0], b->scope, name);
}

static cab_status check_finite_bf16(const cab_builder *b, const char *name, const cab_bf16 *values, int64_t n)
{
    int64_t bad = 0;
#pragma omp parallel for reduction(+ : bad)
    for (int64_t i = 0; i < n; i++)
        bad += (values[i] & 0x7f80u) == 0x7f80u;
    if (bad > 0)
        return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\": %lld of %lld values are NaN or infinite",
                        cab_checkpoint_directory(b->source), name, (long long)bad, (long long)n);
    return CAB_OK;
}

/* A frozen tensor already stored in the wanted type is used where it lies. */
static cab_status try_mapped(cab_builder *b, const char *name, const cab_declaration *d, cab_tensor **out)
{
    const void *data = NULL;
    *out = NULL;
    if (d->dtype != CAB_BF16 || !b->backend->host)
        return CAB_OK;
    CAB_TRY(cab_checkpoint_view(b->source, name, d->stored_dim, d->stored_shape, d->dtype, &data));
    if (data == NULL)
        return CAB_OK;
    CAB_TRY(cab_params_add_mapped(b->params, name, d->dtype, d->n_dim, d->shape, data, out));
    return check_finite_bf16(b, name, data, cab_elements(*out));
}

/* Values are expanded only where they are multiplied: here, to see that they are numbers. */
static cab_status check_finite_blocks(const cab_builder *b, const cab_tensor *t, const void *data)
{
    enum { PIECE = 256 };
    const int64_t n = cab_elements(t), pieces = (n + PIECE - 1) / PIECE;
    int64_t bad = 0;
#pragma omp parallel for reduction(+ : bad)
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t count = n - i * PIECE < PIECE ? n - i * PIECE : PIECE;
        float values[PIECE];
        cab_blocks_expand(t->dtype, (const char *)data + cab_dtype_bytes(t->dtype, i * PIECE), values, count);
        for (int64_t e = 0; e < count; e++)
            bad += !isfinite(values[e]);
    }
    if (bad > 0)
        return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\": %lld of %lld values are NaN or infinite",
                        cab_checkpoint_directory(b->source), t->name, (long long)bad, (long long)n);
    return CAB_OK;
}

/* A copy of blocks on the device; data NULL: the file has their rows in another order. */
static cab_status copy_blocks(cab_builder *b, const void *data, cab_tensor *t)
{
    void *ordered = NULL;
    cab_status status;
    if (data == NULL) {
        CAB_TRY(cab_alloc(&ordered, cab_tensor_bytes(t), 1, t->name));
        cab_checkpoint_read_blocks(b->source, t->name, ordered);
        data = ordered;
    }
    CAB_GOTO(check_finite_blocks(b, t, data));
    status = cab_params_write_blocks(b->params, t, data);
done:
    cab_free(ordered);
    return status;
}

/* Where matrices stay as they are: one in blocks, used where it lies, or copied: to a device, or where its rows lie in another order. */
static cab_status try_blocks(cab_builder *b, const char *name, const cab_declaration *d, cab_tensor **out)
{
    cab_dtype dtype = CAB_DTYPES;
    const void *data = NULL;
    if (!b->as_is || !d->blocks)
        return CAB_OK;
    CAB_TRY(cab_checkpoint_blocks(b->source, name, d->shape, &dtype, &data));
    if (dtype == CAB_DTYPES)
        return CAB_OK;
    ++*b->in_blocks;
    if (data != NULL && b->backend->host) {
        CAB_TRY(cab_params_add_mapped(b->params, name, dtype, 2, d->shape, data, out));
        return check_finite_blocks(b, *out, data);
    }
    CAB_TRY(cab_params_add(b->params, name, dtype, 2, d->shape, CAB_NO_DECAY, out));
    return copy_blocks(b, data, *out);
}

/* Of a dry build. */
static cab_status count(cab_builder *b, cab_tensor **out, const cab_declaration *d, const char *name)
{
    uint64_t elements = 1;
    bool overflow = false;
    for (int i = 0; i < d->n_dim; i++)
        overflow = overflow || __builtin_mul_overflow(elements, (uint64_t)d->shape[i], &elements);
    overflow = overflow || __builtin_add_overflow(b->count->parameters, elements, &b->count->parameters);
    if (overflow)
        return cab_fail(CAB_ESHAPE, "parameter \"%s\" is too large", name);
    b->count->matrices += d->n_dim == 2 ? elements : 0;
    *out = &b->counted;
    return CAB_OK;
}

cab_status cab_builder_declare(cab_builder *b, cab_tensor **out, const cab_declaration *declared,
                               const char *short_name)
{
    cab_declaration d = *declared;
    char name[CAB_NAME_MAX];
    cab_builder_name(b, short_name, name);
    cab_builder_used(b, name);
    if (b->outline != NULL)
        return cab_outline_note(b->outline, name, &d, out);
    if (b->count != NULL)
        return count(b, out, &d, name);
    if (b->trainable)
        d.dtype = CAB_F32;
    const void *stored = NULL;
    if (b->source != NULL) /* checks the shape, before config.json's sizes are believed and allocated */
        CAB_TRY(cab_checkpoint_view(b->source, name, d.stored_dim, d.stored_shape, d.dtype, &stored));
    if (b->source != NULL && !b->trainable) {
        *out = NULL;
        CAB_TRY(try_blocks(b, name, &d, out));
        if (*out == NULL)
            CAB_TRY(try_mapped(b, name, &d, out));
        if (*out != NULL)
            return CAB_OK;
    }
    CAB_TRY(cab_params_add(b->params, name, d.dtype, d.n_dim, d.shape, d.decay, out));
    if (d.stored_shape != d.shape)
        cab_params_store_as(*out, d.stored_dim, d.stored_shape);
    if (b->source == NULL)
        return CAB_OK;
    float *values = NULL;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(*out), name));
    cab_status status = cab_checkpoint_read_f32(b->source, name, d.stored_dim, d.stored_shape, values);
    for (int64_t i = 0; status == CAB_OK && d.offset != 0 && i < cab_elements(*out); i++)
        values[i] += d.offset;
    if (status == CAB_OK)
        status = cab_params_write(b->params, *out, values);
    cab_free(values);
    return status;
}

static cab_status add_parameter(cab_builder *b, cab_tensor **out, cab_dtype dtype, cab_decay decay, int n_dim,
                                const int64_t *shape, const char *short_name)
{
    const cab_declaration d = {dtype, decay, n_dim, n_dim, shape, shape, 0, false};
    return cab_builder_declare(b, out, &d, short_name);
}

cab_status cab_builder_filter(cab_builder *b, cab_tensor **out, int n_dim, const int64_t *shape, const char *format,
                              ...)
{
    char name[CAB_NAME_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    int64_t matrix[2] = {shape[0], 1};
    for (int i = 1; i < n_dim; i++)
        matrix[1] *= shape[i];
    const cab_declaration d = {b->dtype, CAB_DECAY, 2, n_dim, matrix, shape, 0, false};
    return cab_builder_declare(b, out, &d, name);
}

void cab_builder_used(cab_builder *b, const char *name)
{
    const size_t index = b->source == NULL ? 0 : cab_checkpoint_index(b->source, name);
    if (b->source != NULL && index < cab_checkpoint_count(b->source))
        b->used[index] = true;
}

static bool matches(const char *const *patterns, const char *name)
{
    for (int i = 0; patterns != NULL && patterns[i] != NULL; i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

cab_status cab_builder_finish(const cab_builder *b, const char *const *unread)
{
    const char *first = NULL;
    char more[48] = " is";
    size_t left = 0;
    for (size_t i = 0; b->source != NULL && i < cab_checkpoint_count(b->source); i++) {
        const char *name = cab_checkpoint_at(b->source, i)->name;
        if (b->used[i] || matches(unread, name))
            continue;
        first = left++ == 0 ? name : first;
    }
    if (left == 0)
        return CAB_OK;
    if (left > 1)
        snprintf(more, sizeof more, " and %zu more are", left - 1);
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: tensor \"%s\"%s left over: the model that config.json describes has no place for it (other "
                    "sizes, or a variant that is not supported)",
                    cab_checkpoint_directory(b->source), first, more);
}

/* The head's copy of a tied matrix, if it is stored, must be the embedding. */
static cab_status check_copy(cab_builder *b, const char *embedding, const char *head)
{
    char names[2][CAB_NAME_MAX];
    cab_builder_name(b, embedding, names[0]);
    cab_builder_name(b, head, names[1]);
    const cab_safetensors_entry *e = cab_checkpoint_find(b->source, names[0]);
    const cab_safetensors_entry *h = cab_checkpoint_find(b->source, names[1]);
    if (e == NULL || h == NULL)
        return CAB_OK;
    cab_builder_used(b, names[1]);
    if (e->dtype == h->dtype && e->bytes == h->bytes && (e->bytes == 0 || memcmp(e->data, h->data, e->bytes) == 0))
        return CAB_OK;
    return cab_fail(CAB_EFORMAT,
                    "%s: tensors \"%s\" and \"%s\" differ, expected equal ones: tie_word_embeddings is true",
                    cab_checkpoint_directory(b->source), names[0], names[1]);
}

cab_status cab_builder_embedding(cab_builder *b, cab_network *n, const cab_config *c, const char *name,
                                 const char *head)
{
    const bool by_head = c->tied && !cab_builder_has(b, name) && cab_builder_has(b, head);
    CAB_TRY(cab_builder_matrix(b, &n->embedding, c->vocab_size, c->d_model, "%s", by_head ? head : name));
    return !c->tied || b->source == NULL || by_head ? CAB_OK : check_copy(b, name, head);
}

cab_status cab_builder_head(cab_builder *b, cab_network *n, const cab_config *c, bool biased, const char *name)
{
    if (!c->tied)
        return cab_builder_dense(b, &n->head, c->d_model, c->vocab_size, biased, name);
    n->head.w = n->embedding;
    return biased ? cab_builder_vector(b, &n->head.b, c->vocab_size, "%s.bias", name) : CAB_OK;
}

/* The stored tensor, checked before room for it is taken, picked into values[rows * width]. */
static cab_status pick(const cab_builder *b, const char *name, int n_dim, const int64_t stored[2], int64_t width,
                       const int64_t *order, int64_t rows, float *values)
{
    const void *data = NULL;
    float *all = NULL;
    cab_status status;
    CAB_TRY(cab_checkpoint_view(b->source, name, n_dim, stored, CAB_F32, &data));
    CAB_GOTO(CAB_NEW(&all, (size_t)(stored[0] * width), name));
    CAB_GOTO(cab_checkpoint_read_f32(b->source, name, n_dim, stored, all));
    for (int64_t r = 0; r < rows; r++)
        memcpy(values + r * width, all + order[r] * width, (size_t)width * sizeof *values);
done:
    cab_free(all);
    return status;
}

cab_status cab_builder_picked(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, int64_t stored_rows,
                              const int64_t *order, const char *short_name)
{
    const int64_t shape[2] = {rows, columns}, stored[2] = {stored_rows, columns}, width = columns > 0 ? columns : 1;
    const int n_dim = columns > 0 ? 2 : 1;
    char name[CAB_NAME_MAX];
    float *values = NULL;
    cab_status status;
    if (b->source == NULL)
        return columns > 0 ? cab_builder_matrix(b, out, rows, columns, "%s", short_name)
                           : cab_builder_vector(b, out, rows, "%s", short_name);
    cab_builder_name(b, short_name, name);
    cab_builder_used(b, name);
    CAB_GOTO(CAB_NEW(&values, (size_t)(rows * width), name));
    CAB_GOTO(pick(b, name, n_dim, stored, width, order, rows, values));
    CAB_GOTO(cab_params_add(b->params, name, n_dim == 1 || b->trainable ? CAB_F32 : b->dtype, n_dim, shape,
                            n_dim == 1 ? CAB_NO_DECAY : CAB_DECAY, out));
    status = cab_params_write(b->params, *out, values);
done:
    cab_free(values);
    return status;
}

/* A stored tensor, under its full name; its shape is checked before room for it is taken. The caller frees it. */
static cab_status read_stored(cab_builder *b, const char *short_name, int n_dim, const int64_t *shape, float **values)
{
    char name[CAB_NAME_MAX];
    const void *data = NULL;
    int64_t n = 1;
    cab_builder_name(b, short_name, name);
    cab_builder_used(b, name);
    CAB_TRY(cab_checkpoint_view(b->source, name, n_dim, shape, CAB_F32, &data));
    for (int i = 0; i < n_dim; i++)
        n *= shape[i];
    CAB_TRY(CAB_NEW(values, (size_t)n, name));
    return cab_checkpoint_read_f32(b->source, name, n_dim, shape, *values);
}

/* Row r, of `columns`, of the stored tensor times factors[r] and `factor`. */
static cab_status build_scaled(cab_builder *b, cab_tensor **out, int n_dim, const int64_t *shape, const float *factors,
                               float factor, const char *short_name)
{
    const int64_t columns = n_dim == 2 ? shape[1] : 1;
    char name[CAB_NAME_MAX];
    float *values = NULL;
    cab_status status;
    cab_builder_name(b, short_name, name);
    CAB_GOTO(read_stored(b, short_name, n_dim, shape, &values));
    for (int64_t i = 0; i < shape[0] * columns; i++)
        values[i] *= factors[i / columns] * factor;
    CAB_GOTO(cab_params_add(b->params, name, n_dim == 1 || b->trainable ? CAB_F32 : b->dtype, n_dim, shape,
                            n_dim == 1 ? CAB_NO_DECAY : CAB_DECAY, out));
    status = cab_params_write(b->params, *out, values);
done:
    cab_free(values);
    return status;
}

/* A dense of W[o, :] factors[o] factor and b[o] factors[o]. */
static cab_status scaled_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool biased,
                               const char *name, const float *factors, float factor)
{
    char part[CAB_NAME_MAX];
    snprintf(part, sizeof part, "%s.weight", name);
    CAB_TRY(build_scaled(b, &dense->w, 2, (int64_t[]){n_out, n_in}, factors, factor, part));
    snprintf(part, sizeof part, "%s.bias", name);
    return biased ? build_scaled(b, &dense->b, 1, &n_out, factors, 1, part) : CAB_OK;
}

cab_status cab_builder_scaled_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, const char *name,
                                    const char *scale)
{
    float *factors = NULL;
    if (scale == NULL || b->source == NULL)
        return cab_builder_dense(b, dense, n_in, n_out, true, name);
    cab_status status = read_stored(b, scale, 1, &n_out, &factors);
    if (status == CAB_OK)
        status = scaled_dense(b, dense, n_in, n_out, true, name, factors, 1);
    cab_free(factors);
    return status;
}

cab_status cab_builder_multiplied_dense(cab_builder *b, cab_dense *dense, int64_t n_in, bool biased, const char *name,
                                        double in, int n, const cab_multiplied_rows *parts)
{
    int64_t n_out = 0;
    bool plain = in == 1;
    float *factors = NULL;
    for (int i = 0; i < n; i++) {
        n_out += parts[i].rows;
        plain = plain && parts[i].factor == 1;
    }
    if (plain || b->source == NULL)
        return cab_builder_dense(b, dense, n_in, n_out, biased, name);
    CAB_TRY(CAB_NEW(&factors, (size_t)n_out, name));
    for (int64_t i = 0, at = 0; i < n; at += parts[i++].rows)
        for (int64_t r = 0; r < parts[i].rows; r++)
            factors[at + r] = (float)parts[i].factor;
    cab_status status = scaled_dense(b, dense, n_in, n_out, biased, name, factors, (float)in);
    cab_free(factors);
    return status;
}

cab_status cab_builder_dense_times(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool biased,
                                   double in, double out, const char *name)
{
    const cab_multiplied_rows rows = {n_out, out > 0 ? out : 1};
    return cab_builder_multiplied_dense(b, dense, n_in, biased, name, in > 0 ? in : 1, 1, &rows);
}

cab_status cab_builder_rows(cab_builder *b, cab_tensor **out, int n, int64_t width, const char *short_name)
{
    float *values = NULL;
    cab_status status = CAB_OK;
    char name[CAB_NAME_MAX - 16], row[CAB_NAME_MAX];
    snprintf(name, sizeof name, "%s", short_name);
    if (b->source != NULL)
        CAB_GOTO(read_stored(b, name, 3, (int64_t[]){1, n, width}, &values));
    for (int i = 0; i < n; i++) {
        snprintf(row, sizeof row, "%s.%d", name, i);
        if (b->source == NULL) {
            CAB_GOTO(cab_builder_vector(b, &out[i], width, "%s", row));
            continue;
        }
        CAB_GOTO(cab_params_add(b->params, row, CAB_F32, 1, &width, CAB_NO_DECAY, &out[i]));
        CAB_GOTO(cab_params_write(b->params, out[i], values + i * width));
    }
done:
    cab_free(values);
    return status;
}

bool cab_builder_has(const cab_builder *b, const char *name)
{
    char full[CAB_NAME_MAX];
    cab_builder_name(b, name, full);
    return b->source != NULL && cab_checkpoint_has(b->source, full);
}

cab_status cab_builder_matrix(cab_builder *b, cab_tensor **out, int64_t rows, int64_t columns, const char *format, ...)
{
    char name[CAB_NAME_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    const int64_t shape[2] = {rows, columns};
    const cab_declaration d = {b->dtype, CAB_DECAY, 2, 2, shape, shape, 0, true};
    return cab_builder_declare(b, out, &d, name);
}

cab_status cab_builder_vector(cab_builder *b, cab_tensor **out, int64_t n, const char *format, ...)
{
    char name[CAB_NAME_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return add_parameter(b, out, CAB_F32, CAB_NO_DECAY, 1, &n, name);
}

cab_status cab_builder_shaped(cab_builder *b, cab_tensor **out, cab_decay decay, int n_dim, const int64_t *shape,
                              const char *format, ...)
{
    char name[CAB_NAME_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return add_parameter(b, out, CAB_F32, decay, n_dim, shape, name);
}

static cab_status check_rows(const cab_builder *b, const cab_tensor *t, const float *values)
{
    const int64_t columns = cab_columns(t);
    for (int64_t i = 0; i < cab_elements(t); i++)
        if (values[i] != values[i / columns * columns])
            return cab_fail(CAB_EFORMAT,
                            "%s: tensor \"%s\": row %lld has %g and %g, expected one number in each row, as tied_decay "
                            "in config.json says",
                            cab_checkpoint_directory(b->source), t->name, (long long)(i / columns),
                            (double)values[i / columns * columns], (double)values[i]);
    return CAB_OK;
}

cab_status cab_builder_tie(const cab_builder *b, cab_tensor *t)
{
    float *values = NULL;
    t->tied = true;
    if (b->source == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    cab_status status = cab_params_read(b->params, t, values);
    if (status == CAB_OK)
        status = check_rows(b, t, values);
    cab_free(values);
    return status;
}

cab_status cab_builder_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool biased,
                             const char *name)
{
    const bool in_out = dense->layout == CAB_IN_OUT;
    CAB_TRY(cab_builder_matrix(b, &dense->w, in_out ? n_in : n_out, in_out ? n_out : n_in, "%s.weight", name));
    return biased ? cab_builder_vector(b, &dense->b, n_out, "%s.bias", name) : CAB_OK;
}

cab_status cab_builder_norm(cab_builder *b, cab_norm *norm, int64_t n, double eps, bool biased, const char *name)
{
    const cab_declaration d = {CAB_F32, CAB_NO_DECAY, 1, 1, &n, &n, b->norm_offset, false};
    char weight[CAB_NAME_MAX];
    snprintf(weight, sizeof weight, "%s.weight", name);
    norm->eps = (float)eps;
    CAB_TRY(cab_builder_declare(b, &norm->w, &d, weight));
    return biased ? cab_builder_vector(b, &norm->b, n, "%s.bias", name) : CAB_OK;
}
