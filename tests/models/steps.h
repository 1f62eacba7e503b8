/* steps.h - a model one token at a time. */
#ifndef STEPS_H
#define STEPS_H

#include "models/tiny.h"

/* Logits (B, L, V) from single steps, B up to 4. */
static inline float *tiny_steps(const cab_model *model, const int32_t *ids, int64_t B, int32_t L)
{
    cab_graph *g = NULL;
    const int64_t V = model->config.vocab_size;
    const size_t row = (size_t)(B * V);
    float *all = calloc(row * (size_t)L, sizeof *all);
    float *raw = calloc(row, sizeof *raw), *values = calloc(row, sizeof *values);
    assert_true(all != NULL && raw != NULL && values != NULL);
    assert_ok(cab_graph_new(model->backend, &g));
    cab_tensor *token = cab_graph_input(g, "ids", CAB_I32, 2, (int64_t[]){B, 1});
    cab_tensor *position = cab_graph_input(g, "position", CAB_I32, 1, (int64_t[]){1});
    cab_tensor *logits = cab_model_record_logits(g, model, cab_model_record_step(g, model, token, position));
    cab_graph_keep(g, logits);
    assert_ok(cab_graph_plan(g, NULL));
    for (int32_t l = 0; l < L; l++) {
        int32_t column[4];
        for (int64_t b = 0; b < B; b++)
            column[b] = ids[b * L + l];
        assert_ok(cab_tensor_write(g, token, column));
        assert_ok(cab_tensor_write(g, position, &l));
        assert_ok(cab_graph_run(g));
        assert_ok(cab_tensor_read(g, logits, raw));
        cab_convert(values, CAB_F32, raw, logits->dtype, row);
        for (int64_t b = 0; b < B; b++)
            memcpy(all + (b * L + l) * V, values + b * V, (size_t)V * sizeof *all);
    }
    cab_graph_free(g);
    free(raw);
    free(values);
    return all;
}

#endif
