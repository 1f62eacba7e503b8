/* gguf_names.c - the tables. */
#include "io/gguf_names.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

const cab_gguf_name cab_gguf_common_names[] = {
    {"token_embd", "model.embed_tokens", CAB_GGUF_SAME},
    {"output_norm", "model.norm", CAB_GGUF_SAME},
    {"output", "lm_head", CAB_GGUF_SAME},
    {"blk.%d.attn_norm", "model.layers.%d.input_layernorm", CAB_GGUF_SAME},
    {"blk.%d.attn_q", "model.layers.%d.self_attn.q_proj", CAB_GGUF_SAME},
    {"blk.%d.attn_k", "model.layers.%d.self_attn.k_proj", CAB_GGUF_SAME},
    {"blk.%d.attn_v", "model.layers.%d.self_attn.v_proj", CAB_GGUF_SAME},
    {"blk.%d.attn_output", "model.layers.%d.self_attn.o_proj", CAB_GGUF_SAME},
    {"blk.%d.attn_q_norm", "model.layers.%d.self_attn.q_norm", CAB_GGUF_SAME},
    {"blk.%d.attn_k_norm", "model.layers.%d.self_attn.k_norm", CAB_GGUF_SAME},
    {"blk.%d.ffn_norm", "model.layers.%d.post_attention_layernorm", CAB_GGUF_SAME},
    {"blk.%d.ffn_gate", "model.layers.%d.mlp.gate_proj", CAB_GGUF_SAME},
    {"blk.%d.ffn_up", "model.layers.%d.mlp.up_proj", CAB_GGUF_SAME},
    {"blk.%d.ffn_down", "model.layers.%d.mlp.down_proj", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name gemma_names[] = {
    {"blk.%d.ffn_norm", "model.layers.%d.pre_feedforward_layernorm", CAB_GGUF_SAME},
    {"blk.%d.post_attention_norm", "model.layers.%d.post_attention_layernorm", CAB_GGUF_SAME},
    {"blk.%d.post_ffw_norm", "model.layers.%d.post_feedforward_layernorm", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name olmo2_names[] = {
    {"blk.%d.post_attention_norm", "model.layers.%d.post_attention_layernorm", CAB_GGUF_SAME},
    {"blk.%d.post_ffw_norm", "model.layers.%d.post_feedforward_layernorm", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name phi3_names[] = {
    {"blk.%d.attn_qkv", "model.layers.%d.self_attn.qkv_proj", CAB_GGUF_SAME},
    {"blk.%d.ffn_up", "model.layers.%d.mlp.gate_up_proj", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name starcoder2_names[] = {
    {"blk.%d.ffn_up", "model.layers.%d.mlp.c_fc", CAB_GGUF_SAME},
    {"blk.%d.ffn_down", "model.layers.%d.mlp.c_proj", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name no_names[] = {{NULL, NULL, CAB_GGUF_SAME}};

/* A Mamba-2 mixer. */
#define MAMBA2_NAMES(mixer)                                                                                            \
    {"blk.%d.ssm_in", mixer "in_proj", CAB_GGUF_SAME}, {"blk.%d.ssm_conv1d", mixer "conv1d", CAB_GGUF_FILTER},         \
        {"blk.%d.ssm_dt.bias", mixer "dt_bias", CAB_GGUF_WHOLE}, {"blk.%d.ssm_a", mixer "A_log", CAB_GGUF_DECAY_HEAD}, \
        {"blk.%d.ssm_d", mixer "D", CAB_GGUF_COLUMN}, {"blk.%d.ssm_norm", mixer "norm", CAB_GGUF_GROUPS},              \
    {                                                                                                                  \
        "blk.%d.ssm_out", mixer "out_proj", CAB_GGUF_SAME                                                              \
    }

static const cab_gguf_name falcon_h1_names[] = {
    {"output_norm", "model.final_layernorm", CAB_GGUF_SAME},
    {"blk.%d.ffn_norm", "model.layers.%d.pre_ff_layernorm.weight", CAB_GGUF_WHOLE}, /* its loader asks for that name */
    {"blk.%d.ffn_gate", "model.layers.%d.feed_forward.gate_proj", CAB_GGUF_SAME},
    {"blk.%d.ffn_up", "model.layers.%d.feed_forward.up_proj", CAB_GGUF_SAME},
    {"blk.%d.ffn_down", "model.layers.%d.feed_forward.down_proj", CAB_GGUF_SAME},
    MAMBA2_NAMES("model.layers.%d.mamba."),
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name granite_hybrid_names[] = {
    {"blk.%d.ffn_gate", "model.layers.%d.shared_mlp.input_linear", CAB_GGUF_FIRST_HALF},
    {"blk.%d.ffn_up", "model.layers.%d.shared_mlp.input_linear", CAB_GGUF_SECOND_HALF},
    {"blk.%d.ffn_down", "model.layers.%d.shared_mlp.output_linear", CAB_GGUF_SAME},
    MAMBA2_NAMES("model.layers.%d.mamba."),
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name mamba2_names[] = {
    {"token_embd", "backbone.embeddings", CAB_GGUF_SAME},
    {"output_norm", "backbone.norm_f", CAB_GGUF_SAME},
    {"blk.%d.attn_norm", "backbone.layers.%d.norm", CAB_GGUF_SAME},
    MAMBA2_NAMES("backbone.layers.%d.mixer."),
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_name mamba_names[] = {
    {"token_embd", "backbone.embeddings", CAB_GGUF_SAME},
    {"output_norm", "backbone.norm_f", CAB_GGUF_SAME},
    {"blk.%d.attn_norm", "backbone.layers.%d.norm", CAB_GGUF_SAME},
    {"blk.%d.ssm_in", "backbone.layers.%d.mixer.in_proj", CAB_GGUF_SAME},
    {"blk.%d.ssm_conv1d", "backbone.layers.%d.mixer.conv1d", CAB_GGUF_FILTER},
    {"blk.%d.ssm_x", "backbone.layers.%d.mixer.x_proj", CAB_GGUF_SAME},
    {"blk.%d.ssm_dt", "backbone.layers.%d.mixer.dt_proj", CAB_GGUF_SAME},
    {"blk.%d.ssm_a", "backbone.layers.%d.mixer.A_log", CAB_GGUF_DECAY},
    {"blk.%d.ssm_d", "backbone.layers.%d.mixer.D", CAB_GGUF_WHOLE},
    {"blk.%d.ssm_out", "backbone.layers.%d.mixer.out_proj", CAB_GGUF_SAME},
    {NULL, NULL, CAB_GGUF_SAME},
};

static const cab_gguf_mixer falcon_h1_mixer = {.conv = "mamba_d_conv",
                                               .state = "mamba_d_state",
                                               .rank = "mamba_n_heads",
                                               .groups = "mamba_n_groups",
                                               .inner = "mamba_d_ssm",
                                               .conv_bias = "mamba_conv_bias",
                                               .norm = "mamba_rms_norm",
                                               .attends = true};
static const cab_gguf_mixer granite_hybrid_mixer = {.conv = "mamba_d_conv",
                                                    .state = "mamba_d_state",
                                                    .rank = "mamba_n_heads",
                                                    .groups = "mamba_n_groups",
                                                    .expand = "mamba_expand",
                                                    .conv_bias = "mamba_conv_bias",
                                                    .attends = true};
static const cab_gguf_mixer mamba2_mixer = {.conv = "conv_kernel",
                                            .state = "state_size",
                                            .rank = "num_heads",
                                            .groups = "n_groups",
                                            .expand = "expand",
                                            .head = "head_dim",
                                            .conv_bias = "use_conv_bias",
                                            .eps = "layer_norm_epsilon"};
static const cab_gguf_mixer mamba_mixer = {.conv = "conv_kernel",
                                           .state = "state_size",
                                           .rank = "time_step_rank",
                                           .expand = "expand",
                                           .conv_bias = "use_conv_bias",
                                           .eps = "layer_norm_epsilon"};

const cab_gguf_family cab_gguf_families[] = {
    {"llama", "llama", no_names, true, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"qwen2", "qwen2", no_names, false, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"qwen3", "qwen3", no_names, false, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"gemma2", "gemma2", gemma_names, false, true, 46, "{\"hidden_activation\": \"gelu_pytorch_tanh\"}", NULL},
    {"gemma3", "gemma3_text", gemma_names, false, true, 62,
     "{\"hidden_activation\": \"gelu_pytorch_tanh\", \"rope_local_base_freq\": 10000.0, \"sliding_window_pattern\": "
     "6}",
     NULL},
    {"granite", "granite", no_names, true, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"olmo2", "olmo2", olmo2_names, false, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"phi3", "phi3", phi3_names, false, false, 0, "{\"hidden_act\": \"silu\"}", NULL},
    {"smollm3", "smollm3", no_names, true, false, 0, "{\"hidden_act\": \"silu\", \"no_rope_layer_interval\": 4}", NULL},
    {"starcoder2", "starcoder2", starcoder2_names, false, false, 0,
     "{\"hidden_act\": \"gelu_pytorch_tanh\", \"use_bias\": true}", NULL},
    {"llama", "mistral", no_names, true, false, 0, NULL, NULL},
    {"falcon-h1", "falcon_h1", falcon_h1_names, false, false, 0,
     "{\"hidden_act\": \"silu\", \"mamba_norm_before_gate\": false}", &falcon_h1_mixer},
    {"granitehybrid", "granitemoehybrid", granite_hybrid_names, true, false, 0,
     "{\"hidden_act\": \"silu\", \"num_local_experts\": 0}", &granite_hybrid_mixer},
    {"mamba2", "mamba2", mamba2_names, false, false, 0, "{\"hidden_act\": \"silu\"}", &mamba2_mixer},
    {"mamba", "mamba", mamba_names, false, false, 0, "{\"hidden_act\": \"silu\"}", &mamba_mixer},
    {NULL, NULL, NULL, false, false, 0, NULL, NULL},
};

static bool is_whole(cab_gguf_form form)
{
    return form >= CAB_GGUF_WHOLE;
}

/* Whether `name` is `pattern` and an ending; the layer, where the pattern has one, in *layer. */
static bool match(const char *name, const char *pattern, int *layer, const char **ending)
{
    const char *hole = strstr(pattern, "%d");
    const size_t head = hole == NULL ? strlen(pattern) : (size_t)(hole - pattern);
    if (strncmp(name, pattern, head) != 0)
        return false;
    name += head;
    if (hole != NULL) {
        int digits = 0;
        if (sscanf(name, "%5d%n", layer, &digits) != 1 || *layer < 0)
            return false;
        name += digits;
        if (strncmp(name, hole + 2, strlen(hole + 2)) != 0)
            return false;
        name += strlen(hole + 2);
    }
    *ending = name;
    return true;
}

static bool rename_tensor(const char *name, const char *from, const char *to, bool whole, char out[CAB_GGUF_NAME_MAX])
{
    int layer = 0;
    const char *ending, *hole = strstr(to, "%d");
    char stem[CAB_GGUF_NAME_MAX];
    if (!match(name, from, &layer, &ending) ||
        (whole ? ending[0] != '\0' : strcmp(ending, ".weight") != 0 && strcmp(ending, ".bias") != 0))
        return false;
    if (hole == NULL)
        snprintf(stem, sizeof stem, "%s", to);
    else
        snprintf(stem, sizeof stem, "%.*s%d%s", (int)(hole - to), to, layer, hole + 2);
    snprintf(out, CAB_GGUF_NAME_MAX, "%.*s%s", CAB_GGUF_NAME_MAX - 8, stem, ending);
    return true;
}

bool cab_gguf_to_transformers(const cab_gguf_name *row, const char *name, char out[CAB_GGUF_NAME_MAX])
{
    return rename_tensor(name, row->gguf, row->transformers, is_whole(row->form), out);
}

bool cab_gguf_from_transformers(const cab_gguf_name *row, const char *name, char out[CAB_GGUF_NAME_MAX])
{
    return rename_tensor(name, row->transformers, row->gguf, is_whole(row->form), out);
}

static bool ends_with(const char *text, const char *end)
{
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

cab_gguf_change cab_gguf_change_of(const cab_gguf_family *f, const char *name, int heads, int kv_heads)
{
    cab_gguf_change change = {0};
    if (f->norms_plus_one && ends_with(name, "norm.weight"))
        change.added = -1;
    if (f->permuted && (ends_with(name, ".attn_q.weight") || ends_with(name, ".attn_q.bias")))
        change.heads = heads;
    if (f->permuted && (ends_with(name, ".attn_k.weight") || ends_with(name, ".attn_k.bias")))
        change.heads = kv_heads;
    return change;
}

int64_t cab_gguf_row(const cab_gguf_change *change, int64_t rows, int64_t row)
{
    if (change->heads == 0)
        return row;
    const int64_t width = rows / change->heads, head = row / width, i = row % width;
    return head * width + (i < width / 2 ? 2 * i : 2 * (i - width / 2) + 1);
}

int64_t cab_gguf_row_back(const cab_gguf_change *change, int64_t rows, int64_t row)
{
    if (change->heads == 0)
        return row;
    const int64_t width = rows / change->heads, head = row / width, i = row % width;
    return head * width + i / 2 + i % 2 * (width / 2);
}
