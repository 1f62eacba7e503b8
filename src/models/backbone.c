#include "models/backbone.h"

static const cab_size sizes[] = {CAB_SIZE("vocab_size", vocab_size, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("hidden_size", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("num_hidden_layers", n_layer, CAB_LAYERS_MAX, CAB_REQUIRED),
                                 CAB_SIZE("state_size", d_state, 1024, CAB_REQUIRED),
                                 CAB_SIZE("conv_kernel", d_conv, 16, 4),
                                 CAB_SIZE("max_position_embeddings", max_length, 1 << 24, 2048),
                                 {0}};

static const cab_number numbers[] = {CAB_FIELD("layer_norm_epsilon", norm_eps, 1e-5), {0}};
static const cab_switch switches[] = {CAB_FIELD("use_bias", in_bias, false),
                                      CAB_FIELD("use_conv_bias", conv_bias, true),
                                      CAB_FIELD("residual_in_fp32", residual_fp32, true),
                                      {0}};

/* Those of initialisation change nothing; ssm_cfg and what follows are of the checkpoints that transformers' were made from. */
const cab_setting cab_settings_backbone[] = {{"conv_kernel", NULL},
                                             {"expand", NULL},
                                             {"hidden_act", "\"silu\""},
                                             {"hidden_size", NULL},
                                             {"layer_norm_epsilon", NULL},
                                             {"max_position_embeddings", NULL},
                                             {"num_hidden_layers", NULL},
                                             {"rescale_prenorm_residual", NULL},
                                             {"residual_in_fp32", NULL},
                                             {"state_size", NULL},
                                             {"time_step_floor", NULL},
                                             {"time_step_max", NULL},
                                             {"time_step_min", NULL},
                                             {"time_step_rank", NULL},
                                             {"use_bias", NULL},
                                             {"use_conv_bias", NULL},
                                             {"vocab_size", NULL},
                                             {"ssm_cfg", NULL},
                                             {"rms_norm", "true"},
                                             {"d_model", NULL},
                                             {"n_layer", NULL},
                                             {"fused_add_norm", NULL},
                                             {"pad_vocab_size_multiple", NULL},
                                             {NULL, NULL}};

cab_status cab_backbone_parse(const cab_json *json, bool tied, cab_config *c)
{
    int64_t expand;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "expand", 1, 16, 2, &expand));
    CAB_TRY(cab_numbers_parse(json, numbers, c));
    CAB_TRY(cab_switches_parse(json, switches, c));
    CAB_TRY(cab_json_bool_or(json, NULL, "tie_word_embeddings", tied, &c->tied));
    c->d_inner = (int)expand * c->d_model;
    c->out_bias = c->in_bias;
    cab_tokens_parse(json, c);
    return CAB_OK;
}

void cab_backbone_describe(const cab_config *c, json_object *json)
{
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "expand", json_object_new_int(c->d_inner / c->d_model));
    cab_numbers_describe(numbers, c, json);
    cab_switches_describe(switches, c, json);
    json_object_object_add(json, "tie_word_embeddings", json_object_new_boolean(c->tied));
    json_object_object_add(json, "hidden_act", json_object_new_string("silu"));
}

cab_status cab_backbone_build(cab_builder *b, const cab_config *c, cab_network *n, cab_backbone_mixer *mixer)
{
    CAB_TRY(cab_builder_embedding(b, n, c, "backbone.embeddings.weight", "lm_head.weight"));
    for (int l = 0; l < c->n_layer; l++) {
        cab_block *y = &n->blocks[l];
        cab_builder_layer(b, "backbone.layers.%d.", l);
        y->x_apart = c->residual_fp32;
        CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "norm"));
        CAB_TRY(mixer(b, c, y));
    }
    cab_builder_no_layer(b);
    CAB_TRY(cab_builder_norm(b, &n->final_norm, c->d_model, c->norm_eps, false, "backbone.norm_f"));
    return cab_builder_head(b, n, c, false, "lm_head");
}
