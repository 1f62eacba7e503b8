/* eval_writing.c - a line for every block of what was written. The judge is the teacher, or without one the model itself. */
#include "cli/eval_writing.h"

#include "base/json.h"
#include "base/memory.h"
#include "data/text_bounds.h"
#include "ops/backends.h"
#include "train/domain.h"

#include <inttypes.h>
#include <math.h>

typedef struct measured {
    cab_writing_block *blocks;
    size_t count;
} measured;

static cab_status find_start(const char *directory, const cab_model *model, int32_t *start)
{
    cab_tokenizer *tokenizer = NULL;
    cab_text_bounds bounds = {.start = -1};
    CAB_TRY(cab_tokenizer_open(directory, &tokenizer));
    const cab_status status = cab_text_bounds_load(directory, tokenizer, model->config.vocab_size, &bounds);
    cab_tokenizer_free(tokenizer);
    *start = bounds.start;
    return status;
}

static void print_table(const measured *m, const char *who, FILE *out)
{
    for (size_t i = 0; i < m->count; i++) {
        const cab_writing_block *b = &m->blocks[i];
        fprintf(out, "%-8s %9" PRIu64 " %6" PRIu64 " %9" PRIu64 " %11.2f", who, b->first, b->texts, b->tokens,
                b->perplexity);
        for (int n = 0; n < CAB_WRITING_GRAMS; n++)
            fprintf(out, " %9.2f%%", 100 * b->distinct[n]);
        fprintf(out, " %9.2f%%\n", 100 * b->repetition);
    }
}

static void add_number(json_object *object, const char *key, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.9g", value);
    if (isfinite(value))
        json_object_object_add(object, key, json_object_new_double_s(value, text));
}

static json_object *json_of(const measured *m)
{
    static const char *const keys[CAB_WRITING_GRAMS] = {"distinct_1", "distinct_2", "distinct_3", "distinct_4"};
    json_object *array = json_object_new_array();
    for (size_t i = 0; i < m->count; i++) {
        const cab_writing_block *b = &m->blocks[i];
        json_object *object = json_object_new_object();
        json_object_object_add(object, "first", json_object_new_int64((int64_t)b->first));
        json_object_object_add(object, "texts", json_object_new_int64((int64_t)b->texts));
        json_object_object_add(object, "tokens", json_object_new_int64((int64_t)b->tokens));
        add_number(object, "perplexity", b->perplexity);
        for (int n = 0; n < CAB_WRITING_GRAMS; n++)
            add_number(object, keys[n], b->distinct[n]);
        add_number(object, "repetition", b->repetition);
        json_object_array_add(array, object);
    }
    return array;
}

static void print(const measured *model, const measured *teacher, bool json, FILE *out)
{
    if (!json) {
        fprintf(out, "%-8s %9s %6s %9s %11s %10s %10s %10s %10s %10s\n", "", "from", "texts", "tokens", "perplexity",
                "distinct-1", "distinct-2", "distinct-3", "distinct-4", "repetition");
        print_table(model, "model", out);
        print_table(teacher, "teacher", out);
        return;
    }
    json_object *root = json_object_new_object();
    json_object_object_add(root, "generation", json_of(model));
    if (teacher->count > 0)
        json_object_object_add(root, "teacher", json_of(teacher));
    fprintf(out, "%s\n",
            json_object_to_json_string_ext(root, JSON_C_TO_STRING_SPACED | JSON_C_TO_STRING_NOSLASHESCAPE));
    json_object_put(root);
}

cab_status cli_eval_writing(const cli_writing_options *o, const cli_results *results)
{
    cab_writing_options writing = o->writing;
    cab_backend *backend = NULL;
    cab_model *model = NULL, *teacher = NULL;
    measured of_model = {0}, of_teacher = {0};
    cab_status status;
    CAB_GOTO(cab_backend_open(o->device, &backend));
    CAB_GOTO(cab_model_open(o->model, backend, o->precision, false, &model));
    if (o->teacher[0] != '\0')
        CAB_GOTO(cab_model_open(o->teacher, backend, o->precision, false, &teacher));
    if (teacher != NULL && teacher->config.vocab_size != model->config.vocab_size) {
        status = cab_fail(CAB_ESHAPE, "%s: vocabulary of %d, %s has %d", o->teacher, teacher->config.vocab_size,
                          o->model, model->config.vocab_size);
        goto done;
    }
    CAB_GOTO(find_start(o->model, model, &writing.start));
    CAB_GOTO(
        cab_writing_measure(model, teacher != NULL ? teacher : model, &writing, &of_model.blocks, &of_model.count));
    if (teacher != NULL)
        CAB_GOTO(cab_writing_measure(teacher, teacher, &writing, &of_teacher.blocks, &of_teacher.count));
    print(&of_model, &of_teacher, o->json, results->stream);
done:
    cab_free(of_model.blocks);
    cab_free(of_teacher.blocks);
    cab_model_free(model);
    cab_model_free(teacher);
    cab_backend_close(backend);
    return status;
}
