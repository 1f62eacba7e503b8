/* smollm3.c - SmolLM3 (Hugging Face 2025): Llama, some of whose layers are not rotated: those that no_rope_layers gives as 0, or
 * without that list every no_rope_layer_interval-th. */
#include "models/architectures.h"
#include "models/decoder.h"

static const cab_setting settings[] = {{"attention_bias", NULL},
                                       {"layer_types", NULL},
                                       {"max_window_layers", NULL},
                                       {"mlp_bias", NULL},
                                       {"no_rope_layer_interval", NULL},
                                       {"no_rope_layers", NULL},
                                       {"pretraining_tp", NULL},
                                       {"rms_norm_eps", NULL},
                                       {"sliding_window", NULL},
                                       {"use_sliding_window", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_decoder, cab_settings_transformers, NULL};

static cab_status configure_rotated(const cab_json *json, cab_config *c)
{
    json_object *list = NULL;
    int64_t interval;
    CAB_TRY(cab_json_int_or(json, NULL, "no_rope_layer_interval", 1, CAB_LAYERS_MAX, 4, &interval));
    if (json_object_object_get_ex(json->root, "no_rope_layers", &list) && list != NULL) {
        CAB_TRY(cab_json_array(json, NULL, "no_rope_layers", &list));
        if (json_object_array_length(list) != (size_t)c->n_layer)
            return cab_fail(CAB_EFORMAT, "%s: \"no_rope_layers\" has %zu entries, num_hidden_layers is %d", json->name,
                            json_object_array_length(list), c->n_layer);
    }
    for (int l = 0; l < c->n_layer; l++) {
        const bool rotated = list != NULL ? json_object_get_int(json_object_array_get_idx(list, (size_t)l)) != 0
                                          : (l + 1) % interval != 0;
        c->layer_kinds[l] |= rotated ? 0 : CAB_LAYER_NO_ROPE;
    }
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    bool sliding;
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_positive_parse(json, NULL, "rms_norm_eps", 1e-6, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mlp_bias", false, &c->mlp_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "use_sliding_window", false, &sliding));
    if (sliding)
        CAB_TRY(cab_window_parse(json, 0, c));
    CAB_TRY(configure_rotated(json, c));
    return cab_rope_parse(json, 2000000, 1, c);
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    CAB_TRY(cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", &y->attention));
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    return cab_decoder_gated_mlp(b, c, c->mlp_bias, &y->mlp);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_smollm3 = {.name = "smollm3",
                                   .teacher = true,
                                   .settings = setting_tables,
                                   .unread = cab_decoder_unread,
                                   .configure = configure,
                                   .build = build};
