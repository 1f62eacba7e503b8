/* reference.c - what the other programs are compared with: ids and logits of cab, as bytes.
 *
 *   interop_reference ids MODEL <text >ids         int32
 *   interop_reference logits MODEL <ids >logits    fp32, (L, V)
 *   interop_reference loss MODEL B L               in bf16: reads (B, L) ids; then, for every byte, predicts them once and answers
 *                                                  with a line of seconds and cross-entropy */
#include "base/log.h"
#include "base/thread.h"
#include "data/tokenizer.h"
#include "distill/objective.h"
#include "models/model.h"
#include "ops/backends.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INPUT_MAX = 1 << 24 };

static cab_status print_ids(const char *path, const char *text, size_t size)
{
    cab_tokenizer *tokenizer = NULL;
    cab_ids ids = {0};
    cab_status status;
    CAB_GOTO(cab_tokenizer_open(path, &tokenizer));
    CAB_GOTO(cab_tokenizer_encode(tokenizer, text, size, &ids));
    fwrite(ids.data, sizeof *ids.data, ids.count, stdout);
done:
    cab_ids_free(&ids);
    cab_tokenizer_free(tokenizer);
    return status;
}

static cab_status print_logits(const char *path, const int32_t *ids, int64_t length)
{
    cab_model *model = NULL;
    cab_graph *g = NULL;
    float *values = NULL;
    cab_status status;
    CAB_GOTO(cab_model_load(path, CAB_PRECISION_FP32, &model));
    CAB_GOTO(cab_graph_new(model->backend, &g));
    cab_tensor *input = cab_model_input(g, model, 1, length);
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record(g, model, input, 0, NULL));
    cab_graph_keep(g, logits);
    CAB_GOTO(cab_graph_plan(g, NULL));
    CAB_GOTO(cab_tensor_write(g, input, ids));
    CAB_GOTO(cab_graph_run(g));
    const size_t count = (size_t)length * (size_t)model->config.vocab_size;
    values = calloc(count, sizeof *values);
    if (values == NULL)
        abort();
    CAB_GOTO(cab_tensor_read(g, logits, values));
    fwrite(values, sizeof *values, count, stdout);
done:
    free(values);
    cab_graph_free(g);
    cab_model_free(model);
    return status;
}

/* ids (batch, length), and behind them as many labels. */
static cab_status answer(cab_objective *objective, const int32_t *ids, int64_t tokens)
{
    const cab_term_weights none = {{0}};
    const cab_batch batch = {.input = ids, .labels = ids + tokens};
    while (getchar() != EOF) {
        cab_term_values values;
        const double started = cab_seconds();
        CAB_TRY(cab_objective_run(objective, &batch, &none, 1, &values));
        printf("%.6f %.6f\n", cab_seconds() - started, (double)values.of[CAB_TERM_CE]);
        fflush(stdout);
    }
    return CAB_OK;
}

static cab_status time_losses(const char *path, int64_t batch, int64_t length)
{
    const cab_objective_options options = {.batch = batch, .seq_len = length, .temperature = 1};
    const int64_t tokens = batch * length;
    cab_backend *backend = NULL;
    cab_model *model = NULL;
    cab_objective *objective = NULL;
    int32_t *ids = calloc((size_t)tokens * 2, sizeof *ids);
    cab_status status;
    if (ids == NULL || fread(ids, sizeof *ids, (size_t)tokens, stdin) != (size_t)tokens)
        abort();
    for (int64_t i = 0; i < tokens; i++)
        ids[tokens + i] = i % length + 1 < length ? ids[i + 1] : -1;
    CAB_GOTO(cab_backend_open("cpu", &backend));
    CAB_GOTO(cab_model_open(path, backend, CAB_PRECISION_BF16, false, &model));
    CAB_GOTO(cab_objective_new(backend, model, NULL, NULL, &options, &objective));
    CAB_GOTO(cab_objective_plan(objective, NULL));
    CAB_GOTO(answer(objective, ids, tokens));
done:
    cab_objective_free(objective);
    cab_model_free(model);
    cab_backend_close(backend);
    free(ids);
    return status;
}

static cab_status print_answer(char **argv)
{
    char *input = malloc(INPUT_MAX);
    if (input == NULL)
        abort();
    const size_t size = fread(input, 1, INPUT_MAX, stdin);
    const cab_status status = strcmp(argv[1], "ids") == 0 ? print_ids(argv[2], input, size)
                                                          : print_logits(argv[2], (const int32_t *)(void *)input,
                                                                         (int64_t)(size / sizeof(int32_t)));
    free(input);
    return status;
}

int main(int argc, char **argv)
{
    cab_status status = CAB_EARG;
    if (argc == 5 && strcmp(argv[1], "loss") == 0)
        status = time_losses(argv[2], strtol(argv[3], NULL, 10), strtol(argv[4], NULL, 10));
    else if (argc == 3)
        status = print_answer(argv);
    if (status != CAB_OK)
        fprintf(stderr, "%s\n", cab_error_text());
    return status;
}
