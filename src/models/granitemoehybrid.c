/* granitemoehybrid.c - Granite 4 hybrids without experts (IBM 2025), Hugging Face layout: every layer has either attention or
 * Mamba-2, and Granite's four multipliers.
 *
 *   per layer:  x = x + mixer(input_layernorm(x))      x = x + shared_mlp(post_attention_layernorm(x))
 *
 * Norms are RMS norms. Gate and up of the MLP are one matrix. Attention turns with positions, or does not, in all layers alike. The
 * state-space mixer is that of nn/mamba2.h with the gated norm. */
#include "models/architectures.h"
#include "models/decoder.h"
#include "models/state_space.h"

#include <math.h>
#include <string.h>

static const cab_number numbers[] = {CAB_FIELD("rms_norm_eps", norm_eps, 1e-6),
                                     CAB_FIELD("attention_multiplier", attention_scale, 1),
                                     CAB_FIELD("embedding_multiplier", embedding_scale, 1),
                                     CAB_FIELD("residual_multiplier", branch_scale, 1),
                                     {0}};

static const cab_setting settings[] = {{"attention_bias", NULL},
                                       {"attention_multiplier", NULL},
                                       {"embedding_multiplier", NULL},
                                       {"init_method", NULL},
                                       {"layer_types", NULL},
                                       {"layers_block_type", NULL},
                                       {"logits_scaling", NULL},
                                       {"normalization_function", "\"rmsnorm\""},
                                       {"num_experts_per_tok", NULL},
                                       {"num_local_experts", "0"},
                                       {"output_router_logits", NULL},
                                       {"position_embedding_type", NULL},
                                       {"residual_multiplier", NULL},
                                       {"rms_norm_eps", NULL},
                                       {"router_aux_loss_coef", NULL},
                                       {"shared_intermediate_size", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_mamba2, cab_settings_decoder,
                                                    cab_settings_transformers, NULL};

static cab_status parse_positions(const cab_json *json, cab_config *c)
{
    const char *type = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, "position_embedding_type", "nope", &type));
    if (strcmp(type, "rope") == 0)
        return cab_rope_whole_parse(json, 10000, c);
    if (strcmp(type, "nope") == 0)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED, "%s: \"position_embedding_type\" is \"%.40s\"; supported are rope and nope",
                    json->name, type);
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t d_mlp, experts;
    CAB_TRY(cab_decoder_parse(json, "silu", c));
    CAB_TRY(cab_decoder_gated(json, c));
    CAB_TRY(cab_json_int_or(json, NULL, "num_local_experts", 0, 1 << 16, 8, &experts));
    if (experts > 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: num_local_experts is %d; only 0 is supported", json->name, (int)experts);
    CAB_TRY(cab_json_int_or(json, NULL, "shared_intermediate_size", 1, 1 << 18, 1024, &d_mlp));
    CAB_TRY(cab_numbers_parse(json, numbers, c));
    CAB_TRY(cab_json_bool_or(json, NULL, "attention_bias", false, &c->attention_bias));
    CAB_TRY(cab_positive_parse(json, NULL, "logits_scaling", 1, &c->head_scale));
    CAB_TRY(cab_mamba2_parse(json, 0, c));
    CAB_TRY(cab_mixers_parse(json, c));
    c->head_scale = 1 / c->head_scale;
    c->d_mlp = (int)d_mlp;
    c->out_bias = c->in_bias;
    c->gated_norm = true;
    return parse_positions(json, c);
}

static cab_status describe(const cab_config *c, json_object *json)
{
    cab_config copy = *c;
    copy.attention_scale = c->attention_scale > 0 ? c->attention_scale : 1 / sqrt(c->head_dim);
    cab_model_describe("granitemoehybrid", "GraniteMoeHybridForCausalLM", c, json);
    cab_decoder_describe(c, json);
    cab_mamba2_describe(c, json);
    cab_numbers_describe(numbers, &copy, json);
    if (c->head_dim * c->n_head == c->d_model)
        json_object_object_del(json, "head_dim"); /* which readers may not know */
    json_object_object_add(json, "logits_scaling", json_object_new_double(c->head_scale > 0 ? 1 / c->head_scale : 1));
    cab_mixers_describe(c, json);
    json_object_object_add(json, "shared_intermediate_size", json_object_new_int(c->d_mlp));
    json_object_object_add(json, "num_local_experts", json_object_new_int(0));
    json_object_object_add(json, "num_experts_per_tok", json_object_new_int(0));
    json_object_object_add(json, "attention_bias", json_object_new_boolean(c->attention_bias));
    json_object_object_add(json, "position_embedding_type", c->rope.dim > 0 ? json_object_new_string("rope") : NULL);
    return CAB_OK;
}

static cab_status build_block(cab_builder *b, const cab_config *c, int l, cab_block *y)
{
    y->branch_scale = (float)c->branch_scale;
    CAB_TRY(cab_builder_norm(b, &y->norm, c->d_model, c->norm_eps, false, "input_layernorm"));
    if (c->layer_kinds[l] & CAB_LAYER_STATE_SPACE) {
        CAB_TRY(cab_mamba2_build(b, c, "mamba", &y->mamba2));
    } else {
        CAB_TRY(
            cab_decoder_attention(b, c, l, c->attention_bias, c->attention_bias, "self_attn.o_proj", &y->attention));
        y->attention.shape.scale = c->attention_scale > 0 ? (float)c->attention_scale : y->attention.shape.scale;
    }
    CAB_TRY(cab_builder_norm(b, &y->mlp_norm, c->d_model, c->norm_eps, false, "post_attention_layernorm"));
    y->mlp.act = c->activation;
    CAB_TRY(cab_builder_dense(b, &y->mlp.gate_up, c->d_model, 2 * (int64_t)c->d_mlp, false, "shared_mlp.input_linear"));
    return cab_builder_dense(b, &y->mlp.down, c->d_mlp, c->d_model, false, "shared_mlp.output_linear");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    n->embedding_scale = (float)c->embedding_scale;
    n->head_scale = (float)c->head_scale;
    return cab_decoder_build(b, c, n, build_block, "model.norm", false, false);
}

const cab_arch cab_arch_granitemoehybrid = {
    .name = "granitemoehybrid",
    .student = true,
    .settings = setting_tables,
    .unread = cab_decoder_unread,
    .configure = configure,
    .describe = describe,
    .build = build,
};
