/* safetensors_writer.c - the writer; safetensors.c opens with the layout.
 *
 * The metadata hold a checksum of the whole file, which is computed with zeros for its own digits (safetensors_internal.h).
 *
 * The header is padded with spaces so that the body begins on a cache line of the mapped file. Sorted by element size,
 * largest first, every tensor is then aligned to its elements although none is followed by padding. */
#include "base/file.h"
#include "base/memory.h"
#include "io/safetensors_internal.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BODY_ALIGNMENT = 64, PART = 1 << 20 /* elements that are read at a time */ };

typedef struct pending {
    char *name;
    cab_dtype dtype;
    int n_dim;
    int64_t shape[CAB_SAFETENSORS_DIMS];
    cab_safetensors_read read;           /* this, */
    cab_safetensors_read_part read_part; /* or this; both NULL: source is the data */
    void *user;
    const void *source;
    size_t bytes;
} pending;

struct cab_safetensors_writer {
    pending *tensors;
    size_t count, capacity;
    json_object *metadata; /* NULL: none */
    void *held;            /* the tensors' bytes, one behind the other; NULL: not copied */
};

cab_status cab_safetensors_writer_new(cab_safetensors_writer **out)
{
    return CAB_NEW(out, 1, "a safetensors writer");
}

void cab_safetensors_writer_free(cab_safetensors_writer *writer)
{
    if (writer == NULL)
        return;
    for (size_t i = 0; i < writer->count; i++)
        cab_free(writer->tensors[i].name);
    cab_free(writer->tensors);
    json_object_put(writer->metadata);
    cab_free(writer->held);
    cab_free(writer);
}

static cab_status add(cab_safetensors_writer *writer, const char *name, pending tensor, const int64_t *shape)
{
    tensor.bytes = cab_dtype_size(tensor.dtype);
    if (tensor.n_dim < 0 || tensor.n_dim > CAB_SAFETENSORS_DIMS)
        return cab_fail(CAB_ESHAPE, "tensor \"%s\": %d dimensions, at most %d can be written", name, tensor.n_dim,
                        CAB_SAFETENSORS_DIMS);
    if (strcmp(name, "__metadata__") == 0)
        return cab_fail(CAB_EARG, "tensor \"%s\": the name is reserved by the format", name);
    for (int i = 0; i < tensor.n_dim; i++) {
        tensor.shape[i] = shape[i];
        if (shape[i] < 0 || __builtin_mul_overflow(tensor.bytes, (size_t)shape[i], &tensor.bytes))
            return cab_fail(CAB_ESHAPE, "tensor \"%s\": dimension %d is %lld", name, i, (long long)shape[i]);
    }
    CAB_TRY(CAB_GROW(&writer->tensors, &writer->capacity, writer->count + 1, "tensors to write"));
    CAB_TRY(cab_strdup(&tensor.name, name));
    writer->tensors[writer->count++] = tensor;
    return CAB_OK;
}

cab_status cab_safetensors_writer_add(cab_safetensors_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                      const int64_t *shape, const void *data)
{
    return cab_safetensors_writer_add_from(writer, name, dtype, n_dim, shape, NULL, NULL, data);
}

cab_status cab_safetensors_writer_add_from(cab_safetensors_writer *writer, const char *name, cab_dtype dtype, int n_dim,
                                           const int64_t *shape, cab_safetensors_read read, void *user,
                                           const void *source)
{
    return add(writer, name, (pending){.dtype = dtype, .n_dim = n_dim, .read = read, .user = user, .source = source},
               shape);
}

cab_status cab_safetensors_writer_add_parts(cab_safetensors_writer *writer, const char *name, cab_dtype dtype,
                                            int n_dim, const int64_t *shape, cab_safetensors_read_part read, void *user,
                                            const void *source)
{
    return add(writer, name,
               (pending){.dtype = dtype, .n_dim = n_dim, .read_part = read, .user = user, .source = source}, shape);
}

size_t cab_safetensors_writer_bytes(const cab_safetensors_writer *writer)
{
    size_t bytes = 0;
    for (size_t i = 0; i < writer->count; i++)
        bytes += writer->tensors[i].bytes;
    return bytes;
}

cab_status cab_safetensors_writer_hold(cab_safetensors_writer *writer)
{
    char *held = NULL, *at;
    cab_status status;
    CAB_TRY(cab_alloc((void **)&held, 1, cab_safetensors_writer_bytes(writer), "tensors to write"));
    at = held;
    for (size_t i = 0; i < writer->count; at += writer->tensors[i++].bytes) {
        const pending *tensor = &writer->tensors[i];
        if (tensor->read != NULL)
            CAB_GOTO(tensor->read(tensor->user, tensor->source, at, tensor->bytes));
        else if (tensor->read_part != NULL)
            CAB_GOTO(tensor->read_part(tensor->user, tensor->source, 0,
                                       (int64_t)(tensor->bytes / cab_dtype_size(tensor->dtype)), at));
        else
            memcpy(at, tensor->source, tensor->bytes);
    }
    at = held;
    for (size_t i = 0; i < writer->count; at += writer->tensors[i++].bytes) {
        writer->tensors[i].read = NULL;
        writer->tensors[i].read_part = NULL;
        writer->tensors[i].source = at;
    }
    cab_free(writer->held);
    writer->held = held;
    return CAB_OK;
done:
    cab_free(held);
    return status;
}

/* Hands `value` (NULL: it could not be made) over to `object`. */
static cab_status put(json_object *object, const char *key, json_object *value)
{
    if (value != NULL && json_object_object_add(object, key, value) == 0)
        return CAB_OK;
    json_object_put(value);
    return cab_fail(CAB_ENOMEM, "out of memory: the header of a safetensors file");
}

static cab_status append(json_object *array, int64_t number)
{
    json_object *value = json_object_new_int64(number);
    if (value != NULL && json_object_array_add(array, value) == 0)
        return CAB_OK;
    json_object_put(value);
    return cab_fail(CAB_ENOMEM, "out of memory: the header of a safetensors file");
}

cab_status cab_safetensors_writer_metadata(cab_safetensors_writer *writer, const char *key, const char *value)
{
    if (writer->metadata == NULL)
        writer->metadata = json_object_new_object();
    if (writer->metadata == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: the header of a safetensors file");
    return put(writer->metadata, key, json_object_new_string(value));
}

static int compare(const void *a, const void *b)
{
    const pending *x = a, *y = b;
    size_t x_size = cab_dtype_size(x->dtype), y_size = cab_dtype_size(y->dtype);
    if (x_size != y_size)
        return x_size < y_size ? 1 : -1;
    return strcmp(x->name, y->name);
}

static cab_status describe(json_object *header, const pending *tensor, const char *path, int64_t begin)
{
    json_object *entry = NULL, *shape = NULL, *offsets = NULL;
    if (json_object_object_get_ex(header, tensor->name, NULL))
        return cab_fail(CAB_EARG, "%s: two tensors are named \"%s\"", path, tensor->name);
    CAB_TRY(put(header, tensor->name, entry = json_object_new_object()));
    CAB_TRY(put(entry, "dtype", json_object_new_string(cab_dtype_name(tensor->dtype))));
    CAB_TRY(put(entry, "shape", shape = json_object_new_array()));
    for (int i = 0; i < tensor->n_dim; i++)
        CAB_TRY(append(shape, tensor->shape[i]));
    CAB_TRY(put(entry, "data_offsets", offsets = json_object_new_array()));
    CAB_TRY(append(offsets, begin));
    return append(offsets, begin + (int64_t)tensor->bytes);
}

static cab_status build_header(const cab_safetensors_writer *writer, const char *path, json_object *header)
{
    int64_t begin = 0;
    if (writer->metadata != NULL)
        CAB_TRY(put(header, "__metadata__", json_object_get(writer->metadata)));
    for (size_t i = 0; i < writer->count; i++) {
        CAB_TRY(describe(header, &writer->tensors[i], path, begin));
        begin += (int64_t)writer->tensors[i].bytes;
    }
    return CAB_OK;
}

/* Length and text of the header and its padding as they go to the file. */
static cab_status format_header(json_object *header, const char *path, char **out, size_t *size)
{
    size_t length = 0;
    const char *text =
        json_object_to_json_string_length(header, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &length);
    if (text == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: the header of %s", path);
    *size = (sizeof(uint64_t) + length + BODY_ALIGNMENT - 1) / BODY_ALIGNMENT * BODY_ALIGNMENT;
    const uint64_t n = *size - sizeof n;
    CAB_TRY(cab_alloc((void **)out, 1, *size, "the header of a safetensors file"));
    memset(*out, ' ', *size);
    memcpy(*out, &n, sizeof n);
    memcpy(*out + sizeof n, text, length);
    return CAB_OK;
}

/* Elements that are read at a time, whole rows. */
static int64_t part_of(const pending *t)
{
    const int64_t n = (int64_t)(t->bytes / cab_dtype_size(t->dtype)), rows = t->n_dim > 0 ? t->shape[0] : 1;
    const int64_t columns = rows > 0 ? n / rows : 0;
    if (t->read_part == NULL || columns == 0)
        return n;
    return columns < PART ? PART / columns * columns : columns;
}

/* Room for any one tensor, or part of one, that has to be read. */
static cab_status new_scratch(const cab_safetensors_writer *writer, void **scratch)
{
    size_t most = 0;
    for (size_t i = 0; i < writer->count; i++) {
        const pending *t = &writer->tensors[i];
        const size_t part = (size_t)part_of(t) * cab_dtype_size(t->dtype), size = part < t->bytes ? part : t->bytes;
        if ((t->read != NULL || t->read_part != NULL) && size > most)
            most = size;
    }
    return cab_alloc(scratch, 1, most, "a tensor to write");
}

/* Hands over a tensor's bytes, part by part: to the file, or where that is NULL to the checksum. */
static cab_status pass_on(const pending *t, void *scratch, cab_checksum *checksum, cab_writer *file)
{
    const size_t size = cab_dtype_size(t->dtype);
    const int64_t n = (int64_t)(t->bytes / size), part = part_of(t);
    for (int64_t first = 0; first < n; first += part) {
        const int64_t count = n - first < part ? n - first : part;
        const void *data = t->read != NULL || t->read_part != NULL ? scratch : t->source;
        if (t->read_part != NULL)
            CAB_TRY(t->read_part(t->user, t->source, first, count, scratch));
        else if (t->read != NULL)
            CAB_TRY(t->read(t->user, t->source, scratch, t->bytes));
        if (file != NULL)
            CAB_TRY(cab_writer_write(file, data, (size_t)count * size));
        else
            cab_checksum_add(checksum, data, (size_t)count * size);
    }
    return CAB_OK;
}

/* Replaces the zeros in the header by the checksum of all that is going to be written. */
static cab_status put_checksum(const cab_safetensors_writer *writer, void *scratch, char *header, size_t size)
{
    char digits[CAB_SAFETENSORS_DIGITS + 1];
    cab_checksum checksum = cab_checksum_begin();
    cab_checksum_add(&checksum, header, size);
    for (size_t i = 0; i < writer->count; i++)
        CAB_TRY(pass_on(&writer->tensors[i], scratch, &checksum, NULL));
    snprintf(digits, sizeof digits, "%016" PRIx64, cab_checksum_end(&checksum));
    char *at = header + cab_safetensors_find_digits(header, size);
    memcpy(at, digits, CAB_SAFETENSORS_DIGITS);
    return CAB_OK;
}

static cab_status write_file(const cab_safetensors_writer *writer, json_object *header, cab_writer *file)
{
    char *text = NULL;
    void *scratch = NULL;
    size_t size = 0;
    cab_status status;
    CAB_GOTO(format_header(header, file->path, &text, &size));
    CAB_GOTO(new_scratch(writer, &scratch));
    CAB_GOTO(put_checksum(writer, scratch, text, size));
    CAB_GOTO(cab_writer_write(file, text, size));
    for (size_t i = 0; i < writer->count; i++)
        CAB_GOTO(pass_on(&writer->tensors[i], scratch, NULL, file));
    status = cab_writer_commit(file);
done:
    cab_free(scratch);
    cab_free(text);
    return status;
}

cab_status cab_safetensors_writer_save(cab_safetensors_writer *writer, const char *path)
{
    cab_writer file = {0};
    cab_status status = CAB_OK;
    json_object *header = json_object_new_object();
    if (header == NULL)
        return cab_fail(CAB_ENOMEM, "out of memory: the header of %s", path);
    if (writer->count > 0)
        qsort(writer->tensors, writer->count, sizeof *writer->tensors, compare);
    CAB_GOTO(cab_safetensors_writer_metadata(writer, CAB_SAFETENSORS_CHECKSUM,
                                             CAB_SAFETENSORS_ALGORITHM "0000000000000000"));
    CAB_GOTO(build_header(writer, path, header));
    CAB_GOTO(cab_writer_open(&file, path));
    CAB_GOTO(write_file(writer, header, &file));
done:
    cab_writer_abort(&file);
    json_object_put(header);
    return status;
}
