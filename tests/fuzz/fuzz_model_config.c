/* fuzz_model_config.c - hostile config.json files over whole tensors. The first byte picks the architecture whose tensors lie in
 * model.safetensors; the rest is config.json. Whatever loads has used every tensor; the rest is refused with a sentence. */
#include "base/memory.h"
#include "directory.h"
#include "io/safetensors.h"
#include "models/model.h"
#include "ops/backends.h"

static const char *const configs[] = {
    "{\"model_type\": \"gpt2\", \"vocab_size\": 23, \"n_embd\": 12, \"n_layer\": 2, \"n_head\": 3, \"n_positions\": "
    "16}",
    "{\"model_type\": \"phi\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"intermediate_size\": 20, \"max_position_embeddings\": 16}",
    "{\"model_type\": \"phi-mamba\", \"vocab_size\": 23, \"d_model\": 12, \"n_layer\": 1, \"n_v_heads\": 4, "
    "\"n_qk_heads\": 2, "
    "\"d_state\": 5, \"d_conv\": 3, \"intermediate_size\": 18, \"seq_len\": 16}",
    "{\"model_type\": \"vit\", \"hidden_size\": 12, \"num_hidden_layers\": 1, \"num_attention_heads\": 3, "
    "\"intermediate_size\": 20, "
    "\"image_size\": 12, \"patch_size\": 4}",
    "{\"architecture\": \"vit_tiny_patch4_12\", \"model_args\": {\"num_heads\": 3}}",
    "{\"model_type\": \"llama\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 4, "
    "\"num_key_value_heads\": 2, \"intermediate_size\": 20, \"max_position_embeddings\": 16}",
    "{\"model_type\": \"vim\", \"img_size\": 12, \"patch_size\": 4, \"embed_dim\": 8, \"depth\": 1, \"num_classes\": "
    "5, \"d_state\": 3}",
    "{\"model_type\": \"mamba\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 1, \"state_size\": 5, "
    "\"conv_kernel\": 3, \"expand\": 2, \"time_step_rank\": 2}",
    "{\"model_type\": \"mamba2\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 1, \"state_size\": "
    "5, \"conv_kernel\": 3, \"num_heads\": 4, \"head_dim\": 8, \"n_groups\": 2}",
    "{\"model_type\": \"falcon_h1\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 1, "
    "\"num_attention_heads\": 2, \"num_key_value_heads\": 1, \"head_dim\": 6, \"intermediate_size\": 20, "
    "\"mamba_d_ssm\": 24, \"mamba_n_heads\": 3, \"mamba_d_head\": \"auto\", \"mamba_d_state\": 5}",
    "{\"model_type\": \"granitemoehybrid\", \"vocab_size\": 23, \"hidden_size\": 16, \"num_hidden_layers\": 2, "
    "\"layer_types\": [\"mamba\", \"attention\"], \"num_local_experts\": 0, \"num_attention_heads\": 2, "
    "\"num_key_value_heads\": 1, \"shared_intermediate_size\": 20, \"mamba_n_heads\": 4, \"mamba_d_state\": 5}",
    "{\"model_type\": \"in-place\", \"teacher\": {\"model_type\": \"qwen3\", \"vocab_size\": 23, \"hidden_size\": 16, "
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 6, "
    "\"intermediate_size\": 20}, \"mixer\": {\"kind\": \"mamba2\", \"mamba_d_ssm\": 24, \"mamba_n_heads\": 3, "
    "\"mamba_d_state\": 5}, \"kept\": [[1], []]}",
};
enum { CONFIGS = sizeof configs / sizeof *configs };

static cab_backend *backend;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What config.json leaves to the tensors. */
static void complete(cab_config *c)
{
    if (c->timm) {
        c->d_model = 12;
        c->head_dim = 4;
        c->n_layer = 1;
        c->d_mlp = 20;
        c->patch_size = 4;
        c->image_size = 12;
        c->qkv_bias = true;
    }
    if (c->patch_size > 0 && c->n_classes == 0) {
        c->n_classes = 5;
        c->n_special = 1;
        cab_config_set_image(c, c->image_size);
    }
}

/* Zeros for every parameter of the architecture, under the names of its files. */
static cab_status write_tensors(const char *config, const char *path)
{
    cab_json json = {0};
    cab_config sizes = {0};
    const cab_arch *arch = NULL;
    cab_model *model = NULL;
    cab_safetensors_writer *writer = NULL;
    float *zeros = NULL;
    cab_status status;
    CAB_GOTO(cab_json_parse(config, strlen(config), "seed", &json));
    CAB_GOTO(cab_architecture_of(&json, &arch));
    CAB_GOTO(cab_architecture_configure(arch, &json, &sizes));
    complete(&sizes);
    CAB_GOTO(cab_model_create(arch, &sizes, backend, CAB_PRECISION_FP32, &model));
    CAB_GOTO(CAB_NEW(&zeros, cab_params_elements(model->params), "zeros"));
    CAB_GOTO(cab_safetensors_writer_new(&writer));
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        int n_dim = 0;
        const int64_t *shape = cab_params_stored_shape(model->params, i, &n_dim);
        const char *name = cab_params_at(model->params, i)->name;
        if (sizes.timm && strncmp(name, "vit.", 4) == 0) /* fresh names have transformers' prefix */
            name += 4;
        CAB_GOTO(cab_safetensors_writer_add(writer, name, CAB_F32, n_dim, shape, zeros));
    }
    status = cab_safetensors_writer_save(writer, path);
done:
    cab_safetensors_writer_free(writer);
    cab_free(zeros);
    cab_model_free(model);
    cab_json_close(&json);
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    fuzz_open();
    if (cab_backend_open("cpu", &backend) != CAB_OK)
        abort();
    for (int i = 0; i < CONFIGS; i++) {
        char name[32];
        snprintf(name, sizeof name, "%d.safetensors", i);
        if (write_tensors(configs[i], fuzz_path(name)) != CAB_OK)
            abort();
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_model *model = NULL;
    char name[32], source[CAB_PATH_MAX];
    if (size == 0)
        return 0;
    snprintf(name, sizeof name, "%d.safetensors", data[0] % CONFIGS);
    snprintf(source, sizeof source, "%s", fuzz_path(name));
    unlink(fuzz_path("model.safetensors"));
    if (link(source, fuzz_path("model.safetensors")) != 0)
        abort();
    fuzz_write("config.json", data + 1, size - 1);
    cab_error_set_text("");
    if (cab_model_open(fuzz_directory, backend, CAB_PRECISION_FP32, false, &model) != CAB_OK)
        fuzz_check_error();
    else if (cab_params_count(model->params) != cab_checkpoint_count(model->source))
        abort();
    cab_model_free(model);
    return 0;
}
