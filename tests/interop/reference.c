/* reference.c - what the other programs are compared with: ids and logits of cab, as bytes.
 *
 *   interop_reference ids MODEL <text >ids         int32
 *   interop_reference logits MODEL <ids >logits    fp32, (L, V) */
#include "base/thread.h"
#include "data/tokenizer.h"
#include "models/model.h"

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

int main(int argc, char **argv)
{
    char *input = malloc(INPUT_MAX);
    if (argc != 3 || input == NULL)
        return CAB_EARG;
    const size_t size = fread(input, 1, INPUT_MAX, stdin);
    const cab_status status = strcmp(argv[1], "ids") == 0 ? print_ids(argv[2], input, size)
                                                          : print_logits(argv[2], (const int32_t *)(void *)input,
                                                                         (int64_t)(size / sizeof(int32_t)));
    if (status != CAB_OK)
        fprintf(stderr, "%s\n", cab_error_text());
    free(input);
    return status;
}
