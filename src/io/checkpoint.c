/* checkpoint.c - a directory is one table of tensors, wherever they lie.
 *
 *   model.safetensors               all tensors, or
 *   model.safetensors.index.json    {"metadata": {...}, "weight_map": {tensor: "model-00001-of-00002.safetensors"}}
 *
 * and so is a .gguf file, under the names that gguf_view.h gives it. Of a model of several parts it is the table of the language
 * model's (composite.h).
 *
 * Where both are there the single file is taken, as Hugging Face's loader does. Tensors that lie in a shard without being
 * in the index do not belong to the model. */
#include "io/checkpoint.h"

#include "base/file.h"
#include "base/memory.h"
#include "io/composite.h"
#include "io/gguf_view.h"
#include "io/scaled.h"
#include "tensor/blocks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 16 << 20, INDEX_BYTES_MAX = 16 << 20 };

typedef struct shard {
    char *name; /* within the directory */
    cab_safetensors *file;
} shard;

struct cab_checkpoint {
    char *directory;
    cab_json config;
    shard *shards;
    size_t n_shards, shard_capacity;
    const cab_safetensors_entry **tensors; /* sorted by name */
    size_t n_tensors;
    const cab_safetensors_entry **scales; /* by tensor: of one in 8-bit floats; NULL: there are no such */
    cab_gguf *gguf;                       /* NULL: a directory */
    cab_gguf_view view;
    cab_safetensors_entry *renamed; /* of a model of several parts: the language model's tensors */
    size_t left_out;                /* tensors of its other parts */
};

static int compare_names(const void *a, const void *b)
{
    return strcmp((*(const cab_safetensors_entry *const *)a)->name, (*(const cab_safetensors_entry *const *)b)->name);
}

/* The mapped file of that name, opened at its first mention. */
static cab_status open_shard(cab_checkpoint *ck, const char *name, cab_safetensors **file)
{
    char path[CAB_PATH_MAX];
    for (size_t i = 0; i < ck->n_shards; i++) {
        if (strcmp(ck->shards[i].name, name) == 0) {
            *file = ck->shards[i].file;
            return CAB_OK;
        }
    }
    CAB_TRY(cab_path_join(path, ck->directory, name));
    CAB_TRY(CAB_GROW(&ck->shards, &ck->shard_capacity, ck->n_shards + 1, "a model's files"));
    shard *added = &ck->shards[ck->n_shards++];
    CAB_TRY(cab_strdup(&added->name, name));
    CAB_TRY(cab_safetensors_open(path, &added->file));
    *file = added->file;
    return CAB_OK;
}

static cab_status open_single(cab_checkpoint *ck)
{
    cab_safetensors *file = NULL;
    CAB_TRY(open_shard(ck, "model.safetensors", &file));
    ck->n_tensors = cab_safetensors_count(file);
    CAB_TRY(CAB_NEW(&ck->tensors, ck->n_tensors, "a model's tensors"));
    for (size_t i = 0; i < ck->n_tensors; i++)
        ck->tensors[i] = cab_safetensors_at(file, i);
    return CAB_OK;
}

static cab_status add_indexed(cab_checkpoint *ck, const cab_json *index, const char *tensor, json_object *value)
{
    cab_safetensors *file = NULL;
    const char *name = json_object_is_type(value, json_type_string) ? json_object_get_string(value) : NULL;
    if (name == NULL || name[0] == '\0' || strchr(name, '/') != NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" lies in %.64s, expected the name of a file of this directory",
                        index->name, tensor,
                        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
    cab_status status = open_shard(ck, name, &file);
    if (status == CAB_EIO)
        return cab_fail(CAB_EIO, "%s: tensor \"%s\" lies in \"%s\": %s", index->name, tensor, name, cab_error_text());
    if (status != CAB_OK)
        return status;
    const cab_safetensors_entry *entry = cab_safetensors_find(file, tensor);
    if (entry == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" is not in \"%s\", where the index puts it", index->name, tensor,
                        name);
    ck->tensors[ck->n_tensors++] = entry;
    return CAB_OK;
}

static cab_status open_indexed(cab_checkpoint *ck, const char *path)
{
    cab_status status = CAB_OK;
    cab_json index;
    json_object *map = NULL;
    CAB_TRY(cab_json_load(path, INDEX_BYTES_MAX, &index));
    CAB_GOTO(cab_json_object(&index, NULL, "weight_map", &map));
    CAB_GOTO(CAB_NEW(&ck->tensors, (size_t)json_object_object_length(map), "a model's tensors"));
    json_object_object_foreach(map, tensor, value)
    {
        CAB_GOTO(add_indexed(ck, &index, tensor, value));
    }
done:
    cab_json_close(&index);
    return status;
}

static cab_status no_weights(const char *directory)
{
    static const char *const pickled[] = {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin"};
    char path[CAB_PATH_MAX];
    for (size_t i = 0; i < sizeof pickled / sizeof *pickled; i++) {
        CAB_TRY(cab_path_join(path, directory, pickled[i]));
        if (cab_path_exists(path))
            return cab_fail(CAB_EUNSUPPORTED,
                            "%s: pickled PyTorch weights are not read; convert them to model.safetensors "
                            "(transformers: save_pretrained(..., safe_serialization=True))",
                            path);
    }
    return cab_fail(CAB_EIO, "%s: neither model.safetensors nor model.safetensors.index.json is there", directory);
}

/* The language model's tensors under the names that they have where it stands alone. */
static cab_status open_language_model(cab_checkpoint *ck)
{
    size_t kept = 0;
    CAB_TRY(cab_composite_config(&ck->config));
    CAB_TRY(CAB_NEW(&ck->renamed, ck->n_tensors, "a model's tensors"));
    for (size_t i = 0; i < ck->n_tensors; i++) {
        const char *name = cab_composite_name(ck->tensors[i]->name);
        if (name == NULL)
            continue;
        ck->renamed[kept] = *ck->tensors[i];
        ck->renamed[kept].name = name;
        ck->tensors[kept] = &ck->renamed[kept];
        kept++;
    }
    ck->left_out = ck->n_tensors - kept;
    ck->n_tensors = kept;
    return CAB_OK;
}

/* Whether a tensor is the scales of another one. */
static bool is_scales(const cab_checkpoint *ck, const char *name)
{
    size_t length = 0;
    char other[256];
    if (!cab_scaled_names(name, &length) || length >= sizeof other)
        return false;
    memcpy(other, name, length);
    other[length] = '\0';
    const cab_safetensors_entry *entry = cab_checkpoint_find(ck, other);
    return entry != NULL && entry->dtype == CAB_F8_E4M3;
}

static cab_status find_scales(const cab_checkpoint *ck, const cab_safetensors_entry *entry,
                              const cab_safetensors_entry **scales)
{
    static const char *const endings[] = {"_scale", "_scale_inv"};
    char name[256];
    *scales = NULL;
    for (int i = 0; i < 2 && *scales == NULL; i++) {
        snprintf(name, sizeof name, "%s%s", entry->name, endings[i]);
        *scales = cab_checkpoint_find(ck, name);
    }
    if (*scales == NULL)
        return cab_fail(CAB_EFORMAT,
                        "%s: tensor \"%s\" is stored as F8_E4M3, and neither \"%s_scale\" nor \"%s_scale_inv\" is "
                        "there",
                        entry->file, entry->name, entry->name, entry->name);
    return cab_scaled_check(entry, *scales);
}

/* Of a model in 8-bit floats: scales go with their tensors, and neither they nor the key of config.json are seen from here on. */
static cab_status open_scaled(cab_checkpoint *ck)
{
    const cab_safetensors_entry **all = ck->tensors;
    size_t kept = 0;
    bool scaled = false;
    cab_status status;
    CAB_TRY(cab_scaled_is(&ck->config, &scaled));
    if (!scaled)
        return CAB_OK;
    const cab_safetensors_entry **left = NULL;
    CAB_TRY(CAB_NEW(&ck->scales, ck->n_tensors, "a model's scales"));
    CAB_GOTO(CAB_NEW(&left, ck->n_tensors, "a model's tensors"));
    for (size_t i = 0; i < ck->n_tensors; i++) {
        if (is_scales(ck, all[i]->name))
            continue;
        if (all[i]->dtype == CAB_F8_E4M3)
            CAB_GOTO(find_scales(ck, all[i], &ck->scales[kept]));
        left[kept++] = all[i];
    }
    ck->tensors = left;
    ck->n_tensors = kept;
    left = all;
    json_object_object_del(ck->config.root, "quantization_config");
    status = CAB_OK;
done:
    cab_free(left);
    return status;
}

static cab_status open_weights(cab_checkpoint *ck)
{
    char single[CAB_PATH_MAX], index[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(single, ck->directory, "model.safetensors"));
    CAB_TRY(cab_path_join(index, ck->directory, "model.safetensors.index.json"));
    if (cab_path_exists(single))
        CAB_TRY(open_single(ck));
    else if (cab_path_exists(index))
        CAB_TRY(open_indexed(ck, index));
    else
        return no_weights(ck->directory);
    if (cab_composite_is(&ck->config))
        CAB_TRY(open_language_model(ck));
    qsort(ck->tensors, ck->n_tensors, sizeof *ck->tensors, compare_names);
    return open_scaled(ck);
}

static cab_status open_gguf(cab_checkpoint *ck)
{
    CAB_TRY(cab_gguf_open(ck->directory, &ck->gguf));
    CAB_TRY(cab_gguf_view_open(ck->gguf, &ck->view));
    ck->n_tensors = ck->view.count;
    CAB_TRY(CAB_NEW(&ck->tensors, ck->n_tensors, "a model's tensors"));
    for (size_t i = 0; i < ck->n_tensors; i++)
        ck->tensors[i] = &ck->view.entries[i];
    qsort(ck->tensors, ck->n_tensors, sizeof *ck->tensors, compare_names);
    return CAB_OK;
}

static cab_status open_files(cab_checkpoint *ck, const char *directory)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_strdup(&ck->directory, directory));
    if (cab_gguf_named(directory) && !cab_path_is_directory(directory))
        return open_gguf(ck);
    CAB_TRY(cab_path_join(path, directory, "config.json"));
    CAB_TRY(cab_json_load(path, CONFIG_BYTES_MAX, &ck->config));
    return open_weights(ck);
}

cab_status cab_checkpoint_open(const char *directory, cab_checkpoint **out)
{
    cab_checkpoint *ck = NULL;
    *out = NULL;
    if (!cab_path_is_directory(directory) && !(cab_gguf_named(directory) && cab_path_exists(directory)))
        return cab_fail(CAB_EIO,
                        "%s: no such directory, expected one with config.json and model.safetensors, or a .gguf file",
                        directory);
    CAB_TRY(CAB_NEW(&ck, 1, "a model directory"));
    cab_status status = open_files(ck, directory);
    if (status != CAB_OK) {
        cab_checkpoint_close(ck);
        return status;
    }
    *out = ck;
    return CAB_OK;
}

void cab_checkpoint_close(cab_checkpoint *ck)
{
    if (ck == NULL)
        return;
    for (size_t i = 0; i < ck->n_shards; i++) {
        cab_safetensors_close(ck->shards[i].file);
        cab_free(ck->shards[i].name);
    }
    cab_free(ck->shards);
    cab_free(ck->tensors);
    cab_free(ck->renamed);
    cab_free(ck->scales);
    cab_gguf_view_close(&ck->view);
    cab_gguf_close(ck->gguf);
    cab_json_close(&ck->config);
    cab_free(ck->directory);
    cab_free(ck);
}

const char *cab_checkpoint_directory(const cab_checkpoint *ck)
{
    return ck->directory;
}

size_t cab_checkpoint_left_out(const cab_checkpoint *ck)
{
    return ck->left_out;
}

const cab_json *cab_checkpoint_config(const cab_checkpoint *ck)
{
    return ck->gguf != NULL ? &ck->view.config : &ck->config;
}

const cab_gguf *cab_checkpoint_gguf(const cab_checkpoint *ck)
{
    return ck->gguf;
}

size_t cab_checkpoint_count(const cab_checkpoint *ck)
{
    return ck->n_tensors;
}

const cab_safetensors_entry *cab_checkpoint_at(const cab_checkpoint *ck, size_t index)
{
    return ck->tensors[index];
}

size_t cab_checkpoint_index(const cab_checkpoint *ck, const char *name)
{
    const cab_safetensors_entry wanted = {.name = name}, *key = &wanted;
    const cab_safetensors_entry **found = bsearch(&key, ck->tensors, ck->n_tensors, sizeof *ck->tensors, compare_names);
    return found == NULL ? ck->n_tensors : (size_t)(found - ck->tensors);
}

const cab_safetensors_entry *cab_checkpoint_find(const cab_checkpoint *ck, const char *name)
{
    const size_t index = cab_checkpoint_index(ck, name);
    return index < ck->n_tensors ? ck->tensors[index] : NULL;
}

bool cab_checkpoint_has(const cab_checkpoint *ck, const char *name)
{
    return cab_checkpoint_find(ck, name) != NULL;
}

static cab_status require(const cab_checkpoint *ck, const char *name, const cab_safetensors_entry **entry)
{
    *entry = cab_checkpoint_find(ck, name);
    if (*entry == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" is missing from the model's weights", ck->directory, name);
    return CAB_OK;
}

cab_status cab_checkpoint_need(const cab_checkpoint *ck, const char *name, int n_dim, const cab_safetensors_entry **out)
{
    *out = cab_checkpoint_find(ck, name);
    if (*out == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" is missing", ck->directory, name);
    if ((*out)->n_dim != n_dim)
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %d dimensions, expected %d", (*out)->file, name,
                        (*out)->n_dim, n_dim);
    for (int i = 0; i < n_dim; i++)
        if ((*out)->shape[i] < 1 || (*out)->shape[i] > 1 << 24)
            return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\": dimension %d is %lld, too small or too large", (*out)->file,
                            name, i, (long long)(*out)->shape[i]);
    return CAB_OK;
}

/* Element `first` of the tensor and those behind it: as the file has them, then as transformers does. */
static cab_status change_values(const cab_safetensors_entry *entry, const cab_gguf_change *change, int64_t first,
                                int64_t count, float *values)
{
    for (int64_t i = 0; change->added != 0 && i < count; i++)
        values[i] += change->added;
    for (int64_t i = 0; change->decay && i < count; i++) {
        if (!(values[i] < 0))
            return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\": element %lld is %g, expected a number below 0",
                            entry->file, entry->name, (long long)(first + i), (double)values[i]);
        values[i] = logf(-values[i]);
    }
    return CAB_OK;
}

/* Rows as the file has them into the order of transformers. */
static cab_status order_back(const cab_gguf_change *change, int n_dim, const int64_t *shape, float *values)
{
    int64_t columns = 1;
    for (int i = 1; i < n_dim; i++)
        columns *= shape[i];
    const int64_t rows = n_dim > 0 ? shape[0] : 1;
    float *stored = NULL;
    if (change->heads == 0)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&stored, (size_t)(rows * columns), "a tensor's rows"));
    memcpy(stored, values, (size_t)(rows * columns) * sizeof *values);
    for (int64_t row = 0; row < rows; row++)
        memcpy(values + row * columns, stored + cab_gguf_row(change, rows, row) * columns,
               (size_t)columns * sizeof *values);
    cab_free(stored);
    return CAB_OK;
}

static size_t index_of(const cab_checkpoint *ck, const cab_safetensors_entry *entry)
{
    return (size_t)(entry - ck->view.entries);
}

/* Whether the tensor is in the file as transformers has it. */
static bool unchanged(const cab_checkpoint *ck, const cab_safetensors_entry *entry)
{
    if (ck->gguf == NULL)
        return true;
    const cab_gguf_change *change = &ck->view.changes[index_of(ck, entry)];
    return change->heads == 0 && change->added == 0 && !change->decay && ck->view.rests[index_of(ck, entry)] == NULL;
}

/* All elements, the second half of the rows out of another tensor where there is one. */
static cab_status read_halves(const cab_checkpoint *ck, const cab_safetensors_entry *entry, int n_dim,
                              const int64_t *shape, float *out)
{
    const cab_safetensors_entry *rest = ck->gguf == NULL ? NULL : ck->view.rests[index_of(ck, entry)];
    if (rest == NULL)
        return cab_safetensors_entry_read_f32(entry, n_dim, shape, out);
    CAB_TRY(cab_safetensors_entry_check_shape(entry, n_dim, shape));
    cab_safetensors_entry first = *entry;
    first.shape[0] = rest->shape[0];
    CAB_TRY(cab_safetensors_entry_read_f32(&first, first.n_dim, first.shape, out));
    return cab_safetensors_entry_read_f32(rest, rest->n_dim, rest->shape, out + rest->shape[0] * rest->shape[1]);
}

/* Elements of a tensor of 8-bit floats, read as they are stored, become what they mean. */
static cab_status scale(const cab_checkpoint *ck, const cab_safetensors_entry *entry, int64_t first, int64_t count,
                        float *values)
{
    if (entry->dtype != CAB_F8_E4M3)
        return CAB_OK;
    if (ck->scales == NULL)
        return cab_fail(
            CAB_EUNSUPPORTED,
            "%s: tensor \"%s\" is stored as F8_E4M3; config.json has no quantization_config of \"fp8\" that says "
            "how it is scaled",
            entry->file, entry->name);
    return cab_scaled_apply(entry, ck->scales[cab_checkpoint_index(ck, entry->name)], first, count, values);
}

cab_status cab_checkpoint_read_f32(const cab_checkpoint *ck, const char *name, int n_dim, const int64_t *shape,
                                   float *out)
{
    const cab_safetensors_entry *entry = NULL;
    int64_t count = 1;
    CAB_TRY(require(ck, name, &entry));
    CAB_TRY(read_halves(ck, entry, n_dim, shape, out));
    for (int i = 0; i < n_dim; i++)
        count *= shape[i];
    CAB_TRY(scale(ck, entry, 0, count, out));
    if (unchanged(ck, entry))
        return CAB_OK;
    const cab_gguf_change *change = &ck->view.changes[index_of(ck, entry)];
    CAB_TRY(change_values(entry, change, 0, count, out));
    return order_back(change, n_dim, shape, out);
}

static cab_status read_elements(const cab_safetensors_entry *entry, int64_t first, int64_t count, float *out)
{
    cab_safetensors_entry part = *entry;
    part.n_dim = 1;
    part.shape[0] = count;
    if (part.dtype != CAB_DTYPES) { /* which reading refuses */
        part.data = (const uint8_t *)entry->data + cab_dtype_bytes(entry->dtype, first);
        part.bytes = cab_dtype_bytes(entry->dtype, count);
    }
    const cab_status status = cab_safetensors_entry_read_f32(&part, 1, part.shape, out);
    if (status == CAB_OK)
        cab_pages_forget(part.data, part.bytes);
    if (status != CAB_ENUMERIC)
        return status;
    int64_t bad = 0;
    while (isfinite(out[bad]))
        bad++;
    return cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\": element %lld is %f, expected a finite fp32 value", entry->file,
                    entry->name, (long long)(first + bad), (double)out[bad]);
}

cab_status cab_checkpoint_read_part(const cab_checkpoint *ck, const cab_safetensors_entry *entry, int64_t first,
                                    int64_t count, float *out)
{
    int64_t columns = 1;
    if (unchanged(ck, entry)) {
        CAB_TRY(read_elements(entry, first, count, out));
        return scale(ck, entry, first, count, out);
    }
    const cab_gguf_change *change = &ck->view.changes[index_of(ck, entry)];
    const cab_safetensors_entry *rest = ck->view.rests[index_of(ck, entry)];
    const int64_t half = rest != NULL ? rest->shape[0] : entry->shape[0];
    for (int i = 1; i < entry->n_dim; i++)
        columns *= entry->shape[i];
    for (int64_t done = 0; done < count; done += columns) {
        const int64_t row = cab_gguf_row(change, entry->shape[0], (first + done) / columns);
        CAB_TRY(row < half ? read_elements(entry, row * columns, columns, out + done)
                           : read_elements(rest, (row - half) * columns, columns, out + done));
    }
    return change_values(entry, change, first, count, out);
}

cab_status cab_checkpoint_view(const cab_checkpoint *ck, const char *name, int n_dim, const int64_t *shape,
                               cab_dtype dtype, const void **data)
{
    const cab_safetensors_entry *entry = NULL;
    *data = NULL;
    CAB_TRY(require(ck, name, &entry));
    CAB_TRY(cab_safetensors_entry_check_shape(entry, n_dim, shape));
    if (entry->dtype == dtype && unchanged(ck, entry) && (uintptr_t)entry->data % cab_dtype_size(dtype) == 0)
        *data = entry->data;
    return CAB_OK;
}

cab_status cab_checkpoint_blocks(const cab_checkpoint *ck, const char *name, const int64_t shape[2], cab_dtype *dtype,
                                 const void **data)
{
    const cab_safetensors_entry *entry = NULL;
    *dtype = CAB_DTYPES;
    *data = NULL;
    CAB_TRY(require(ck, name, &entry));
    CAB_TRY(cab_safetensors_entry_check_shape(entry, 2, shape));
    if (ck->gguf == NULL || entry->dtype == CAB_DTYPES || !cab_dtype_is_blocks(entry->dtype))
        return CAB_OK;
    const cab_gguf_change *change = &ck->view.changes[index_of(ck, entry)];
    const cab_safetensors_entry *rest = ck->view.rests[index_of(ck, entry)];
    if (change->added != 0 || change->decay || (rest != NULL && rest->dtype != entry->dtype))
        return CAB_OK;
    *dtype = entry->dtype;
    if (unchanged(ck, entry))
        *data = entry->data;
    return CAB_OK;
}

void cab_checkpoint_read_blocks(const cab_checkpoint *ck, const char *name, void *out)
{
    const cab_safetensors_entry *entry = cab_checkpoint_find(ck, name);
    const cab_gguf_change *change = &ck->view.changes[index_of(ck, entry)];
    const cab_safetensors_entry *rest = ck->view.rests[index_of(ck, entry)];
    const size_t bytes = cab_dtype_bytes(entry->dtype, entry->shape[1]);
    const int64_t half = rest != NULL ? rest->shape[0] : entry->shape[0];
    for (int64_t i = 0; i < entry->shape[0]; i++) {
        const int64_t row = cab_gguf_row(change, entry->shape[0], i);
        const uint8_t *from = row < half ? (const uint8_t *)entry->data + (size_t)row * bytes
                                         : (const uint8_t *)rest->data + (size_t)(row - half) * bytes;
        memcpy((uint8_t *)out + (size_t)i * bytes, from, bytes);
    }
}
