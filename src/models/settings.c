#include "models/settings.h"

#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What transformers writes for any model. Of the keys with NULL, some speak of training or of another task's head, some of
 * sampling: a generation's options are the command's. */
const cab_setting cab_settings_transformers[] = {{"add_cross_attention", "false"},
                                                 {"architectures", NULL},
                                                 {"auto_map", NULL},
                                                 {"bad_words_ids", NULL},
                                                 {"begin_suppress_tokens", NULL},
                                                 {"bos_token_id", NULL},
                                                 {"chunk_size_feed_forward", NULL},
                                                 {"cross_attention_hidden_size", NULL},
                                                 {"decoder_start_token_id", NULL},
                                                 {"diversity_penalty", NULL},
                                                 {"do_sample", NULL},
                                                 {"dtype", NULL},
                                                 {"early_stopping", NULL},
                                                 {"encoder_no_repeat_ngram_size", NULL},
                                                 {"eos_token_id", NULL},
                                                 {"exponential_decay_length_penalty", NULL},
                                                 {"finetuning_task", NULL},
                                                 {"forced_bos_token_id", NULL},
                                                 {"forced_eos_token_id", NULL},
                                                 {"gradient_checkpointing", NULL},
                                                 {"id2label", NULL},
                                                 {"initializer_range", NULL},
                                                 {"is_decoder", NULL},
                                                 {"is_encoder_decoder", "false"},
                                                 {"label2id", NULL},
                                                 {"length_penalty", NULL},
                                                 {"max_length", NULL},
                                                 {"min_length", NULL},
                                                 {"model_type", NULL},
                                                 {"name_or_path", NULL},
                                                 {"no_repeat_ngram_size", NULL},
                                                 {"num_beam_groups", NULL},
                                                 {"num_beams", NULL},
                                                 {"num_labels", NULL},
                                                 {"num_return_sequences", NULL},
                                                 {"output_attentions", NULL},
                                                 {"output_hidden_states", NULL},
                                                 {"output_scores", NULL},
                                                 {"pad_token_id", NULL},
                                                 {"prefix", NULL},
                                                 {"problem_type", NULL},
                                                 {"pruned_heads", "{}"},
                                                 {"quantization_config", "null"},
                                                 {"remove_invalid_values", NULL},
                                                 {"repetition_penalty", NULL},
                                                 {"return_dict", NULL},
                                                 {"return_dict_in_generate", NULL},
                                                 {"sep_token_id", NULL},
                                                 {"suppress_tokens", NULL},
                                                 {"task_specific_params", NULL},
                                                 {"temperature", NULL},
                                                 {"tf_legacy_loss", NULL},
                                                 {"tie_encoder_decoder", NULL},
                                                 {"tie_word_embeddings", NULL},
                                                 {"tokenizer_class", NULL},
                                                 {"top_k", NULL},
                                                 {"top_p", NULL},
                                                 {"torch_dtype", NULL},
                                                 {"torchscript", NULL},
                                                 {"transformers_version", NULL},
                                                 {"typical_p", NULL},
                                                 {"use_bfloat16", NULL},
                                                 {"use_cache", NULL},
                                                 {NULL, NULL}};

static const cab_setting *find(const cab_setting *const *tables, const char *key)
{
    for (int i = 0; tables[i] != NULL; i++)
        for (const cab_setting *s = tables[i]; s->key != NULL; s++)
            if (strcmp(s->key, key) == 0)
                return s;
    return NULL;
}

static bool equals(json_object *value, const char *only)
{
    if (json_object_is_type(value, json_type_int) || json_object_is_type(value, json_type_double)) {
        char *end = NULL;
        const double number = strtod(only, &end);
        return *end == '\0' && end != only && json_object_get_double(value) == number;
    }
    return strcmp(json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE),
                  only) == 0;
}

cab_status cab_settings_check(const cab_json *json, json_object *object, const cab_setting *const *tables, bool strict)
{
    json_object_object_foreach(object == NULL ? json->root : object, key, value)
    {
        const cab_setting *s = find(tables, key);
        if (value == NULL || (s == NULL && !strict) || (s != NULL && (s->only == NULL || equals(value, s->only))))
            continue;
        if (s == NULL)
            return cab_fail(CAB_EUNSUPPORTED, "%s: \"%.64s\" is %.80s; there is no such setting here", json->name, key,
                            json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN));
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"%s\" is %.80s; only %s is supported", json->name, key,
                        json_object_to_json_string_ext(value, JSON_C_TO_STRING_PLAIN), s->only);
    }
    return CAB_OK;
}

void cab_settings_warn(const cab_json *json, const cab_setting *const *tables)
{
    enum { NAMED = 6 };
    char names[NAMED * 72] = "", more[32] = "";
    size_t used = 0;
    int count = 0;
    json_object_object_foreach(json->root, key, value)
    {
        if (value == NULL || key[0] == '_' || find(tables, key) != NULL)
            continue;
        if (count < NAMED)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s\"%.64s\"", count > 0 ? ", " : "", key);
        count++;
    }
    if (count > NAMED)
        snprintf(more, sizeof more, " and %d more", count - NAMED);
    if (count > 0)
        cab_log_warn("%s: settings that are not known here and have no effect: %s%s", json->name, names, more);
}
