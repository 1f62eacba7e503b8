/* export_directory.c - a model written as a directory of Hugging Face's layout: what a GGUF file holds, under transformers' names, or another
 * directory with matrices of another type. */
#include "base/file.h"
#include "base/memory.h"
#include "models/export_internal.h"
#include "tensor/blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* cab_safetensors_read_part: `user` is the checkpoint. */
static cab_status read_tensor(void *user, const void *source, int64_t first, int64_t count, void *out)
{
    const cab_export_tensor *t = source;
    float *values = NULL;
    if (t->entry == NULL) {
        memset(out, 0, cab_dtype_bytes(t->dtype, count));
        return CAB_OK;
    }
    CAB_TRY(CAB_NEW(&values, (size_t)count, "a part of a tensor"));
    cab_status status = cab_checkpoint_read_part(user, t->entry, t->first + first, count, values);
    if (status == CAB_OK && cab_blocks_pack(t->dtype, values, out, count) >= 0)
        status = cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\" has values too large for %s", t->entry->file, t->entry->name,
                          cab_dtype_name(t->dtype));
    cab_free(values);
    return status;
}

/* Matrices that are multiplied; those of a convolution have three dimensions. */
static bool is_product(const cab_export_tensor *t)
{
    const size_t n = strlen(t->name), end = strlen(".weight");
    return t->n_dim == 2 && n > end && strcmp(t->name + n - end, ".weight") == 0;
}

cab_status cab_export_weights(cab_checkpoint *source, cab_export_tensor *tensors, size_t count, cab_dtype dtype,
                              const char *directory, cab_exported *out)
{
    char path[CAB_PATH_MAX];
    cab_safetensors_writer *writer = NULL;
    cab_status status;
    out->tensors = count;
    cab_export_say_left_out(source);
    CAB_GOTO(cab_path_join(path, directory, "model.safetensors"));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    CAB_GOTO(cab_safetensors_writer_metadata(writer, "format", "pt"));
    for (size_t i = 0; i < count; i++) {
        cab_export_tensor *t = &tensors[i];
        t->dtype = is_product(t) ? dtype : CAB_F32;
        uint64_t bytes = cab_dtype_size(t->dtype);
        for (int d = 0; d < t->n_dim; d++)
            bytes *= (uint64_t)t->shape[d];
        out->bytes += bytes;
        CAB_GOTO(
            cab_safetensors_writer_add_parts(writer, t->name, t->dtype, t->n_dim, t->shape, read_tensor, source, t));
    }
    status = cab_safetensors_writer_save(writer, path);
done:
    cab_safetensors_writer_free(writer);
    return status;
}

/* All tensors as they are. */
static cab_status write_weights(cab_checkpoint *source, cab_dtype dtype, const char *directory, cab_exported *out)
{
    const size_t count = cab_checkpoint_count(source);
    cab_export_tensor *tensors = NULL;
    cab_status status = CAB_NEW(&tensors, count, "tensors to write");
    for (size_t i = 0; status == CAB_OK && i < count; i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(source, i);
        cab_export_tensor *t = &tensors[i];
        if (e->n_dim > CAB_MAX_DIMS || strlen(e->name) >= sizeof t->name)
            status = cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%.120s\" has %d dimensions, or too long a name", e->file,
                              e->name, e->n_dim);
        t->entry = e;
        t->n_dim = e->n_dim <= CAB_MAX_DIMS ? e->n_dim : 0;
        snprintf(t->name, sizeof t->name, "%s", e->name);
        memcpy(t->shape, e->shape, (size_t)t->n_dim * sizeof *t->shape);
    }
    if (status == CAB_OK)
        status = cab_export_weights(source, tensors, count, dtype, directory, out);
    cab_free(tensors);
    return status;
}

cab_status cab_export_config(json_object *config, cab_dtype dtype, const char *directory)
{
    char path[CAB_PATH_MAX];
    const char *name = dtype == CAB_F32 ? "float32" : dtype == CAB_F16 ? "float16" : "bfloat16";
    CAB_TRY(cab_path_join(path, directory, "config.json"));
    json_object_object_add(config, "dtype", json_object_new_string(name));
    json_object_object_del(config, "torch_dtype");
    return cab_json_save(config, path);
}

static cab_status write_config(const cab_checkpoint *source, cab_dtype dtype, const char *directory)
{
    json_object *config = NULL;
    if (json_object_deep_copy(cab_checkpoint_config(source)->root, &config, NULL) != 0)
        return cab_fail(CAB_ENOMEM, "%s: no memory for config.json", directory);
    const cab_status status = cab_export_config(config, dtype, directory);
    json_object_put(config);
    return status;
}

/* Both paths lead to one directory. */
static bool same_directory(const char *a, const char *b)
{
    char *x = realpath(a, NULL), *y = realpath(b, NULL);
    const bool same = x != NULL && y != NULL && strcmp(x, y) == 0;
    free(x);
    free(y);
    return same;
}

cab_status cab_export_check(const cab_export *what, const char *directory)
{
    if (cab_dtype_is_blocks(what->dtype))
        return cab_fail(CAB_EARG, "%s: directories hold F32, F16 or BF16, not %s", directory,
                        cab_dtype_name(what->dtype));
    return same_directory(what->model, directory) ? cab_fail(CAB_EARG, "%s: is the model itself", directory) : CAB_OK;
}

cab_status cab_export_directory(const cab_export *what, const char *directory, cab_exported *out)
{
    cab_checkpoint *source = NULL;
    const cab_arch *arch = NULL;
    cab_config *config = NULL;
    cab_status status;
    *out = (cab_exported){0};
    CAB_TRY(cab_export_check(what, directory));
    CAB_GOTO(cab_checkpoint_open(what->model, &source));
    CAB_GOTO(cab_architecture_of(cab_checkpoint_config(source), &arch));
    CAB_GOTO(CAB_NEW(&config, 1, "a configuration"));
    CAB_GOTO(cab_architecture_configure(arch, cab_checkpoint_config(source), config));
    if (config->image_size > 0 || arch->measure != NULL) { /* more than weights and a tokenizer belongs to it */
        status = cab_fail(CAB_EUNSUPPORTED, "%s: a model of images; supported are models of text", what->model);
        goto done;
    }
    CAB_GOTO(cab_directory_make(directory));
    CAB_GOTO(write_weights(source, what->dtype, directory, out));
    CAB_GOTO(write_config(source, what->dtype, directory));
    status = cab_model_copy_tokenizer(what->tokenizer != NULL ? what->tokenizer : what->model, directory);
done:
    cab_free(config);
    cab_checkpoint_close(source);
    return status;
}
