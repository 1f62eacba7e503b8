/* export_directory.c - a model written as a directory of Hugging Face's layout: what a GGUF file holds, under transformers' names, or another
 * directory with matrices of another type. */
#include "base/file.h"
#include "base/memory.h"
#include "models/export_internal.h"
#include "tensor/blocks.h"

#include <stdlib.h>
#include <string.h>

/* A tensor to write. */
typedef struct copied {
    const cab_safetensors_entry *entry;
    cab_dtype dtype;
} copied;

/* cab_safetensors_read: `user` is the checkpoint. */
static cab_status read_tensor(void *user, const void *source, void *out, size_t bytes)
{
    enum { AT_ONCE = 1 << 18 };
    const copied *c = source;
    const cab_safetensors_entry *e = c->entry;
    const int64_t n = (int64_t)(bytes / cab_dtype_size(c->dtype)), columns = e->n_dim > 1 ? n / e->shape[0] : 1;
    const int64_t step = columns < AT_ONCE ? AT_ONCE / columns * columns : columns;
    float *values = NULL;
    cab_status status = CAB_NEW(&values, (size_t)(step < n ? step : n), "a part of a tensor");
    for (int64_t first = 0; status == CAB_OK && first < n; first += step) {
        const int64_t count = n - first < step ? n - first : step;
        status = cab_checkpoint_read_part(user, e, first, count, values);
        if (status == CAB_OK &&
            cab_blocks_pack(c->dtype, values, (uint8_t *)out + (size_t)first * cab_dtype_size(c->dtype), count) >= 0)
            status = cab_fail(CAB_ENUMERIC, "%s: tensor \"%s\" has values too large for %s", e->file, e->name,
                              cab_dtype_name(c->dtype));
    }
    cab_free(values);
    return status;
}

/* Matrices that are multiplied; those of a convolution have three dimensions. */
static bool is_product(const cab_safetensors_entry *e)
{
    const size_t n = strlen(e->name), end = strlen(".weight");
    return e->n_dim == 2 && n > end && strcmp(e->name + n - end, ".weight") == 0;
}

static cab_status write_weights(cab_checkpoint *source, cab_dtype dtype, const char *directory, cab_exported *out)
{
    char path[CAB_PATH_MAX];
    cab_safetensors_writer *writer = NULL;
    copied *tensors = NULL;
    cab_status status;
    out->tensors = cab_checkpoint_count(source);
    cab_export_say_left_out(source);
    CAB_GOTO(cab_path_join(path, directory, "model.safetensors"));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    CAB_GOTO(cab_safetensors_writer_metadata(writer, "format", "pt"));
    CAB_GOTO(CAB_NEW(&tensors, out->tensors, "tensors to write"));
    for (size_t i = 0; i < out->tensors; i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(source, i);
        uint64_t bytes;
        tensors[i] = (copied){.entry = e, .dtype = is_product(e) ? dtype : CAB_F32};
        bytes = cab_dtype_size(tensors[i].dtype);
        for (int d = 0; d < e->n_dim; d++)
            bytes *= (uint64_t)e->shape[d];
        out->bytes += bytes;
        CAB_GOTO(cab_safetensors_writer_add_from(writer, e->name, tensors[i].dtype, e->n_dim, e->shape, read_tensor,
                                                 source, &tensors[i]));
    }
    status = cab_safetensors_writer_save(writer, path);
done:
    cab_free(tensors);
    cab_safetensors_writer_free(writer);
    return status;
}

static cab_status write_config(const cab_checkpoint *source, cab_dtype dtype, const char *directory)
{
    char path[CAB_PATH_MAX];
    const char *name = dtype == CAB_F32 ? "float32" : dtype == CAB_F16 ? "float16" : "bfloat16";
    json_object *config = NULL;
    CAB_TRY(cab_path_join(path, directory, "config.json"));
    if (json_object_deep_copy(cab_checkpoint_config(source)->root, &config, NULL) != 0)
        return cab_fail(CAB_ENOMEM, "%s: no memory for it", path);
    json_object_object_add(config, "dtype", json_object_new_string(name));
    json_object_object_del(config, "torch_dtype");
    const cab_status status = cab_json_save(config, path);
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

cab_status cab_export_directory(const cab_export *what, const char *directory, cab_exported *out)
{
    cab_checkpoint *source = NULL;
    const cab_arch *arch = NULL;
    cab_config *config = NULL;
    cab_status status;
    *out = (cab_exported){0};
    if (cab_dtype_is_blocks(what->dtype))
        return cab_fail(CAB_EARG, "%s: directories hold F32, F16 or BF16, not %s", directory,
                        cab_dtype_name(what->dtype));
    if (same_directory(what->model, directory))
        return cab_fail(CAB_EARG, "%s: is the model itself", directory);
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
