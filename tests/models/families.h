/* families.h - teachers of text of every family, two layers, four heads of width 8, written to a directory with random weights. */
#ifndef FAMILIES_H
#define FAMILIES_H

#include "models/tiny.h"

typedef struct family {
    const char *name, *config;
    bool together; /* norms of Q and K span all heads */
} family;

enum { FAMILY_LAYERS = 2, FAMILY_HEADS = 4, FAMILY_WORDS = 23, FAMILY_LENGTH = 32 };

#define FAMILY_SIZES                                                                                                   \
    "\"vocab_size\": 23, \"hidden_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "                  \
    "\"intermediate_size\": 20, \"max_position_embeddings\": 32, \"eos_token_id\": 0"
#define FAMILY_GROUPED FAMILY_SIZES ", \"num_key_value_heads\": 2"

static const family families[] = {
    {"gpt2",
     "{\"model_type\": \"gpt2\", \"vocab_size\": 23, \"n_embd\": 32, \"n_layer\": 2, \"n_head\": 4, \"n_positions\": "
     "32, \"scale_attn_by_inverse_layer_idx\": true}",
     false},
    {"phi", "{\"model_type\": \"phi\", " FAMILY_GROUPED "}", false},
    {"llama",
     "{\"model_type\": \"llama\", \"attention_bias\": true, \"tie_word_embeddings\": true, " FAMILY_GROUPED "}", false},
    {"mistral", "{\"model_type\": \"mistral\", \"sliding_window\": 5, " FAMILY_GROUPED "}", false},
    {"qwen2", "{\"model_type\": \"qwen2\", " FAMILY_GROUPED "}", false},
    {"qwen3", "{\"model_type\": \"qwen3\", \"head_dim\": 8, " FAMILY_GROUPED "}", false},
    {"phi3", "{\"model_type\": \"phi3\", \"pad_token_id\": 0, " FAMILY_GROUPED "}", false},
    {"stablelm", "{\"model_type\": \"stablelm\", " FAMILY_GROUPED "}", false},
    {"olmo2", "{\"model_type\": \"olmo2\", " FAMILY_GROUPED "}", true},
    {"smollm3", "{\"model_type\": \"smollm3\", \"no_rope_layers\": [1, 0], " FAMILY_GROUPED "}", false},
    {"starcoder2", "{\"model_type\": \"starcoder2\", " FAMILY_GROUPED "}", false},
    {"granite",
     "{\"model_type\": \"granite\", \"embedding_multiplier\": 2.0, \"residual_multiplier\": 0.5, "
     "\"attention_multiplier\": 0.3, \"logits_scaling\": 2.0, " FAMILY_GROUPED "}",
     false},
    {"gpt_neox", "{\"model_type\": \"gpt_neox\", " FAMILY_SIZES "}", false},
    {"gpt_neox in sequence",
     "{\"model_type\": \"gpt_neox\", \"use_parallel_residual\": false, \"attention_bias\": false, " FAMILY_SIZES "}",
     false},
    {"opt",
     "{\"model_type\": \"opt\", \"vocab_size\": 23, \"hidden_size\": 32, \"num_hidden_layers\": 2, "
     "\"num_attention_heads\": 4, \"max_position_embeddings\": 32, \"ffn_dim\": 20}",
     false},
    {"gemma2",
     "{\"model_type\": \"gemma2\", \"head_dim\": 8, \"sliding_window\": 5, \"query_pre_attn_scalar\": 9, "
     "\"attn_logit_softcapping\": 2.0, \"final_logit_softcapping\": 3.0, " FAMILY_GROUPED "}",
     false},
    {"gemma3",
     "{\"model_type\": \"gemma3_text\", \"head_dim\": 8, \"sliding_window\": 5, \"layer_types\": "
     "[\"sliding_attention\", "
     "\"full_attention\"], " FAMILY_GROUPED "}",
     false},
};
enum { FAMILIES = sizeof families / sizeof *families };

/* Random values for a parameter: about 1 for vectors, which may be norms, small ones for matrices. */
static inline float *family_values(int64_t n, int n_dim, size_t index)
{
    cab_random random = {.seed = 7, .stream = CAB_STREAM_TEST, .sub = (uint32_t)index};
    float *values = calloc((size_t)n, sizeof *values);
    assert_non_null(values);
    for (int64_t i = 0; i < n; i++)
        values[i] =
            n_dim == 1 ? 0.6f + 0.5f * cab_random_uniform(&random) : 0.8f * (cab_random_uniform(&random) - 0.5f);
    return values;
}

/* Tensors under the names, and of the shapes, that the family's files have. */
static inline void family_write_tensors(const cab_model *model, const char *path)
{
    cab_safetensors_writer *writer = NULL;
    float *values[TINY_TENSORS];
    const size_t count = cab_params_count(model->params);
    assert_true(count <= TINY_TENSORS);
    assert_ok(cab_safetensors_writer_new(&writer));
    for (size_t i = 0; i < count; i++) {
        int n_dim = 0;
        int64_t shape[CAB_MAX_DIMS], n = 1;
        const char *name = cab_params_at(model->params, i)->name;
        memcpy(shape, cab_params_stored_shape(model->params, i, &n_dim), sizeof shape);
        if (strcmp(name, "model.decoder.embed_positions.weight") == 0)
            shape[0] += 2; /* rows of OPT's table that are never read */
        for (int d = 0; d < n_dim; d++)
            n *= shape[d];
        values[i] = family_values(n, n_dim, i);
        assert_ok(cab_safetensors_writer_add(writer, name, CAB_F32, n_dim, shape, values[i]));
    }
    assert_ok(cab_safetensors_writer_save(writer, path));
    cab_safetensors_writer_free(writer);
    for (size_t i = 0; i < count; i++)
        free(values[i]);
}

/* Writes the family's teacher to `directory`. */
static inline void family_write(const family *f, const char *directory)
{
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    cab_json json = {0};
    cab_config config = {0};
    const cab_arch *arch = NULL;
    char path[CAB_PATH_MAX];
    assert_ok(cab_directory_make(directory));
    assert_ok(cab_backend_open("cpu", &backend));
    assert_ok(cab_json_parse(f->config, strlen(f->config), f->name, &json));
    assert_ok(cab_architecture_of(&json, &arch));
    assert_ok(cab_architecture_configure(arch, &json, &config));
    assert_ok(cab_model_create(arch, &config, backend, CAB_PRECISION_FP32, &model));
    assert_ok(cab_path_join(path, directory, "model.safetensors"));
    family_write_tensors(model, path);
    assert_ok(cab_path_join(path, directory, "config.json"));
    assert_ok(cab_file_write(path, f->config, strlen(f->config)));
    cab_model_free(model);
    cab_json_close(&json);
    cab_backend_close(backend);
}

#endif
