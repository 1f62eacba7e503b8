/* gguf_writer.c - the writer; gguf.c opens with the layout. */
#include "io/gguf_writer.h"

#include "base/file.h"
#include "base/memory.h"
#include "io/gguf_internal.h"
#include "tensor/blocks.h"

#include <inttypes.h>
#include <string.h>

enum { AT_ONCE = 1 << 18 }; /* elements converted before they are written */

typedef struct pending {
    char *name;
    cab_dtype dtype;
    int n_dim;
    int64_t shape[CAB_GGUF_DIMS];
    int64_t elements;
    uint64_t bytes, offset; /* offset: from the body */
    cab_gguf_read read;
    void *user;
    const void *source;
} pending;

/* Bytes that grow. */
typedef struct buffer {
    uint8_t *data;
    size_t size, capacity;
} buffer;

struct cab_gguf_writer {
    buffer pairs;
    uint64_t n_pairs;
    pending *tensors;
    size_t count, capacity;
    uint64_t body; /* bytes */
};

static cab_status put(buffer *b, const void *data, size_t size)
{
    CAB_TRY(CAB_GROW(&b->data, &b->capacity, b->size + size, "the header of a GGUF file"));
    if (size == 0)
        return CAB_OK;
    memcpy(b->data + b->size, data, size);
    b->size += size;
    return CAB_OK;
}

static cab_status put_u32(buffer *b, uint32_t value)
{
    return put(b, &value, sizeof value);
}

static cab_status put_u64(buffer *b, uint64_t value)
{
    return put(b, &value, sizeof value);
}

static cab_status put_string(buffer *b, const char *text, size_t size)
{
    CAB_TRY(put_u64(b, size));
    return put(b, text, size);
}

static uint64_t aligned(uint64_t size)
{
    return (size + CAB_GGUF_ALIGNMENT - 1) / CAB_GGUF_ALIGNMENT * CAB_GGUF_ALIGNMENT;
}

cab_status cab_gguf_writer_new(cab_gguf_writer **out)
{
    return CAB_NEW(out, 1, "a GGUF writer");
}

void cab_gguf_writer_free(cab_gguf_writer *writer)
{
    if (writer == NULL)
        return;
    for (size_t i = 0; i < writer->count; i++)
        cab_free(writer->tensors[i].name);
    cab_free(writer->tensors);
    cab_free(writer->pairs.data);
    cab_free(writer);
}

/* ---- metadata ----------------------------------------------------------------------------------------------------- */

static cab_status begin_pair(cab_gguf_writer *writer, const char *key, uint32_t type)
{
    writer->n_pairs++;
    CAB_TRY(put_string(&writer->pairs, key, strlen(key)));
    return put_u32(&writer->pairs, type);
}

cab_status cab_gguf_writer_text(cab_gguf_writer *writer, const char *key, const char *value)
{
    CAB_TRY(begin_pair(writer, key, CAB_GGUF_STRING));
    return put_string(&writer->pairs, value, strlen(value));
}

cab_status cab_gguf_writer_u32(cab_gguf_writer *writer, const char *key, uint32_t value)
{
    CAB_TRY(begin_pair(writer, key, CAB_GGUF_U32));
    return put_u32(&writer->pairs, value);
}

cab_status cab_gguf_writer_f32(cab_gguf_writer *writer, const char *key, double value)
{
    const float single = (float)value;
    CAB_TRY(begin_pair(writer, key, CAB_GGUF_F32));
    return put(&writer->pairs, &single, sizeof single);
}

cab_status cab_gguf_writer_bool(cab_gguf_writer *writer, const char *key, bool value)
{
    const uint8_t byte = value;
    CAB_TRY(begin_pair(writer, key, CAB_GGUF_BOOL));
    return put(&writer->pairs, &byte, 1);
}

static cab_status begin_array(cab_gguf_writer *writer, const char *key, uint32_t type, size_t count)
{
    CAB_TRY(begin_pair(writer, key, CAB_GGUF_ARRAY));
    CAB_TRY(put_u32(&writer->pairs, type));
    return put_u64(&writer->pairs, count);
}

cab_status cab_gguf_writer_texts(cab_gguf_writer *writer, const char *key, const char *const *values, size_t count)
{
    CAB_TRY(begin_array(writer, key, CAB_GGUF_STRING, count));
    for (size_t i = 0; i < count; i++)
        CAB_TRY(put_string(&writer->pairs, values[i], strlen(values[i])));
    return CAB_OK;
}

cab_status cab_gguf_writer_i32s(cab_gguf_writer *writer, const char *key, const int32_t *values, size_t count)
{
    CAB_TRY(begin_array(writer, key, CAB_GGUF_I32, count));
    return put(&writer->pairs, values, count * sizeof *values);
}

cab_status cab_gguf_writer_f32s(cab_gguf_writer *writer, const char *key, const float *values, size_t count)
{
    CAB_TRY(begin_array(writer, key, CAB_GGUF_F32, count));
    return put(&writer->pairs, values, count * sizeof *values);
}

/* What a value becomes; in_array: whole numbers are signed there, token types above all. */
static uint32_t type_of(json_object *value, bool in_array)
{
    switch (json_object_get_type(value)) {
    case json_type_string:
        return CAB_GGUF_STRING;
    case json_type_boolean:
        return CAB_GGUF_BOOL;
    case json_type_double:
        return CAB_GGUF_F32;
    case json_type_int:
        return in_array || json_object_get_int64(value) < 0 ? CAB_GGUF_I32 : CAB_GGUF_U32;
    default:
        return CAB_GGUF_TYPES;
    }
}

static cab_status put_value(buffer *b, json_object *value, uint32_t type)
{
    const float number = (float)json_object_get_double(value);
    const uint8_t truth = json_object_get_boolean(value) != 0;
    switch (type) {
    case CAB_GGUF_STRING:
        return put_string(b, json_object_get_string(value), (size_t)json_object_get_string_len(value));
    case CAB_GGUF_BOOL:
        return put(b, &truth, 1);
    case CAB_GGUF_F32:
        return put(b, &number, sizeof number);
    default:
        return put_u32(b, (uint32_t)json_object_get_int64(value));
    }
}

static cab_status wrong_value(const char *key, json_object *value)
{
    return cab_fail(CAB_EFORMAT, "\"%s\": %.80s cannot be written, expected a string, a number or a boolean", key,
                    json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
}

cab_status cab_gguf_writer_json(cab_gguf_writer *writer, const char *key, json_object *value)
{
    buffer *b = &writer->pairs;
    const bool array = json_object_is_type(value, json_type_array);
    const size_t count = array ? json_object_array_length(value) : 0;
    const uint32_t type =
        array && count == 0 ? CAB_GGUF_I32 : type_of(array ? json_object_array_get_idx(value, 0) : value, array);
    if (type == CAB_GGUF_TYPES)
        return wrong_value(key, value);
    if (!array)
        CAB_TRY(begin_pair(writer, key, type));
    if (!array)
        return put_value(b, value, type);
    CAB_TRY(begin_array(writer, key, type, count));
    for (size_t i = 0; i < count; i++) {
        json_object *element = json_object_array_get_idx(value, i);
        if (type_of(element, true) != type)
            return wrong_value(key, element);
        CAB_TRY(put_value(b, element, type));
    }
    return CAB_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

cab_status cab_gguf_writer_tensor(cab_gguf_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                  const int64_t *shape, cab_gguf_read read, void *user, const void *source)
{
    pending t = {.dtype = dtype, .n_dim = n_dim, .elements = 1, .read = read, .user = user, .source = source};
    if (n_dim < 1 || n_dim > CAB_GGUF_DIMS || shape[n_dim - 1] % cab_dtype_block(dtype) != 0)
        return cab_fail(CAB_ESHAPE, "tensor \"%s\": %d dimensions or rows of %" PRId64 " elements cannot be written",
                        name, n_dim, n_dim < 1 ? 1 : shape[n_dim - 1]);
    for (int i = 0; i < n_dim; i++) {
        t.shape[i] = shape[i];
        if (shape[i] < 1 || __builtin_mul_overflow(t.elements, shape[i], &t.elements))
            return cab_fail(CAB_ESHAPE, "tensor \"%s\": dimension %d is %" PRId64, name, i, shape[i]);
    }
    t.bytes = cab_dtype_bytes(dtype, t.elements);
    t.offset = writer->body;
    CAB_TRY(CAB_GROW(&writer->tensors, &writer->capacity, writer->count + 1, "tensors to write"));
    CAB_TRY(cab_strdup(&t.name, name));
    writer->body += aligned(t.bytes);
    writer->tensors[writer->count++] = t;
    return CAB_OK;
}

size_t cab_gguf_writer_count(const cab_gguf_writer *writer)
{
    return writer->count;
}

/* ---- the file ----------------------------------------------------------------------------------------------------- */

static cab_status put_tensor(buffer *b, const pending *t)
{
    CAB_TRY(put_string(b, t->name, strlen(t->name)));
    CAB_TRY(put_u32(b, (uint32_t)t->n_dim));
    for (int i = t->n_dim - 1; i >= 0; i--)
        CAB_TRY(put_u64(b, (uint64_t)t->shape[i]));
    CAB_TRY(put_u32(b, cab_gguf_tensor_type(t->dtype)));
    return put_u64(b, t->offset);
}

static cab_status make_header(const cab_gguf_writer *writer, buffer *b)
{
    static const uint8_t zeros[CAB_GGUF_ALIGNMENT];
    CAB_TRY(put(b, "GGUF", 4));
    CAB_TRY(put_u32(b, 3));
    CAB_TRY(put_u64(b, writer->count));
    CAB_TRY(put_u64(b, writer->n_pairs));
    CAB_TRY(put(b, writer->pairs.data, writer->pairs.size));
    for (size_t i = 0; i < writer->count; i++)
        CAB_TRY(put_tensor(b, &writer->tensors[i]));
    return put(b, zeros, (size_t)(aligned(b->size) - b->size));
}

/* values, packed: room for one piece. */
static cab_status write_tensor(const pending *t, cab_writer *file, float *values, void *packed)
{
    static const uint8_t zeros[CAB_GGUF_ALIGNMENT];
    const int64_t columns = t->shape[t->n_dim - 1];
    const int64_t step = t->n_dim == 1 ? AT_ONCE : columns < AT_ONCE ? AT_ONCE / columns * columns : columns;
    for (int64_t first = 0; first < t->elements; first += step) {
        const int64_t count = t->elements - first < step ? t->elements - first : step;
        CAB_TRY(t->read(t->user, t->source, first, count, values));
        if (cab_blocks_pack(t->dtype, values, packed, count) >= 0)
            return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\" has values too large for %s; bf16 and f32 hold them",
                            file->path, t->name, cab_dtype_name(t->dtype));
        CAB_TRY(cab_writer_write(file, packed, cab_dtype_bytes(t->dtype, count)));
    }
    return cab_writer_write(file, zeros, (size_t)(aligned(t->bytes) - t->bytes));
}

static int64_t largest_piece(const cab_gguf_writer *writer)
{
    int64_t most = AT_ONCE;
    for (size_t i = 0; i < writer->count; i++) {
        const pending *t = &writer->tensors[i];
        const int64_t columns = t->shape[t->n_dim - 1];
        most = t->n_dim > 1 && columns > most ? columns : most;
    }
    return most;
}

cab_status cab_gguf_writer_save(const cab_gguf_writer *writer, const char *path, uint64_t *bytes)
{
    const int64_t most = largest_piece(writer);
    buffer header = {0};
    float *values = NULL, *packed = NULL;
    cab_writer file = {0};
    cab_status status;
    CAB_GOTO(make_header(writer, &header));
    CAB_GOTO(CAB_NEW(&values, (size_t)most, "a part of a tensor"));
    CAB_GOTO(CAB_NEW(&packed, (size_t)most, "a part of a tensor"));
    CAB_GOTO(cab_writer_open(&file, path));
    CAB_GOTO(cab_writer_write(&file, header.data, header.size));
    for (size_t i = 0; i < writer->count; i++)
        CAB_GOTO(write_tensor(&writer->tensors[i], &file, values, packed));
    *bytes = header.size + writer->body;
    status = cab_writer_commit(&file);
done:
    cab_writer_abort(&file);
    cab_free(packed);
    cab_free(values);
    cab_free(header.data);
    return status;
}
