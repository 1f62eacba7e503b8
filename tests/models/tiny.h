/* tiny.h - model directories of a few thousand numbers, written for a test and damaged at will. */
#ifndef TINY_H
#define TINY_H

#include "base/json.h"
#include "base/random.h"
#include "base/thread.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "ops/backends.h"
#include "temp.h"

#include <math.h>

enum { TINY_TENSORS = 96 };

typedef struct tiny_tensor {
    char name[CAB_NAME_MAX];
    cab_dtype dtype;
    int n_dim;
    int64_t shape[CAB_MAX_DIMS];
    float scale, offset; /* values are offset + scale * normal */
    float damage;        /* written over the last value unless 0 */
} tiny_tensor;

typedef struct tiny {
    char config[2048];
    tiny_tensor tensors[TINY_TENSORS];
    int count;
    cab_dtype dtype;
} tiny;

static inline void tiny_add(tiny *t, float offset, int n_dim, const int64_t *shape, const char *format, ...)
{
    assert_true(t->count < TINY_TENSORS);
    tiny_tensor *added = &t->tensors[t->count++];
    *added = (tiny_tensor){.dtype = t->dtype, .n_dim = n_dim, .scale = n_dim > 1 ? 0.3f : 0.1f, .offset = offset};
    memcpy(added->shape, shape, (size_t)n_dim * sizeof *shape);
    va_list args;
    va_start(args, format);
    vsnprintf(added->name, sizeof added->name, format, args);
    va_end(args);
}

#define TINY_MATRIX(t, rows, columns, ...) tiny_add((t), 0, 2, (int64_t[]){(rows), (columns)}, __VA_ARGS__)
#define TINY_VECTOR(t, offset, n, ...) tiny_add((t), (offset), 1, (int64_t[]){(n)}, __VA_ARGS__)

static inline tiny_tensor *tiny_find(tiny *t, const char *name)
{
    for (int i = 0; i < t->count; i++)
        if (strcmp(t->tensors[i].name, name) == 0)
            return &t->tensors[i];
    fail_msg("no tensor \"%s\"", name);
    return NULL;
}

/* Width 12, 3 heads, 2 layers, vocabulary 23, 16 positions. */
static inline tiny tiny_gpt2(cab_dtype dtype, const char *prefix)
{
    tiny t = {.dtype = dtype,
              .config = "{\"model_type\": \"gpt2\", \"vocab_size\": 23, \"n_embd\": 12, \"n_layer\": 2, \"n_head\": 3, "
                        "\"n_positions\": 16, \"bos_token_id\": 50256, \"scale_attn_by_inverse_layer_idx\": true}"};
    TINY_MATRIX(&t, 23, 12, "%swte.weight", prefix);
    TINY_MATRIX(&t, 16, 12, "%swpe.weight", prefix);
    for (int l = 0; l < 2; l++) {
        static const struct {
            const char *name;
            int64_t in, out;
        } dense[] = {{"attn.c_attn", 12, 36}, {"attn.c_proj", 12, 12}, {"mlp.c_fc", 12, 48}, {"mlp.c_proj", 48, 12}};
        for (int i = 0; i < 4; i++) {
            TINY_MATRIX(&t, dense[i].in, dense[i].out, "%sh.%d.%s.weight", prefix, l, dense[i].name);
            TINY_VECTOR(&t, 0, dense[i].out, "%sh.%d.%s.bias", prefix, l, dense[i].name);
        }
        for (int i = 1; i <= 2; i++) {
            TINY_VECTOR(&t, 1, 12, "%sh.%d.ln_%d.weight", prefix, l, i);
            TINY_VECTOR(&t, 0, 12, "%sh.%d.ln_%d.bias", prefix, l, i);
        }
    }
    TINY_VECTOR(&t, 1, 12, "%sln_f.weight", prefix);
    TINY_VECTOR(&t, 0, 12, "%sln_f.bias", prefix);
    return t;
}

/* Width 16, 4 heads, 2 of keys and values, 2 layers, half of each head rotated. */
static inline tiny tiny_phi(cab_dtype dtype)
{
    tiny t = {.dtype = dtype,
              .config = "{\"model_type\": \"phi\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
                        "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"intermediate_size\": 20, "
                        "\"max_position_embeddings\": 16, \"partial_rotary_factor\": 0.5, \"eos_token_id\": [1, 2]}"};
    TINY_MATRIX(&t, 23, 16, "model.embed_tokens.weight");
    for (int l = 0; l < 2; l++) {
        static const struct {
            const char *name;
            int64_t in, out;
        } dense[] = {{"self_attn.q_proj", 16, 16}, {"self_attn.k_proj", 16, 8}, {"self_attn.v_proj", 16, 8},
                     {"self_attn.dense", 16, 16},  {"mlp.fc1", 16, 20},         {"mlp.fc2", 20, 16}};
        for (int i = 0; i < 6; i++) {
            TINY_MATRIX(&t, dense[i].out, dense[i].in, "model.layers.%d.%s.weight", l, dense[i].name);
            TINY_VECTOR(&t, 0, dense[i].out, "model.layers.%d.%s.bias", l, dense[i].name);
        }
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.input_layernorm.weight", l);
        TINY_VECTOR(&t, 0, 16, "model.layers.%d.input_layernorm.bias", l);
    }
    TINY_VECTOR(&t, 1, 16, "model.final_layernorm.weight");
    TINY_VECTOR(&t, 0, 16, "model.final_layernorm.bias");
    TINY_MATRIX(&t, 23, 16, "lm_head.weight");
    TINY_VECTOR(&t, 0, 23, "lm_head.bias");
    return t;
}

/* Width 16, 4 heads of 6, 2 of keys and values, 2 layers; q, k, v and o with biases, the MLP without. */
static inline tiny tiny_llama(cab_dtype dtype)
{
    tiny t = {.dtype = dtype,
              .config =
                  "{\"model_type\": \"llama\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
                  "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 6, "
                  "\"intermediate_size\": 20, \"max_position_embeddings\": 16, \"hidden_act\": \"silu\", "
                  "\"attention_bias\": true, \"mlp_bias\": false, \"tie_word_embeddings\": true, "
                  "\"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 500.0}}"};
    TINY_MATRIX(&t, 23, 16, "model.embed_tokens.weight");
    for (int l = 0; l < 2; l++) {
        static const struct {
            const char *name;
            int64_t in, out;
            bool biased;
        } dense[] = {{"self_attn.q_proj", 16, 24, true}, {"self_attn.k_proj", 16, 12, true},
                     {"self_attn.v_proj", 16, 12, true}, {"self_attn.o_proj", 24, 16, true},
                     {"mlp.gate_proj", 16, 20, false},   {"mlp.up_proj", 16, 20, false},
                     {"mlp.down_proj", 20, 16, false}};
        for (int i = 0; i < 7; i++) {
            TINY_MATRIX(&t, dense[i].out, dense[i].in, "model.layers.%d.%s.weight", l, dense[i].name);
            if (dense[i].biased)
                TINY_VECTOR(&t, 0, dense[i].out, "model.layers.%d.%s.bias", l, dense[i].name);
        }
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.input_layernorm.weight", l);
        TINY_VECTOR(&t, 1, 16, "model.layers.%d.post_attention_layernorm.weight", l);
    }
    TINY_VECTOR(&t, 1, 16, "model.norm.weight");
    return t;
}

/* Width 12, 4 heads in 2 groups, state 5, convolution of 3, 2 layers. */
static inline tiny tiny_phi_mamba(cab_dtype dtype)
{
    tiny t = {.dtype = dtype,
              .config =
                  "{\"model_type\": \"phi-mamba\", \"vocab_size\": 23, \"d_model\": 12, \"n_layer\": 2, "
                  "\"n_v_heads\": 4, \"n_qk_heads\": 2, \"d_state\": 5, \"d_conv\": 3, \"intermediate_size\": 18, "
                  "\"seq_len\": 16, \"eos_token_id\": 0}"};
    const int64_t channels = 12 + 2 * 2 * 5;
    TINY_MATRIX(&t, 23, 12, "backbone.embedding.weight");
    for (int l = 0; l < 2; l++) {
        TINY_VECTOR(&t, 1, 12, "backbone.layers.%d.input_layernorm.weight", l);
        TINY_VECTOR(&t, 0, 12, "backbone.layers.%d.input_layernorm.bias", l);
        TINY_MATRIX(&t, channels + 12 + 4, 12, "backbone.layers.%d.mixer.in_proj.weight", l);
        tiny_add(&t, 0, 3, (int64_t[]){channels, 1, 3}, "backbone.layers.%d.mixer.conv1d.weight", l);
        TINY_VECTOR(&t, 0, channels, "backbone.layers.%d.mixer.conv1d.bias", l);
        TINY_VECTOR(&t, 1, 4, "backbone.layers.%d.mixer.D", l);
        TINY_VECTOR(&t, 0, 12, "backbone.layers.%d.mixer.z_bias", l);
        TINY_MATRIX(&t, 12, 12, "backbone.layers.%d.mixer.out_proj.weight", l);
        TINY_MATRIX(&t, 18, 12, "backbone.layers.%d.mlp.fc1.weight", l);
        TINY_VECTOR(&t, 0, 18, "backbone.layers.%d.mlp.fc1.bias", l);
        TINY_MATRIX(&t, 12, 18, "backbone.layers.%d.mlp.fc2.weight", l);
        TINY_VECTOR(&t, 0, 12, "backbone.layers.%d.mlp.fc2.bias", l);
    }
    TINY_VECTOR(&t, 1, 12, "backbone.final_layernorm.weight");
    TINY_VECTOR(&t, 0, 12, "backbone.final_layernorm.bias");
    TINY_MATRIX(&t, 23, 12, "lm_head.weight");
    TINY_VECTOR(&t, 0, 23, "lm_head.bias");
    return t;
}

/* Replaces `from`, which must be there, in the configuration. */
static inline void tiny_configure(tiny *t, const char *from, const char *to)
{
    char changed[sizeof t->config];
    char *at = strstr(t->config, from);
    if (at == NULL)
        fail_msg("no %s in the configuration", from);
    snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - t->config), t->config, to, at + strlen(from));
    memcpy(t->config, changed, sizeof changed);
}

static inline void tiny_drop(tiny *t, const char *name)
{
    tiny_tensor *dropped = tiny_find(t, name);
    *dropped = t->tensors[--t->count];
}

/* The values of a tensor: a function of its name. All are bf16 numbers. */
static inline float *tiny_values(const tiny_tensor *t)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dim; i++)
        n *= t->shape[i];
    float *values = calloc((size_t)n, sizeof *values);
    assert_non_null(values);
    cab_random random = {.seed = cab_hash(CAB_HASH_START, t->name, strlen(t->name)), .stream = CAB_STREAM_TEST};
    for (int64_t i = 0; i < n; i++)
        values[i] = cab_bf16_to_f32(cab_bf16_from_f32(t->offset + t->scale * cab_random_normal(&random)));
    if (!(t->damage == 0))
        values[n - 1] = t->damage;
    return values;
}

/* Writes tensors [first, last) into a file. */
static inline void tiny_write_file(const tiny *t, int first, int last, const char *path)
{
    cab_safetensors_writer *writer = NULL;
    void *data[TINY_TENSORS];
    assert_ok(cab_safetensors_writer_new(&writer));
    for (int i = first; i < last; i++) {
        const tiny_tensor *tensor = &t->tensors[i];
        int64_t n = 1;
        for (int k = 0; k < tensor->n_dim; k++)
            n *= tensor->shape[k];
        float *values = tiny_values(tensor);
        data[i] = calloc((size_t)n, sizeof *values);
        assert_non_null(data[i]);
        cab_convert(data[i], tensor->dtype, values, CAB_F32, (size_t)n);
        free(values);
        assert_ok(
            cab_safetensors_writer_add(writer, tensor->name, tensor->dtype, tensor->n_dim, tensor->shape, data[i]));
    }
    assert_ok(cab_safetensors_writer_save(writer, path));
    cab_safetensors_writer_free(writer);
    for (int i = first; i < last; i++)
        free(data[i]);
}

/* The directory as one file, or as `shards` of them with an index. Returns its path: the test's own directory. */
static inline const char *tiny_write(void **state, const tiny *t, int shards)
{
    assert_ok(cab_file_write(temp_path(state, "config.json"), t->config, strlen(t->config)));
    if (shards <= 1) {
        tiny_write_file(t, 0, t->count, temp_path(state, "model.safetensors"));
        return *state;
    }
    char index[16384];
    size_t used = (size_t)snprintf(index, sizeof index, "{\"weight_map\": {");
    for (int s = 0; s < shards; s++) {
        char name[64];
        int first = t->count * s / shards, last = t->count * (s + 1) / shards;
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", s + 1, shards);
        tiny_write_file(t, first, last, temp_path(state, name));
        for (int i = first; i < last; i++)
            used += (size_t)snprintf(index + used, sizeof index - used, "%s\"%s\": \"%s\"", i ? ", " : "",
                                     t->tensors[i].name, name);
    }
    used += (size_t)snprintf(index + used, sizeof index - used, "}}");
    assert_true(used < sizeof index);
    assert_ok(cab_file_write(temp_path(state, "model.safetensors.index.json"), index, used));
    return *state;
}

/* ||a - b|| / ||b|| */
static inline double tiny_distance(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)b[i] * (double)b[i];
    }
    return sqrt(difference / norm);
}

/* Logits (B, L, V) as fp32, in a buffer the caller frees. */
static inline float *tiny_logits(const cab_model *model, const int32_t *ids, int64_t B, int64_t L)
{
    cab_graph *g = NULL;
    const size_t n = (size_t)(B * L * model->config.vocab_size);
    float *values = calloc(n, sizeof *values);
    void *raw = calloc(n, sizeof *values);
    assert_true(values != NULL && raw != NULL);
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){B, L});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, false, NULL));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_tensor_write(g, input, ids));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_tensor_read(g, logits, raw));
    cab_convert(values, CAB_F32, raw, logits->dtype, n);
    cab_graph_free(g);
    free(raw);
    return values;
}

#endif
