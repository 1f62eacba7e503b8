/* mamba.c - Mamba (Gu & Dao 2023), Hugging Face layout.
 *
 *   x = embeddings[ids]
 *   per layer:  x = x + mixer(norm(x))        the mixer of nn/mamba1.h
 *   logits = lm_head(norm_f(x))
 *
 * Norms are RMS norms. There is no MLP, and nothing knows of positions: a text may be of any length. */
#include "models/architectures.h"
#include "models/backbone.h"

static const cab_setting settings[] = {{"d_inner", NULL},
                                       {"intermediate_size", NULL}, /* transformers computes it from expand */
                                       {"time_step_init_scheme", NULL},
                                       {"time_step_scale", NULL},
                                       {"use_associative_scan", NULL},
                                       {"use_mambapy", NULL},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_backbone, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t rank;
    CAB_TRY(cab_backbone_parse(json, true, c));
    CAB_TRY(cab_size_or_auto(json, "time_step_rank", 1 << 16, &rank));
    c->dt_rank = rank > 0 ? (int)rank : (c->d_model + 15) / 16;
    return CAB_OK;
}

static cab_status describe(const cab_config *c, json_object *json)
{
    cab_model_describe("mamba", "MambaForCausalLM", c, json);
    cab_backbone_describe(c, json);
    json_object_object_add(json, "intermediate_size", json_object_new_int(c->d_inner));
    json_object_object_add(json, "time_step_rank", json_object_new_int(c->dt_rank));
    return CAB_OK;
}

static cab_status build_inner(cab_builder *b, const cab_config *c, cab_mamba1 *m)
{
    const int64_t E = c->d_inner, N = c->d_state, R = c->dt_rank;
    m->dt_rank = c->dt_rank;
    m->d_state = c->d_state;
    CAB_TRY(cab_builder_shaped(b, &m->A_log, CAB_NO_DECAY, 2, (int64_t[]){E, N}, "mixer.A_log"));
    CAB_TRY(cab_builder_vector(b, &m->D, E, "mixer.D"));
    CAB_TRY(cab_builder_shaped(b, &m->conv_w, CAB_NO_DECAY, 3, (int64_t[]){E, 1, c->d_conv}, "mixer.conv1d.weight"));
    if (c->conv_bias)
        CAB_TRY(cab_builder_vector(b, &m->conv_b, E, "mixer.conv1d.bias"));
    CAB_TRY(cab_builder_matrix(b, &m->x_proj.w, R + 2 * N, E, "mixer.x_proj.weight"));
    CAB_TRY(cab_builder_matrix(b, &m->dt_proj.w, E, R, "mixer.dt_proj.weight"));
    return cab_builder_vector(b, &m->dt_bias, E, "mixer.dt_proj.bias");
}

static cab_status build_mixer(cab_builder *b, const cab_config *c, cab_block *y)
{
    cab_mamba1_mixer *m = &y->mamba1;
    m->d_inner = c->d_inner;
    CAB_TRY(cab_builder_dense(b, &m->in_proj, c->d_model, 2 * (int64_t)c->d_inner, c->in_bias, "mixer.in_proj"));
    CAB_TRY(build_inner(b, c, &m->inner));
    return cab_builder_dense(b, &m->out_proj, c->d_inner, c->d_model, c->out_bias, "mixer.out_proj");
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_backbone_build(b, c, n, build_mixer);
}

const cab_arch cab_arch_mamba = {
    .name = "mamba",
    .student = true,
    .settings = setting_tables,
    .configure = configure,
    .describe = describe,
    .build = build,
};
