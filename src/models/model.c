/* model.c - opening, creating and saving models of any architecture. */
#include "models/model.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/text_bounds.h"
#include "data/tokenizer_gguf.h"
#include "models/builder.h"
#include "ops/backends.h"

#include <string.h>

static const char *const copied_files[] = {
    "tokenizer.json",  "tokenizer_config.json",   "vocab.json",          "merges.txt",
    "tokenizer.model", "special_tokens_map.json", "chat_template.jinja", NULL};

static cab_status model_new(const cab_arch *arch, cab_backend *backend, cab_precision precision, cab_model **out)
{
    CAB_TRY(CAB_NEW(out, 1, "a model"));
    (*out)->arch = arch;
    (*out)->backend = backend;
    (*out)->precision = precision & CAB_PRECISION_BF16;
    (*out)->as_is = precision & CAB_PRECISION_AS_IS;
    return cab_params_new(backend, &(*out)->params);
}

static cab_status model_build(cab_model *model, bool trainable)
{
    size_t in_blocks = 0;
    cab_builder builder = {.backend = model->backend,
                           .params = model->params,
                           .source = model->source,
                           .dtype = cab_model_dtype(model),
                           .trainable = trainable,
                           .as_is = model->as_is,
                           .in_blocks = &in_blocks,
                           .image_size = model->stated_size};
    cab_network *n = &model->network;
    cab_status status;
    n->n_layer = model->config.n_layer;
    n->max_length = model->config.max_length;
    n->step_length = cab_config_steps(&model->config);
    CAB_TRY(CAB_NEW(&n->blocks, (size_t)n->n_layer, "a model's layers"));
    if (model->source != NULL)
        CAB_TRY(CAB_NEW(&builder.used, cab_checkpoint_count(model->source), "a model's tensors"));
    CAB_GOTO(model->arch->build(&builder, &model->config, n));
    status = cab_builder_finish(&builder, model->arch->unread);
    if (status == CAB_OK && model->as_is && in_blocks == 0)
        status = cab_fail(CAB_EUNSUPPORTED,
                          "%s: precision as-is: no matrix is quantised, expected a .gguf file of Q8_0, "
                          "Q4_0 to Q5_1 or Q4_K to Q6_K",
                          model->directory);
done:
    cab_free(builder.used);
    if (status != CAB_OK)
        return status;
    return trainable ? cab_params_set_trainable(model->params, "*", true, NULL) : CAB_OK;
}

cab_status cab_model_count_parameters(const cab_arch *arch, const cab_config *config, cab_model_count *count)
{
    cab_network network = {.n_layer = config->n_layer, .max_length = config->max_length};
    cab_builder builder = {.count = count, .image_size = config->image_size};
    *count = (cab_model_count){0};
    CAB_TRY(CAB_NEW(&network.blocks, (size_t)network.n_layer, "a model's layers"));
    cab_status status = arch->build(&builder, config, &network);
    cab_free(network.blocks);
    return status;
}

/* The sizes that a checkpoint states, in its config.json and by its tensors. */
static cab_status configure(const cab_arch *arch, const cab_checkpoint *source, cab_config *config)
{
    CAB_TRY(cab_architecture_configure(arch, cab_checkpoint_config(source), config));
    return arch->measure == NULL ? CAB_OK : arch->measure(source, config);
}

/* The model for images of another size: more or fewer patches. */
static cab_status resize(cab_config *c, int image_size, const char *directory)
{
    if (image_size == 0 || image_size == c->image_size)
        return CAB_OK;
    if (c->image_size == 0)
        return cab_fail(CAB_EARG, "%s: not a model of images, an image size of %d says nothing", directory, image_size);
    if (image_size < c->patch_size || image_size % c->patch_size != 0 || image_size > CAB_IMAGE_MAX)
        return cab_fail(CAB_EARG, "%s: image size %d is not a multiple of the patches' %d up to %d", directory,
                        image_size, c->patch_size, CAB_IMAGE_MAX);
    cab_config_set_image(c, image_size);
    return CAB_OK;
}

cab_status cab_model_sizes(const char *directory, cab_config *config)
{
    cab_checkpoint *source = NULL;
    const cab_arch *arch = NULL;
    cab_status status;
    CAB_TRY(cab_checkpoint_open(directory, &source));
    CAB_GOTO(cab_architecture_of(cab_checkpoint_config(source), &arch));
    *config = (cab_config){0};
    CAB_GOTO(configure(arch, source, config));
    config->in_place = NULL;
done:
    cab_checkpoint_close(source);
    return status;
}

cab_status cab_model_open_sized(const char *directory, int image_size, cab_backend *backend, cab_precision precision,
                                bool trainable, cab_model **out)
{
    cab_checkpoint *source = NULL;
    cab_model *model = NULL;
    const cab_arch *arch = NULL;
    cab_status status;
    CAB_TRY(cab_checkpoint_open(directory, &source));
    CAB_GOTO(cab_architecture_of(cab_checkpoint_config(source), &arch));
    CAB_GOTO(model_new(arch, backend, precision, &model));
    CAB_GOTO(cab_strdup(&model->directory, directory));
    CAB_GOTO(configure(arch, source, &model->config));
    json_object_get(model->config.in_place);
    if (arch->settings != NULL && !model->config.timm)
        cab_settings_warn(cab_checkpoint_config(source), arch->settings);
    if (cab_checkpoint_left_out(source) > 0)
        cab_log_info("%s: the language model of a model of several parts; %zu tensors of the others are left out",
                     directory, cab_checkpoint_left_out(source));
    model->stated_size = model->config.image_size;
    CAB_GOTO(resize(&model->config, image_size, directory));
    model->source = source;
    if (model->as_is && trainable)
        CAB_GOTO(cab_fail(CAB_EUNSUPPORTED, "%s: precision as-is is of frozen models; quantised matrices do not train",
                          directory));
    status = model_build(model, trainable);
done:
    if (model == NULL || model->source == NULL)
        cab_checkpoint_close(source);
    if (status != CAB_OK)
        cab_model_free(model);
    else
        *out = model;
    return status;
}

cab_status cab_model_open(const char *directory, cab_backend *backend, cab_precision precision, bool trainable,
                          cab_model **out)
{
    return cab_model_open_sized(directory, 0, backend, precision, trainable, out);
}

cab_status cab_model_create_as(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                               cab_precision precision, bool trainable, cab_model **out)
{
    cab_model *model = NULL;
    cab_status status;
    CAB_GOTO(model_new(arch, backend, precision, &model));
    model->config = *config;
    json_object_get(model->config.in_place);
    model->stated_size = config->image_size;
    status = model_build(model, trainable);
done:
    if (status != CAB_OK)
        cab_model_free(model);
    else
        *out = model;
    return status;
}

cab_status cab_model_create(const cab_arch *arch, const cab_config *config, cab_backend *backend,
                            cab_precision precision, cab_model **out)
{
    return cab_model_create_as(arch, config, backend, precision, true, out);
}

cab_status cab_model_load(const char *directory, cab_precision precision, cab_model **model)
{
    return cab_model_load_on("cpu", directory, precision, model);
}

cab_status cab_model_load_on(const char *device, const char *directory, cab_precision precision, cab_model **model)
{
    cab_backend *backend = NULL;
    CAB_TRY(cab_backend_open(device, &backend));
    cab_status status = cab_model_open(directory, backend, precision, false, model);
    if (status != CAB_OK)
        cab_backend_close(backend);
    else
        (*model)->owns_backend = true;
    return status;
}

void cab_model_free(cab_model *model)
{
    if (model == NULL)
        return;
    cab_params_free(model->params);
    cab_checkpoint_close(model->source);
    cab_free(model->directory);
    cab_free(model->network.blocks);
    json_object_put(model->config.in_place);
    if (model->owns_backend)
        cab_backend_close(model->backend);
    cab_free(model);
}

const char *cab_model_architecture(const cab_model *model)
{
    return model->arch->name;
}

uint64_t cab_model_parameters(const cab_model *model)
{
    return cab_params_elements(model->params);
}

cab_dtype cab_model_dtype(const cab_model *model)
{
    return model->precision == CAB_PRECISION_BF16 ? CAB_BF16 : CAB_F32;
}

cab_precision cab_precision_auto(const char *device)
{
    if (strcmp(device, "cpu") != 0)
        return CAB_PRECISION_BF16;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512bf16"))
        return CAB_PRECISION_BF16;
#endif
    return CAB_PRECISION_FP32;
}

cab_precision cab_precision_of_file(const char *device, const char *path)
{
    const cab_precision precision = cab_precision_auto(device);
    cab_gguf *gguf = NULL;
    if (strcmp(device, "cpu") != 0 || !cab_gguf_named(path) || cab_path_is_directory(path) ||
        cab_gguf_open(path, &gguf) != CAB_OK)
        return precision;
    const cab_safetensors_entry *e = cab_gguf_find(gguf, "token_embd.weight");
    const bool quantised = e != NULL && e->dtype != CAB_DTYPES && cab_dtype_is_blocks(e->dtype);
    cab_gguf_close(gguf);
    return quantised ? precision | CAB_PRECISION_AS_IS : precision;
}

cab_tensor *cab_model_input(cab_graph *g, const cab_model *model, int64_t batch, int64_t length)
{
    const int64_t size = model->config.image_size;
    if (cab_model_reads_images(model))
        return cab_graph_input(g, "pixels", CAB_F32, 4, (int64_t[]){batch, 3, size, size});
    return cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){batch, length});
}

int64_t cab_model_tokens(const cab_model *model, int64_t length)
{
    return cab_model_reads_images(model) ? model->config.max_length : length;
}

cab_tensor *cab_model_record(cab_graph *g, const cab_model *model, cab_tensor *ids, int recompute, const cab_taps *taps)
{
    return cab_model_record_documents(g, model, ids, NULL, recompute, taps);
}

cab_tensor *cab_model_record_documents(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *starts,
                                       int recompute, const cab_taps *taps)
{
    return cab_network_record(g, &model->network, cab_model_dtype(model), ids, starts, recompute, taps);
}

cab_tensor *cab_model_record_step(cab_graph *g, const cab_model *model, cab_tensor *ids, cab_tensor *position)
{
    return cab_network_record_step(g, &model->network, cab_model_dtype(model), ids, position);
}

cab_head_side cab_model_head(const cab_model *model)
{
    return (cab_head_side){.w = model->network.head.w, .b = model->network.head.b, .cap = model->network.logit_cap};
}

cab_tensor *cab_model_record_logits(cab_graph *g, const cab_model *model, cab_tensor *hidden)
{
    return cab_network_cap(g, &model->network, cab_dense_record(g, &model->network.head, hidden));
}

bool cab_model_reads_images(const cab_model *model)
{
    return model->config.image_size > 0;
}

int cab_config_steps(const cab_config *c)
{
    const bool switches =
        c->rope.kind == CAB_ROPE_LONGROPE && memcmp(c->rope_factors[0], c->rope_factors[1], sizeof *c->rope_factors);
    return switches && c->rope.original < c->max_length ? c->rope.original : c->max_length;
}

cab_attention_shape cab_config_attention(const cab_config *c, double scale)
{
    return (cab_attention_shape){
        .n_head = c->n_head, .n_kv_head = c->n_kv_head, .head_dim = c->head_dim, .scale = (float)scale, .causal = true};
}

void cab_config_set_image(cab_config *c, int image_size)
{
    const int grid = image_size / c->patch_size, patches = grid * grid;
    c->image_size = image_size;
    c->class_at = c->class_middle ? patches / 2 : 0;
    c->max_length = patches + c->n_special;
}

bool cab_model_attends(const cab_model *model)
{
    bool all = true;
    for (int l = 0; l < model->network.n_layer; l++)
        all = all && cab_block_attends(&model->network.blocks[l]);
    return all;
}

int64_t cab_model_tap_width(const cab_model *model, int layer, cab_tap tap)
{
    return cab_block_width(&model->network.blocks[layer], tap);
}

static cab_status save_config(const cab_model *model, const char *directory)
{
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, "config.json"));
    json_object *json = json_object_new_object();
    cab_status status = model->arch->describe(&model->config, json);
    if (status == CAB_OK)
        status = cab_json_save(json, path);
    json_object_put(json);
    return status;
}

static cab_status read_parameter(void *params, const void *parameter, void *out, size_t bytes)
{
    (void)bytes;
    return cab_params_read(params, parameter, out);
}

/* Everything is stored as fp32: the masters. Tensors are read one at a time while they are written. */
static cab_status save_parameters(const cab_model *model, const char *directory, const float *const *given)
{
    char path[CAB_PATH_MAX];
    cab_safetensors_writer *writer = NULL;
    cab_status status;
    CAB_TRY(cab_path_join(path, directory, "model.safetensors"));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    CAB_GOTO(cab_safetensors_writer_metadata(writer, "format", "pt"));
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        const cab_tensor *t = cab_params_at(model->params, i);
        int n_dim = 0;
        const int64_t *shape = cab_params_stored_shape(model->params, i, &n_dim);
        if (given != NULL && given[i] != NULL)
            CAB_GOTO(cab_safetensors_writer_add(writer, t->name, CAB_F32, n_dim, shape, given[i]));
        else
            CAB_GOTO(cab_safetensors_writer_add_from(writer, t->name, CAB_F32, n_dim, shape, read_parameter,
                                                     model->params, t));
    }
    status = cab_safetensors_writer_save(writer, path);
done:
    cab_safetensors_writer_free(writer);
    return status;
}

static cab_status write_file(const char *directory, const char *name, const char *text, size_t size)
{
    char target[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(target, directory, name));
    return cab_file_write(target, text, size);
}

/* The tokenizer and the chat template that a GGUF file holds, as files of a directory. */
static cab_status write_tokenizer(const char *gguf_path, const char *to)
{
    char *text = NULL;
    const char *chat = NULL, *kind = NULL;
    size_t size = 0;
    cab_gguf *gguf = NULL;
    cab_status status;
    CAB_TRY(cab_gguf_open(gguf_path, &gguf));
    CAB_GOTO(cab_json_string_or(cab_gguf_metadata(gguf), NULL, "tokenizer.ggml.model", "no_vocab", &kind));
    if (strcmp(kind, "no_vocab") == 0)
        goto done;
    CAB_GOTO(cab_tokenizer_from_gguf(gguf, &text, &size));
    CAB_GOTO(write_file(to, "tokenizer.json", text, size));
    CAB_GOTO(cab_json_string_or(cab_gguf_metadata(gguf), NULL, "tokenizer.chat_template", NULL, &chat));
    if (chat != NULL)
        CAB_GOTO(write_file(to, "chat_template.jinja", chat, strlen(chat)));
done:
    cab_free(text);
    cab_gguf_close(gguf);
    return status;
}

cab_status cab_model_copy_tokenizer(const char *from, const char *to)
{
    char source[CAB_PATH_MAX], target[CAB_PATH_MAX];
    if (from == NULL || strcmp(from, to) == 0)
        return CAB_OK;
    if (cab_gguf_named(from) && !cab_path_is_directory(from))
        CAB_TRY(write_tokenizer(from, to));
    for (int i = 0; copied_files[i] != NULL; i++) {
        CAB_TRY(cab_path_join(source, from, copied_files[i]));
        CAB_TRY(cab_path_join(target, to, copied_files[i]));
        if (cab_path_exists(source))
            CAB_TRY(cab_file_copy(source, target));
    }
    return cab_text_bounds_copy(from, to);
}

cab_status cab_model_export(const cab_model *model, const char *directory, const char *tokenizer_directory,
                            const float *const *values)
{
    if (model->arch->describe == NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: models of architecture \"%s\" are read, not written", directory,
                        model->arch->name);
    CAB_TRY(cab_directory_make(directory));
    CAB_TRY(save_parameters(model, directory, values));
    CAB_TRY(save_config(model, directory));
    return cab_model_copy_tokenizer(tokenizer_directory, directory);
}

cab_status cab_model_save(const cab_model *model, const char *directory)
{
    return cab_model_export(model, directory, model->directory, NULL);
}
