/* mamba2.c - Mamba-2 (Dao & Gu 2024), Hugging Face layout.
 *
 *   x = embeddings[ids]
 *   per layer:  x = x + mixer(norm(x))        the mixer of nn/mamba2.h, with the gated norm
 *   logits = lm_head(norm_f(x))
 *
 * Norms are RMS norms. There is no MLP, and nothing knows of positions: a text may be of any length. */
#include "models/architectures.h"
#include "models/backbone.h"

static const cab_size sizes[] = {
    CAB_SIZE("num_heads", n_state_head, 1 << 16, 128), CAB_SIZE("n_groups", n_group, 1 << 16, 8), {0}};

static const cab_setting settings[] = {
    {"chunk_size", NULL}, {"head_dim", NULL},        {"n_groups", NULL}, {"norm_before_gate", "false"},
    {"num_heads", NULL},  {"time_step_limit", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_backbone, cab_settings_transformers, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t width;
    CAB_TRY(cab_backbone_parse(json, false, c));
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "head_dim", 1, 1 << 18, 64, &width));
    CAB_TRY(cab_time_step_check(json));
    c->gated_norm = true;
    return cab_mamba2_check(json, width, c);
}

static cab_status describe(const cab_config *c, json_object *json)
{
    cab_model_describe("mamba2", "Mamba2ForCausalLM", c, json);
    cab_backbone_describe(c, json);
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "head_dim", json_object_new_int(c->d_inner / c->n_state_head));
    return CAB_OK;
}

static cab_status build_mixer(cab_builder *b, const cab_config *c, cab_block *y)
{
    return cab_mamba2_build(b, c, "mixer", &y->mamba2);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    return cab_backbone_build(b, c, n, build_mixer);
}

const cab_arch cab_arch_mamba2 = {
    .name = "mamba2",
    .student = true,
    .settings = setting_tables,
    .configure = configure,
    .describe = describe,
    .build = build,
};
