/* gguf_mixer.c - keys of state-space mixers. llama.cpp has the same few for all architectures; transformers has others for each. */
#include "io/gguf_mixer.h"

#include <stdio.h>
#include <string.h>

static const char *const known[] = {"ssm.conv_kernel",    "ssm.inner_size",    "ssm.state_size",
                                    "ssm.time_step_rank", "ssm.group_count",   "ssm.dt_b_c_rms",
                                    "expert_count",       "expert_used_count", "expert_shared_feed_forward_length"};

enum { ANY_LENGTH = 1 << 20 }; /* what llama.cpp's converter writes as the context of a model that takes any */

bool cab_gguf_mixer_knows(const char *suffix)
{
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i], suffix) == 0)
            return true;
    return false;
}

static const char *key_of(const cab_gguf_family *f, const char *suffix, char out[128])
{
    snprintf(out, 128, "%s.%s", f->name, suffix);
    return out;
}

static cab_status need(const cab_json *metadata, const cab_gguf_family *f, const char *suffix, int64_t *out)
{
    char key[128];
    return cab_json_int(metadata, NULL, key_of(f, suffix, key), 1, INT32_MAX, out);
}

/* Whether a tensor of some layer has this name behind "blk.<layer>.". */
static bool any_layer_has(const cab_gguf *gguf, const char *name)
{
    for (size_t i = 0; i < cab_gguf_count(gguf); i++) {
        const char *full = cab_gguf_at(gguf, i)->name,
                   *dot = strncmp(full, "blk.", 4) == 0 ? strchr(full + 4, '.') : NULL;
        if (dot != NULL && strcmp(dot + 1, name) == 0)
            return true;
    }
    return false;
}

static void add_int(json_object *config, const char *key, int64_t value)
{
    if (key != NULL)
        json_object_object_add(config, key, json_object_new_int64(value));
}

static void add_bool(json_object *config, const char *key, bool value)
{
    if (key != NULL)
        json_object_object_add(config, key, json_object_new_boolean(value));
}

static cab_status add_sizes(const cab_json *metadata, const cab_gguf_family *f, json_object *config)
{
    const cab_gguf_mixer *m = f->mixer;
    int64_t width, conv, inner, state, rank, groups = 1;
    CAB_TRY(need(metadata, f, "embedding_length", &width));
    CAB_TRY(need(metadata, f, "ssm.conv_kernel", &conv));
    CAB_TRY(need(metadata, f, "ssm.inner_size", &inner));
    CAB_TRY(need(metadata, f, "ssm.state_size", &state));
    CAB_TRY(need(metadata, f, "ssm.time_step_rank", &rank));
    if (m->groups != NULL)
        CAB_TRY(need(metadata, f, "ssm.group_count", &groups));
    if ((m->expand != NULL && inner % width != 0) || (m->head != NULL && inner % rank != 0))
        return cab_fail(CAB_ESHAPE, "%s: \"%s.ssm.inner_size\" is %lld, expected a multiple of %lld", metadata->name,
                        f->name, (long long)inner, (long long)(m->expand != NULL && inner % width != 0 ? width : rank));
    add_int(config, m->conv, conv);
    add_int(config, m->state, state);
    add_int(config, m->rank, rank);
    add_int(config, m->groups, groups);
    add_int(config, m->inner, inner);
    add_int(config, m->expand, inner / width);
    add_int(config, m->head, inner / rank);
    return CAB_OK;
}

/* Norms of B, C and dt, and experts, are not computed with. */
static cab_status check_variants(const cab_json *metadata, const cab_gguf_family *f)
{
    char key[128];
    int64_t experts = 0;
    bool norms = false;
    CAB_TRY(cab_json_bool_or(metadata, NULL, key_of(f, "ssm.dt_b_c_rms", key), false, &norms));
    if (norms)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is true; only false is supported", metadata->name, key);
    CAB_TRY(cab_json_int_or(metadata, NULL, key_of(f, "expert_count", key), 0, INT32_MAX, 0, &experts));
    if (experts > 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is %lld; only 0 is supported", metadata->name, key,
                        (long long)experts);
    return CAB_OK;
}

cab_status cab_gguf_kv_heads(const cab_json *metadata, const cab_gguf_family *f, int64_t fallback, int64_t *out)
{
    char key[128];
    json_object *list = NULL;
    key_of(f, "attention.head_count_kv", key);
    if (!json_object_object_get_ex(metadata->root, key, &list) || !json_object_is_type(list, json_type_array))
        return cab_json_int_or(metadata, NULL, key, 0, INT32_MAX, fallback, out);
    *out = 0;
    for (size_t l = 0; l < json_object_array_length(list); l++) {
        json_object *item = json_object_array_get_idx(list, l);
        const int64_t heads = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;
        if (heads < 0 || heads > INT32_MAX || (heads > 0 && *out > 0 && heads != *out))
            return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\"[%zu] is %.40s; supported are 0 and one other number",
                            metadata->name, key, l, json_object_to_json_string(item));
        *out = heads > 0 ? heads : *out;
    }
    return CAB_OK;
}

/* granitehybrid: a layer without heads of keys and values is a mixer; whether attention turns with positions; the MLP's width. */
static cab_status add_layers(const cab_gguf *gguf, const cab_gguf_family *f, json_object *config)
{
    const cab_json *metadata = cab_gguf_metadata(gguf);
    char key[128];
    json_object *heads = NULL;
    int64_t layers, width;
    bool turns = true;
    CAB_TRY(need(metadata, f, "block_count", &layers));
    CAB_TRY(need(metadata, f, "feed_forward_length", &width));
    CAB_TRY(cab_json_bool_or(metadata, NULL, key_of(f, "rope.scaling.finetuned", key), true, &turns));
    json_object_object_add(config, "position_embedding_type", json_object_new_string(turns ? "rope" : "nope"));
    add_int(config, "shared_intermediate_size", width);
    json_object_object_del(config, "mlp_bias"); /* its MLP has none */
    key_of(f, "attention.head_count_kv", key);
    json_object_object_get_ex(metadata->root, key, &heads);
    const bool list = json_object_is_type(heads, json_type_array);
    if (list && json_object_array_length(heads) != (size_t)layers)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" has %zu entries, \"%s.block_count\" is %lld", metadata->name, key,
                        json_object_array_length(heads), f->name, (long long)layers);
    json_object *types = json_object_new_array();
    for (size_t l = 0; list && l < (size_t)layers; l++)
        json_object_array_add(
            types, json_object_new_string(json_object_get_int64(json_object_array_get_idx(heads, l)) > 0 ? "attention"
                                                                                                         : "mamba"));
    json_object_object_add(config, "layer_types", list ? types : NULL);
    if (!list)
        json_object_put(types);
    return CAB_OK;
}

cab_status cab_gguf_mixer_config(const cab_gguf *gguf, const cab_gguf_family *f, json_object *config)
{
    static const char *const of_attention[] = {"intermediate_size", "num_attention_heads", "num_key_value_heads",
                                               "attention_bias", "mlp_bias"};
    const cab_json *metadata = cab_gguf_metadata(gguf);
    const cab_gguf_mixer *m = f->mixer;
    json_object *value = NULL;
    int64_t kv_heads;
    CAB_TRY(check_variants(metadata, f));
    CAB_TRY(add_sizes(metadata, f, config));
    add_bool(config, m->conv_bias, any_layer_has(gguf, "ssm_conv1d.bias"));
    add_bool(config, m->norm, any_layer_has(gguf, "ssm_norm.weight"));
    if (m->eps != NULL && json_object_object_get_ex(config, "rms_norm_eps", &value)) {
        json_object_object_add(config, m->eps, json_object_get(value));
        json_object_object_del(config, "rms_norm_eps");
    }
    if (!m->attends) {
        for (size_t i = 0; i < sizeof of_attention / sizeof *of_attention; i++)
            json_object_object_del(config, of_attention[i]);
        if (json_object_object_get_ex(config, "max_position_embeddings", &value) &&
            json_object_get_int64(value) >= ANY_LENGTH)
            json_object_object_del(config, "max_position_embeddings");
        return CAB_OK;
    }
    CAB_TRY(cab_gguf_kv_heads(metadata, f, 0, &kv_heads));
    if (kv_heads > 0)
        add_int(config, "num_key_value_heads", kv_heads);
    else
        json_object_object_del(config, "num_key_value_heads");
    add_bool(config, "attention_bias", any_layer_has(gguf, "attn_q.bias"));
    return m->expand != NULL ? add_layers(gguf, f, config) : CAB_OK;
}
