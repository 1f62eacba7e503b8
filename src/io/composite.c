/* composite.c - whose a tensor is, in the files that the models were published in, and as transformers saves them since 4.52:
 *
 *   language_model.model.layers.0...     model.language_model.layers.0...     model.layers.0...
 *   language_model.lm_head.weight        lm_head.weight                       lm_head.weight
 *   vision_tower..., multi_modal_projector...     the same behind "model."    left out */
#include "io/composite.h"

#include "base/memory.h"

#include <stddef.h>
#include <string.h>

/* A kind of model, and the defaults of its text_config in transformers, as JSON. */
typedef struct kind {
    const char *name, *defaults;
} kind;

static const kind kinds[] = {
    {"gemma3",
     "{\"model_type\": \"gemma3_text\", \"vocab_size\": 262208, \"hidden_size\": 2304, \"intermediate_size\": 9216, "
     "\"num_hidden_layers\": 26, \"num_attention_heads\": 8, \"num_key_value_heads\": 4, \"head_dim\": 256, "
     "\"max_position_embeddings\": 131072, \"tie_word_embeddings\": true}"},
    {"llava", "{\"model_type\": \"llama\", \"vocab_size\": 32000, \"hidden_size\": 4096, \"intermediate_size\": 11008, "
              "\"num_hidden_layers\": 32, \"num_attention_heads\": 32, \"max_position_embeddings\": 2048, "
              "\"tie_word_embeddings\": false}"},
    {"mistral3",
     "{\"model_type\": \"mistral\", \"vocab_size\": 131072, \"hidden_size\": 5120, \"intermediate_size\": 32768, "
     "\"num_hidden_layers\": 40, \"num_attention_heads\": 32, \"num_key_value_heads\": 8, \"head_dim\": 128, "
     "\"max_position_embeddings\": 131072, \"rope_theta\": 1000000000.0, \"rms_norm_eps\": 1e-05, "
     "\"tie_word_embeddings\": false}"},
};

static const kind *kind_of(const cab_json *config)
{
    json_object *type = NULL, *text = NULL;
    if (!json_object_object_get_ex(config->root, "model_type", &type) || !json_object_is_type(type, json_type_string) ||
        !json_object_object_get_ex(config->root, "text_config", &text) || text == NULL)
        return NULL;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, json_object_get_string(type)) == 0)
            return &kinds[i];
    return NULL;
}

bool cab_composite_is(const cab_json *config)
{
    return kind_of(config) != NULL;
}

/* Those keys of `from` that `to` has not; all, or where `only` is given those it names. */
static void add_missing(json_object *to, json_object *from, const char *const *only)
{
    json_object_object_foreach(from, key, value)
    {
        bool wanted = only == NULL;
        for (int i = 0; only != NULL && only[i] != NULL; i++)
            wanted = wanted || strcmp(only[i], key) == 0;
        if (wanted && !json_object_object_get_ex(to, key, NULL))
            json_object_object_add(to, key, json_object_get(value));
    }
}

cab_status cab_composite_config(cab_json *config)
{
    static const char *const ends[] = {"bos_token_id", "eos_token_id", "tie_word_embeddings", "quantization_config",
                                       NULL};
    const kind *k = kind_of(config);
    json_object *text = NULL, *defaults = json_tokener_parse(k->defaults);
    if (defaults == NULL)
        return cab_fail(CAB_ENOMEM, "%s: no memory for its configuration", config->name);
    cab_status status = cab_json_object(config, NULL, "text_config", &text);
    if (status == CAB_OK) {
        text = json_object_get(text);
        add_missing(text, config->root, ends);
        add_missing(text, defaults, NULL);
        json_object_put(config->root);
        config->root = text;
    }
    json_object_put(defaults);
    return status;
}

/* What follows `prefix` in `name`, or NULL. */
static const char *behind(const char *name, const char *prefix)
{
    const size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 ? name + n : NULL;
}

const char *cab_composite_name(const char *name)
{
    static const char *const others[] = {"vision_tower.", "multi_modal_projector.", "vision_model."};
    const char *inner = behind(name, "model."), *alone = behind(name, "language_model.");
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (behind(name, others[i]) != NULL || (inner != NULL && behind(inner, others[i]) != NULL))
            return NULL;
    if (alone != NULL)
        return alone;
    alone = inner != NULL ? behind(inner, "language_model.") : NULL;
    /* "model.language_model.x" is "model.x": its last "model." is that of "language_model.". */
    return alone != NULL ? alone - strlen("model.") : name;
}
