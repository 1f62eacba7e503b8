/* export_keys.c - from config.json to the metadata of a GGUF file. What llama.cpp's architecture cannot say is refused by name. */
#include "models/export_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

static const char *key_of(const cab_exporter *x, const char *suffix, char out[128])
{
    snprintf(out, 128, "%s.%s", x->family->name, suffix);
    return out;
}

static cab_status put_int(cab_exporter *x, const char *suffix, int64_t value)
{
    char key[128];
    return cab_gguf_writer_u32(x->file, key_of(x, suffix, key), (uint32_t)value);
}

static cab_status put_number(cab_exporter *x, const char *suffix, double value)
{
    char key[128];
    return cab_gguf_writer_f32(x->file, key_of(x, suffix, key), value);
}

static cab_status refuse(const cab_exporter *x, const char *what)
{
    return cab_fail(CAB_EUNSUPPORTED, "%s: %s: architecture \"%s\" of llama.cpp cannot say that", x->json->name, what,
                    x->family->name);
}

/* ---- rotary embedding ----------------------------------------------------------------------------------------------- */

/* Llama 3's division of the frequencies, as llama.cpp has it: a table. */
static void make_factors(cab_exporter *x)
{
    const cab_rope *r = &x->config.rope;
    const double turn = 2 * 3.14159265358979323846;
    for (int i = 0; i < r->dim / 2; i++) {
        const double wavelength = turn * pow(r->theta, 2.0 * i / r->dim), turns = r->original / wavelength;
        const double smooth = (turns - r->low) / (r->high - r->low);
        x->config.rope_factors[0][i] = (float)(turns > r->high  ? 1
                                               : turns < r->low ? r->factor
                                                                : 1 / ((1 - smooth) / r->factor + smooth));
    }
    x->factors[0] = x->config.rope_factors[0];
}

static cab_status put_yarn(cab_exporter *x)
{
    char key[128];
    const cab_rope *r = &x->config.rope;
    const double usual = r->factor > 1 ? 0.1 * log(r->factor) + 1 : 1;
    if (fabs(r->scale - usual) > 1e-6 * usual)
        return refuse(x, "rope_type yarn with an attention_factor of its own");
    CAB_TRY(cab_gguf_writer_text(x->file, key_of(x, "rope.scaling.type", key), "yarn"));
    CAB_TRY(put_number(x, "rope.scaling.factor", r->factor));
    CAB_TRY(put_int(x, "rope.scaling.original_context_length", r->original));
    CAB_TRY(put_number(x, "rope.scaling.yarn_beta_fast", r->high));
    return put_number(x, "rope.scaling.yarn_beta_slow", r->low);
}

/* Factors of longrope: one table for all lengths, or Phi 3's two. */
static cab_status put_tables(cab_exporter *x, bool tables)
{
    cab_config *c = &x->config;
    const bool one = memcmp(c->rope_factors[0], c->rope_factors[1], (size_t)(c->rope.dim / 2) * sizeof(float)) == 0;
    if (one && tables && fabs(c->rope.scale - 1) < 1e-6) {
        x->factors[0] = c->rope_factors[0];
        return CAB_OK;
    }
    if (strcmp(x->family->name, "phi3") != 0)
        return refuse(x, "rope_type longrope");
    x->factors[1] = c->rope_factors[0];
    x->factors[2] = c->rope_factors[1];
    CAB_TRY(put_int(x, "rope.scaling.original_context_length", c->rope.original));
    return put_number(x, "rope.scaling.attn_factor", c->rope.scale);
}

/* tables: whether the architecture reads "rope_freqs". */
static cab_status put_rope(cab_exporter *x, bool tables)
{
    char key[128];
    const cab_rope *r = &x->config.rope;
    CAB_TRY(put_number(x, "rope.freq_base", r->theta));
    CAB_TRY(put_int(x, "rope.dimension_count", r->dim));
    switch (r->kind) {
    case CAB_ROPE_DEFAULT:
        return CAB_OK;
    case CAB_ROPE_LINEAR:
        CAB_TRY(cab_gguf_writer_text(x->file, key_of(x, "rope.scaling.type", key), "linear"));
        return put_number(x, "rope.scaling.factor", r->factor);
    case CAB_ROPE_LLAMA3:
        if (!tables)
            return refuse(x, "rope_type llama3");
        make_factors(x);
        return CAB_OK;
    case CAB_ROPE_YARN:
        return put_yarn(x);
    default:
        return put_tables(x, tables);
    }
}

/* ---- decoders of the registry --------------------------------------------------------------------------------------- */

static cab_status put_sizes(cab_exporter *x)
{
    const cab_config *c = &x->config;
    CAB_TRY(put_int(x, "block_count", c->n_layer));
    CAB_TRY(put_int(x, "context_length", c->max_length));
    CAB_TRY(put_int(x, "embedding_length", c->d_model));
    CAB_TRY(put_int(x, "feed_forward_length", c->d_mlp));
    return put_int(x, "vocab_size", c->vocab_size);
}

static cab_status put_attention(cab_exporter *x)
{
    const cab_config *c = &x->config;
    CAB_TRY(put_int(x, "attention.head_count", c->n_head));
    CAB_TRY(put_int(x, "attention.head_count_kv", c->n_kv_head));
    CAB_TRY(put_int(x, "attention.key_length", c->head_dim));
    return put_int(x, "attention.value_length", c->head_dim);
}

/* kind: which layers must be so, all others not; layers from 1, those that `every` divides are the exceptions. */
static bool alternates(const cab_config *c, int kind, int every, bool exceptions)
{
    for (int l = 0; l < c->n_layer; l++)
        if (((c->layer_kinds[l] & kind) != 0) != (((l + 1) % every == 0) == exceptions))
            return false;
    return true;
}

static cab_status check_windows(const cab_exporter *x)
{
    const cab_config *c = &x->config;
    for (int l = 0; l < c->n_layer; l++)
        if ((c->layer_kinds[l] & CAB_LAYER_SLIDING) != 0 && c->window > 0 && c->window < c->max_length)
            return refuse(x, "layers that see sliding_window tokens back");
    return CAB_OK;
}

static cab_status describe_decoder(cab_exporter *x)
{
    CAB_TRY(check_windows(x));
    if (x->config.attention_cap > 0 || x->config.logit_cap > 0)
        return refuse(x, "soft caps of logits");
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_attention(x));
    CAB_TRY(put_number(x, "attention.layer_norm_rms_epsilon", x->config.norm_eps));
    return put_rope(x, strcmp(x->family->name, "llama") == 0);
}

static cab_status describe_starcoder2(cab_exporter *x)
{
    CAB_TRY(check_windows(x));
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_attention(x));
    CAB_TRY(put_number(x, "attention.layer_norm_epsilon", x->config.norm_eps));
    return put_rope(x, false);
}

static cab_status describe_smollm3(cab_exporter *x)
{
    if (!alternates(&x->config, CAB_LAYER_NO_ROPE, 4, true))
        return refuse(x, "other layers without rotary embedding than every fourth");
    return describe_decoder(x);
}

static cab_status describe_granite(cab_exporter *x)
{
    const cab_config *c = &x->config;
    CAB_TRY(describe_decoder(x));
    CAB_TRY(put_number(x, "attention.scale", c->attention_scale));
    CAB_TRY(put_number(x, "embedding_scale", c->embedding_scale));
    CAB_TRY(put_number(x, "residual_scale", c->branch_scale));
    return put_number(x, "logit_scale", 1 / c->head_scale);
}

/* Which layers slide, where it is not what goes without saying. */
static cab_status put_sliding(cab_exporter *x, int every)
{
    char key[128];
    const cab_config *c = &x->config;
    CAB_TRY(put_int(x, "attention.sliding_window", c->window));
    if (c->local_rope.dim > 0)
        CAB_TRY(put_number(x, "rope.freq_base_swa", c->local_rope.theta));
    if (alternates(c, CAB_LAYER_SLIDING, every, false))
        return CAB_OK;
    json_object *pattern = json_object_new_array();
    for (int l = 0; l < c->n_layer; l++)
        json_object_array_add(pattern, json_object_new_boolean((c->layer_kinds[l] & CAB_LAYER_SLIDING) != 0));
    cab_status status = cab_gguf_writer_json(x->file, key_of(x, "attention.sliding_window_pattern", key), pattern);
    json_object_put(pattern);
    return status;
}

/* Gemma 2 and 3. */
static cab_status describe_gemma(cab_exporter *x)
{
    const cab_config *c = &x->config;
    const bool second = strcmp(x->family->name, "gemma2") == 0;
    const double width = c->n_layer == x->family->wide_layers ? (double)c->d_model / c->n_head : c->head_dim;
    if (c->activation != CAB_GELU_TANH)
        return refuse(x, "another hidden_activation than gelu_pytorch_tanh");
    if (fabs(c->attention_scale * sqrt(width) - 1) > 1e-6)
        return refuse(x, "this query_pre_attn_scalar");
    if (c->local_rope.kind != CAB_ROPE_DEFAULT)
        return refuse(x, "a rope_type of sliding layers");
    if (second != (c->attention_cap > 0) || (second && !(c->logit_cap > 0)))
        return refuse(x, "this attn_logit_softcapping or final_logit_softcapping");
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_attention(x));
    CAB_TRY(put_number(x, "attention.layer_norm_rms_epsilon", c->norm_eps));
    CAB_TRY(put_sliding(x, second ? 2 : 6));
    if (c->attention_cap > 0)
        CAB_TRY(put_number(x, "attn_logit_softcapping", c->attention_cap));
    if (c->logit_cap > 0)
        CAB_TRY(put_number(x, "final_logit_softcapping", c->logit_cap));
    return put_rope(x, false);
}

/* ---- state-space models --------------------------------------------------------------------------------------------- */

/* What no architecture of llama.cpp has in a mixer. */
static cab_status check_mixer(const cab_exporter *x)
{
    const cab_config *c = &x->config;
    if (c->in_bias || c->out_bias)
        return refuse(x, "a mixer whose projections have biases");
    return c->gated_norm && c->norm_first ? refuse(x, "mamba_norm_before_gate") : CAB_OK;
}

/* rank: the heads of Mamba-2, R of Mamba. */
static cab_status put_mixer(cab_exporter *x, int rank)
{
    const cab_config *c = &x->config;
    CAB_TRY(check_mixer(x));
    CAB_TRY(put_int(x, "ssm.conv_kernel", c->d_conv));
    CAB_TRY(put_int(x, "ssm.inner_size", c->d_inner));
    CAB_TRY(put_int(x, "ssm.state_size", c->d_state));
    CAB_TRY(put_int(x, "ssm.time_step_rank", rank));
    return c->n_state_head > 0 ? put_int(x, "ssm.group_count", c->n_group) : CAB_OK;
}

/* llama.cpp asserts that E is 2 D in these families. */
static cab_status check_width(const cab_exporter *x)
{
    const cab_config *c = &x->config;
    return c->d_inner == 2 * c->d_model ? CAB_OK : refuse(x, "an inner width that is not twice hidden_size");
}

/* Its multipliers become part of the weights. */
static cab_status describe_falcon_h1(cab_exporter *x)
{
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_attention(x));
    CAB_TRY(put_number(x, "attention.layer_norm_rms_epsilon", x->config.norm_eps));
    CAB_TRY(put_mixer(x, x->config.n_state_head));
    return put_rope(x, false);
}

/* The four multipliers, where they are not what goes without saying. */
static cab_status put_multipliers(cab_exporter *x)
{
    const cab_config *c = &x->config;
    const struct {
        const char *suffix;
        double value, usual;
    } rows[] = {{"attention.scale", c->attention_scale, 1 / sqrt(c->head_dim)},
                {"embedding_scale", c->embedding_scale, 1},
                {"residual_scale", c->branch_scale, 1},
                {"logit_scale", c->head_scale > 0 ? 1 / c->head_scale : 0, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value > 0 && fabs(rows[i].value / rows[i].usual - 1) > 1e-6)
            CAB_TRY(put_number(x, rows[i].suffix, rows[i].value));
    return CAB_OK;
}

static cab_status describe_granite_hybrid(cab_exporter *x)
{
    char key[128];
    int32_t heads[CAB_LAYERS_MAX];
    const cab_config *c = &x->config;
    CAB_TRY(check_width(x));
    if (c->head_dim * c->n_head != c->d_model)
        return refuse(x, "a head_dim that is not hidden_size / heads");
    for (int l = 0; l < c->n_layer; l++) /* 0 marks a mixer */
        heads[l] = c->layer_kinds[l] & CAB_LAYER_STATE_SPACE ? 0 : c->n_kv_head;
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_int(x, "attention.head_count", c->n_head));
    CAB_TRY(cab_gguf_writer_i32s(x->file, key_of(x, "attention.head_count_kv", key), heads, (size_t)c->n_layer));
    CAB_TRY(put_number(x, "attention.layer_norm_rms_epsilon", c->norm_eps));
    CAB_TRY(put_multipliers(x));
    CAB_TRY(put_mixer(x, c->n_state_head));
    CAB_TRY(cab_gguf_writer_bool(x->file, key_of(x, "rope.scaling.finetuned", key), c->rope.dim > 0));
    return c->rope.dim > 0 ? put_rope(x, true) : CAB_OK;
}

/* No attention, no MLP, any length. */
static cab_status describe_mamba(cab_exporter *x)
{
    x->config.max_length = 1 << 20;
    x->config.d_mlp = 0;
    CAB_TRY(check_width(x));
    CAB_TRY(put_sizes(x));
    CAB_TRY(put_int(x, "attention.head_count", 0));
    CAB_TRY(put_number(x, "attention.layer_norm_rms_epsilon", x->config.norm_eps));
    return put_mixer(x, x->config.n_state_head > 0 ? x->config.n_state_head : x->config.dt_rank);
}

/* ---- which ---------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *model_type;
    cab_status (*describe)(cab_exporter *x);
} exporters[] = {
    {"llama", describe_decoder},
    {"mistral", describe_decoder},
    {"qwen2", describe_decoder},
    {"qwen3", describe_decoder},
    {"phi3", describe_decoder},
    {"olmo2", describe_decoder},
    {"smollm3", describe_smollm3},
    {"starcoder2", describe_starcoder2},
    {"granite", describe_granite},
    {"gemma2", describe_gemma},
    {"gemma3_text", describe_gemma},
    {"falcon_h1", describe_falcon_h1},
    {"granitemoehybrid", describe_granite_hybrid},
    {"mamba2", describe_mamba},
    {"mamba", describe_mamba},
};

enum { EXPORTERS = sizeof exporters / sizeof *exporters };

static cab_status find_exporter(const cab_json *json, const char *type, size_t *out)
{
    char known[256] = "";
    size_t used = 0;
    for (*out = 0; *out < EXPORTERS; ++*out) {
        if (strcmp(exporters[*out].model_type, type) == 0)
            return CAB_OK;
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "",
                                 exporters[*out].model_type);
    }
    return cab_fail(CAB_EUNSUPPORTED, "%s: model_type \"%.64s\" cannot be written as GGUF; those that can: %s",
                    json->name, type, known);
}

cab_status cab_export_keys(cab_exporter *x)
{
    const char *type = NULL;
    size_t which = 0;
    CAB_TRY(cab_json_string(x->json, NULL, "model_type", &type));
    CAB_TRY(find_exporter(x->json, type, &which));
    for (x->family = cab_gguf_families; strcmp(x->family->model_type, type) != 0;)
        x->family++;
    CAB_TRY(cab_architecture_find(type, x->json->name, &x->arch));
    CAB_TRY(cab_architecture_configure(x->arch, x->json, &x->config));
    if (x->arch->settings != NULL)
        cab_settings_warn(x->json, x->arch->settings);
    CAB_TRY(cab_gguf_writer_text(x->file, "general.architecture", x->family->name));
    return exporters[which].describe(x);
}
