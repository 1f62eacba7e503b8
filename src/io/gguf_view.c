/* gguf_view.c - what llama.cpp calls things, and what transformers calls them. */
#include "io/gguf_view.h"

#include "base/memory.h"
#include "io/gguf_mixer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- tables ------------------------------------------------------------------------------------------------------- */

/* Keys of the file, behind "<architecture>.", and of config.json. */
typedef struct key_pair {
    const char *gguf, *config; /* config NULL: known, and says nothing that is needed */
} key_pair;

static const key_pair keys[] = {
    {"block_count", "num_hidden_layers"},
    {"context_length", "max_position_embeddings"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"attention.key_length", "head_dim"},
    {"attention.value_length", NULL}, /* as key_length: checked */
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.layer_norm_epsilon", "norm_epsilon"},
    {"attention.sliding_window", "sliding_window"},
    {"attention.sliding_window_pattern", "sliding_window_pattern"},
    {"attention.scale", "attention_multiplier"},
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"logit_scale", "logits_scaling"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"rope.freq_base", "rope_theta"},
    {"rope.freq_base_swa", "rope_local_base_freq"},
    {"rope.dimension_count", NULL}, /* below */
    {"rope.scaling.type", NULL},
    {"rope.scaling.factor", NULL},
    {"rope.scaling.attn_factor", NULL},
    {"rope.scaling.original_context_length", NULL},
    {"rope.scaling.finetuned", NULL},
    {"rope.scaling.yarn_beta_fast", NULL},
    {"rope.scaling.yarn_beta_slow", NULL},
    {"vocab_size", NULL}, /* the embedding's rows say it */
};

enum { WIDTH_MAX = 1 << 16 };

/* Vectors of factors for the frequencies of the rotary embedding: no tensors to transformers. */
static const char *const factor_tensors[] = {"rope_freqs.weight", "rope_factors_short.weight",
                                             "rope_factors_long.weight"};

/* ---- configuration ------------------------------------------------------------------------------------------------ */

static cab_status find_family(const cab_json *metadata, const cab_gguf_family **out)
{
    const char *name = NULL;
    char known[256] = "";
    size_t used = 0;
    CAB_TRY(cab_json_string(metadata, NULL, "general.architecture", &name));
    for (const cab_gguf_family *f = cab_gguf_families; f->name != NULL; f++) {
        if (f->constants == NULL)
            continue;
        if (strcmp(f->name, name) == 0) {
            *out = f;
            return CAB_OK;
        }
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", f->name);
    }
    return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%.64s\" is not read from GGUF files; supported are %s",
                    metadata->name, name, known);
}

static const key_pair *find_key(const char *suffix)
{
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(keys[i].gguf, suffix) == 0)
            return &keys[i];
    return NULL;
}

/* Every key of the architecture, or a refusal. */
static cab_status copy_keys(const cab_json *metadata, const cab_gguf_family *f, json_object *config)
{
    const size_t n = strlen(f->name);
    json_object_object_foreach(metadata->root, key, value)
    {
        if (strncmp(key, f->name, n) != 0 || key[n] != '.')
            continue;
        const key_pair *pair = find_key(key + n + 1);
        if (pair == NULL && f->mixer != NULL && cab_gguf_mixer_knows(key + n + 1))
            continue;
        if (pair == NULL)
            return cab_fail(CAB_EUNSUPPORTED, "%s: the key \"%s\" is not known, and may change what the model computes",
                            metadata->name, key);
        const bool none = strcmp(key + n + 1, "attention.sliding_window") == 0 && json_object_get_int64(value) == 0;
        if (pair->config != NULL && !none) /* Phi 4's window of 0 is none */
            json_object_object_add(config, pair->config, json_object_get(value));
    }
    return CAB_OK;
}

static cab_status add_constants(const cab_gguf_family *f, const cab_json *metadata, json_object *config)
{
    json_object *constants = json_tokener_parse(f->constants);
    if (constants == NULL)
        return cab_fail(CAB_ENOMEM, "%s: no memory for its configuration", metadata->name);
    json_object_object_foreach(constants, key, value)
    {
        if (!json_object_object_get_ex(config, key, NULL))
            json_object_object_add(config, key, json_object_get(value));
    }
    json_object_put(constants);
    json_object_object_add(config, "model_type", json_object_new_string(f->model_type));
    return CAB_OK;
}

/* The getters of json.h, of "<architecture>.<suffix>". */
static cab_status int_of(const cab_json *metadata, const cab_gguf_family *f, const char *suffix, int64_t fallback,
                         int64_t *out)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", f->name, suffix);
    return cab_json_int_or(metadata, NULL, key, 0, INT32_MAX, fallback, out);
}

static cab_status number_of(const cab_json *metadata, const cab_gguf_family *f, const char *suffix, double fallback,
                            double *out)
{
    char key[128];
    snprintf(key, sizeof key, "%s.%s", f->name, suffix);
    return cab_json_number_or(metadata, NULL, key, fallback, out);
}

static json_object *factors_of(const cab_gguf *gguf, const char *name)
{
    const cab_safetensors_entry *e = cab_gguf_find(gguf, name);
    if (e == NULL || e->dtype != CAB_F32 || e->n_dim != 1)
        return NULL;
    json_object *list = json_object_new_array();
    for (int64_t i = 0; i < e->shape[0]; i++) {
        float value;
        memcpy(&value, (const uint8_t *)e->data + (size_t)i * sizeof value, sizeof value);
        json_object_array_add(list, json_object_new_double((double)value));
    }
    return list;
}

/* Llama 3's scaling comes as a factor per frequency, as do those of longrope: all are transformers' "longrope". */
static void add_factors(const cab_gguf *gguf, json_object *scaling)
{
    json_object *one = factors_of(gguf, factor_tensors[0]);
    json_object *shorter = one != NULL ? json_object_get(one) : factors_of(gguf, factor_tensors[1]);
    json_object *longer = one != NULL ? one : factors_of(gguf, factor_tensors[2]);
    if (shorter == NULL || longer == NULL) {
        json_object_put(shorter);
        json_object_put(longer);
        return;
    }
    json_object_object_add(scaling, "rope_type", json_object_new_string("longrope"));
    json_object_object_add(scaling, "short_factor", shorter);
    json_object_object_add(scaling, "long_factor", longer);
}

static cab_status add_scaling(const cab_gguf *gguf, const cab_gguf_family *f, json_object *config)
{
    const cab_json *metadata = cab_gguf_metadata(gguf);
    const char *type = NULL;
    char key[128];
    double factor = 1, attention = 1, fast = 32, slow = 1;
    int64_t original = 0, context = 0;
    snprintf(key, sizeof key, "%s.rope.scaling.type", f->name);
    CAB_TRY(cab_json_string_or(metadata, NULL, key, "none", &type));
    CAB_TRY(number_of(metadata, f, "rope.scaling.factor", 1, &factor));
    CAB_TRY(number_of(metadata, f, "rope.scaling.attn_factor", 1, &attention));
    CAB_TRY(number_of(metadata, f, "rope.scaling.yarn_beta_fast", 32, &fast));
    CAB_TRY(number_of(metadata, f, "rope.scaling.yarn_beta_slow", 1, &slow));
    CAB_TRY(int_of(metadata, f, "context_length", 0, &context));
    CAB_TRY(int_of(metadata, f, "rope.scaling.original_context_length", context, &original));
    json_object *scaling = json_object_new_object();
    add_factors(gguf, scaling);
    if (json_object_object_length(scaling) > 0 && strcmp(type, "none") != 0 && strcmp(type, "longrope") != 0) {
        json_object_put(scaling);
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is \"%.40s\" beside a table of rotary factors; supported is none",
                        metadata->name, key, type);
    }
    if (json_object_object_length(scaling) == 0 && strcmp(type, "none") != 0)
        json_object_object_add(scaling, "rope_type", json_object_new_string(type));
    if (json_object_object_length(scaling) == 0) {
        json_object_put(scaling);
        return CAB_OK;
    }
    json_object_object_add(scaling, "factor", json_object_new_double(factor));
    if (strcmp(type, "yarn") == 0 &&
        factor > 1) /* what goes without saying in llama.cpp, and comes in front of attn_factor */
        attention *= 0.1 * log(factor) + 1;
    json_object_object_add(scaling, "attention_factor", json_object_new_double(attention));
    json_object_object_add(scaling, "original_max_position_embeddings", json_object_new_int64(original));
    if (strcmp(type, "yarn") == 0) {
        json_object_object_add(scaling, "beta_fast", json_object_new_double(fast));
        json_object_object_add(scaling, "beta_slow", json_object_new_double(slow));
    }
    json_object_object_add(config, "rope_scaling", scaling);
    return CAB_OK;
}

/* Widths of heads: of keys, of values, and what of them is rotated. */
static cab_status add_heads(const cab_json *metadata, const cab_gguf_family *f, json_object *config)
{
    int64_t width, layers, heads, key, value, rotated;
    CAB_TRY(int_of(metadata, f, "embedding_length", 0, &width));
    CAB_TRY(int_of(metadata, f, "block_count", 0, &layers));
    CAB_TRY(int_of(metadata, f, "attention.head_count", 0, &heads));
    if (f->mixer != NULL && !f->mixer->attends)
        return CAB_OK;
    if (width < 1 || heads < 1)
        return cab_fail(CAB_EFORMAT, "%s: \"%s.embedding_length\" or \"%s.attention.head_count\" is missing",
                        metadata->name, f->name, f->name);
    CAB_TRY(int_of(metadata, f, "attention.key_length", width / heads, &key));
    CAB_TRY(int_of(metadata, f, "attention.value_length", width / heads, &value));
    CAB_TRY(int_of(metadata, f, "rope.dimension_count", key, &rotated));
    if (key != value || key < 1 || rotated > key)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: heads of width %lld for keys and %lld for values, %lld rotated; expected the same widths",
                        metadata->name, (long long)key, (long long)value, (long long)rotated);
    json_object_object_add(config, "head_dim", json_object_new_int64(key));
    if (rotated != key)
        json_object_object_add(config, "partial_rotary_factor", json_object_new_double((double)rotated / (double)key));
    if (strncmp(f->model_type, "granite", 7) == 0 && !json_object_object_get_ex(config, "attention_multiplier", NULL))
        json_object_object_add(config, "attention_multiplier", json_object_new_double(1 / sqrt((double)key)));
    if (f->wide_layers > 0)
        json_object_object_add(config, "query_pre_attn_scalar",
                               json_object_new_int64(layers == f->wide_layers ? width / heads : key));
    return CAB_OK;
}

static void add_token(const cab_json *metadata, const char *key, const char *name, json_object *config)
{
    json_object *id = NULL;
    if (json_object_object_get_ex(metadata->root, key, &id))
        json_object_object_add(config, name, json_object_get(id));
}

/* What the tensors say. */
static cab_status add_from_tensors(const cab_gguf *gguf, json_object *config)
{
    const cab_safetensors_entry *embedding = cab_gguf_find(gguf, "token_embd.weight");
    if (embedding == NULL || embedding->n_dim != 2)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"token_embd.weight\" is missing", cab_gguf_metadata(gguf)->name);
    json_object_object_add(config, "vocab_size", json_object_new_int64(embedding->shape[0]));
    json_object_object_add(config, "tie_word_embeddings",
                           json_object_new_boolean(cab_gguf_find(gguf, "output.weight") == NULL));
    json_object_object_add(config, "attention_bias",
                           json_object_new_boolean(cab_gguf_find(gguf, "blk.0.attn_q.bias") != NULL));
    json_object_object_add(config, "mlp_bias",
                           json_object_new_boolean(cab_gguf_find(gguf, "blk.0.ffn_up.bias") != NULL));
    return CAB_OK;
}

/* Layers that slide, one by one, under transformers' names for them. */
static void name_layers(json_object *config)
{
    json_object *pattern = NULL;
    if (!json_object_object_get_ex(config, "sliding_window_pattern", &pattern) ||
        !json_object_is_type(pattern, json_type_array))
        return;
    json_object *types = json_object_new_array();
    for (size_t i = 0; i < json_object_array_length(pattern); i++)
        json_object_array_add(types,
                              json_object_new_string(json_object_get_boolean(json_object_array_get_idx(pattern, i))
                                                         ? "sliding_attention"
                                                         : "full_attention"));
    json_object_object_del(config, "sliding_window_pattern");
    json_object_object_add(config, "layer_types", types);
}

static cab_status make_config(const cab_gguf *gguf, const cab_gguf_family *f, cab_json *config)
{
    const cab_json *metadata = cab_gguf_metadata(gguf);
    CAB_TRY(cab_strdup(&config->name, metadata->name));
    config->root = json_object_new_object();
    if (config->root == NULL)
        return cab_fail(CAB_ENOMEM, "%s: no memory for its configuration", metadata->name);
    CAB_TRY(copy_keys(metadata, f, config->root));
    name_layers(config->root);
    CAB_TRY(add_constants(f, metadata, config->root));
    CAB_TRY(add_heads(metadata, f, config->root));
    CAB_TRY(add_scaling(gguf, f, config->root));
    add_token(metadata, "tokenizer.ggml.bos_token_id", "bos_token_id", config->root);
    add_token(metadata, "tokenizer.ggml.eos_token_id", "eos_token_id", config->root);
    add_token(metadata, "tokenizer.ggml.padding_token_id", "pad_token_id", config->root);
    CAB_TRY(add_from_tensors(gguf, config->root));
    return f->mixer != NULL ? cab_gguf_mixer_config(gguf, f, config->root) : CAB_OK;
}

/* ---- tensors ------------------------------------------------------------------------------------------------------ */

/* The row that a tensor's name is in, or NULL. */
static const cab_gguf_name *translate(const cab_gguf_name *names, const char *name, char out[CAB_GGUF_NAME_MAX])
{
    while (names->gguf != NULL && !cab_gguf_to_transformers(names, name, out))
        names++;
    return names->gguf != NULL ? names : NULL;
}

static bool is_factors(const char *name)
{
    for (size_t i = 0; i < sizeof factor_tensors / sizeof *factor_tensors; i++)
        if (strcmp(name, factor_tensors[i]) == 0)
            return true;
    return false;
}

static cab_status check_heads(const cab_safetensors_entry *e, const cab_gguf_change *change)
{
    if (change->heads > 0 && (e->n_dim < 1 || e->shape[0] % (2 * (int64_t)change->heads) != 0))
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %lld rows, expected %d heads of an even width", e->file,
                        e->name, (long long)(e->n_dim < 1 ? 0 : e->shape[0]), change->heads);
    return CAB_OK;
}

static cab_status misshapen(const cab_safetensors_entry *e, const char *expected)
{
    return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %d dimensions, expected %s", e->file, e->name, e->n_dim,
                    expected);
}

/* Gives an entry transformers' shape. Halves of a tensor are one entry: the second is noted beside the first. */
static cab_status reshape(const cab_gguf *gguf, const cab_gguf_name *row, cab_gguf_view *view, size_t i)
{
    cab_safetensors_entry *e = &view->entries[i];
    char name[CAB_GGUF_NAME_MAX];
    view->changes[i].decay = row->form == CAB_GGUF_DECAY || row->form == CAB_GGUF_DECAY_HEAD;
    switch (row->form) {
    case CAB_GGUF_FILTER:
        if (strcmp(e->name + strlen(e->name) - 5, ".bias") == 0)
            return CAB_OK;
        if (e->n_dim != 2)
            return misshapen(e, "2");
        e->n_dim = 3;
        e->shape[2] = e->shape[1];
        e->shape[1] = 1;
        return CAB_OK;
    case CAB_GGUF_GROUPS:
    case CAB_GGUF_COLUMN:
    case CAB_GGUF_DECAY_HEAD:
        if (e->n_dim != 2)
            return misshapen(e, "2");
        e->n_dim = 1;
        e->shape[0] *= e->shape[1];
        return CAB_OK;
    case CAB_GGUF_FIRST_HALF:
        if (e->n_dim != 2 || !cab_gguf_from_transformers(row + 1, view->names[i], name))
            return misshapen(e, "2");
        view->rests[i] = cab_gguf_find(gguf, name);
        if (view->rests[i] == NULL || view->rests[i]->n_dim != 2 || view->rests[i]->shape[0] != e->shape[0] ||
            view->rests[i]->shape[1] != e->shape[1])
            return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" is missing or has not the shape of \"%s\"", e->file, name,
                            e->name);
        e->shape[0] *= 2;
        return CAB_OK;
    default:
        return CAB_OK;
    }
}

static cab_status add_tensor(const cab_gguf *gguf, const cab_gguf_family *f, const cab_safetensors_entry *e,
                             const int heads[2], cab_gguf_view *view)
{
    const size_t i = view->count;
    char name[CAB_GGUF_NAME_MAX];
    const cab_gguf_name *row = translate(f->names, e->name, name);
    if (row == NULL)
        row = translate(cab_gguf_common_names, e->name, name);
    if (row == NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%s\" has no place in a model of architecture \"%s\"", e->file,
                        e->name, f->name);
    if (row->form == CAB_GGUF_SECOND_HALF)
        return CAB_OK;
    CAB_TRY(cab_strdup(&view->names[i], name));
    view->count++;
    view->entries[i] = *e;
    view->changes[i] = cab_gguf_change_of(f, e->name, heads[0], heads[1]);
    CAB_TRY(check_heads(e, &view->changes[i]));
    CAB_TRY(reshape(gguf, row, view, i));
    view->entries[i].name = view->names[i];
    return CAB_OK;
}

/* llama.cpp's Falcon-H1 adds biases to q, k and v, and none to what attention gives; transformers' adds all four. */
static cab_status add_zero_biases(const cab_gguf *gguf, const cab_gguf_family *f, int64_t layers, cab_gguf_view *view)
{
    const int64_t width = cab_gguf_find(gguf, "token_embd.weight")->shape[1];
    char name[CAB_GGUF_NAME_MAX];
    if (strcmp(f->name, "falcon-h1") != 0 || cab_gguf_find(gguf, "blk.0.attn_q.bias") == NULL)
        return CAB_OK;
    if (width < 1 || width > WIDTH_MAX) /* a tensor of no rows has any width and no bytes */
        return cab_fail(CAB_ESHAPE, "%s: tensor \"token_embd.weight\" has %lld columns, expected 1 to %d",
                        cab_gguf_metadata(gguf)->name, (long long)width, WIDTH_MAX);
    CAB_TRY(CAB_NEW(&view->zeros, (size_t)width, "a bias"));
    for (int64_t l = 0; l < layers; l++) {
        const size_t i = view->count;
        snprintf(name, sizeof name, "blk.%d.attn_output.bias", (int)l);
        if (cab_gguf_find(gguf, name) != NULL)
            continue;
        snprintf(name, sizeof name, "model.layers.%d.self_attn.o_proj.bias", (int)l);
        CAB_TRY(cab_strdup(&view->names[i], name));
        view->count++;
        view->entries[i] = (cab_safetensors_entry){.file = cab_gguf_metadata(gguf)->name,
                                                   .name = view->names[i],
                                                   .dtype = CAB_F32,
                                                   .dtype_name = "F32",
                                                   .n_dim = 1,
                                                   .shape = {width},
                                                   .data = view->zeros,
                                                   .bytes = (size_t)width * sizeof(float)};
    }
    return CAB_OK;
}

static cab_status add_tensors(const cab_gguf *gguf, const cab_gguf_family *f, cab_gguf_view *view)
{
    const cab_json *metadata = cab_gguf_metadata(gguf);
    const int64_t count = (int64_t)cab_gguf_count(gguf);
    int64_t heads = 0, kv_heads = 0, layers = 0;
    CAB_TRY(int_of(metadata, f, "attention.head_count", 0, &heads));
    CAB_TRY(cab_gguf_kv_heads(metadata, f, heads, &kv_heads));
    CAB_TRY(int_of(metadata, f, "block_count", 0, &layers));
    layers = layers < count ? layers : count; /* each has a tensor */
    const size_t most = (size_t)(count + layers);
    CAB_TRY(CAB_NEW(&view->entries, most, "a model's tensors"));
    CAB_TRY(CAB_NEW(&view->changes, most, "a model's tensors"));
    CAB_TRY(CAB_NEW(&view->rests, most, "a model's tensors"));
    CAB_TRY(CAB_NEW(&view->names, most, "a model's tensors"));
    for (int64_t i = 0; i < count; i++)
        if (!is_factors(cab_gguf_at(gguf, (size_t)i)->name))
            CAB_TRY(add_tensor(gguf, f, cab_gguf_at(gguf, (size_t)i), (int[]){(int)heads, (int)kv_heads}, view));
    return add_zero_biases(gguf, f, layers, view);
}

cab_status cab_gguf_view_open(const cab_gguf *gguf, cab_gguf_view *view)
{
    const cab_gguf_family *f = NULL;
    cab_status status;
    *view = (cab_gguf_view){0};
    CAB_GOTO(find_family(cab_gguf_metadata(gguf), &f));
    CAB_GOTO(make_config(gguf, f, &view->config));
    status = add_tensors(gguf, f, view);
done:
    if (status != CAB_OK)
        cab_gguf_view_close(view);
    return status;
}

void cab_gguf_view_close(cab_gguf_view *view)
{
    for (size_t i = 0; view->names != NULL && i < view->count; i++)
        cab_free(view->names[i]);
    cab_free(view->names);
    cab_free(view->entries);
    cab_free(view->changes);
    cab_free(view->rests);
    cab_free(view->zeros);
    cab_json_close(&view->config);
    *view = (cab_gguf_view){0};
}
