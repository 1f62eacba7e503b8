/* terms.c - the table of loss terms, made of the rows of terms.h. */
#include "base/memory.h"
#include "distill/term.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define ROW(ID, name_, ...)                                                                                            \
    [CAB_TERM_##ID] = {#name_, &cab_term_##name_, offsetof(cab_stage, name_), offsetof(cab_stage, name_##_end)},
static const struct {
    const char *name;
    const cab_term *term;
    size_t start, end; /* its weights in cab_stage */
} rows[CAB_TERM_COUNT] = {CAB_TERMS(ROW, )};
#undef ROW

const cab_term *cab_term_at(cab_term_id term)
{
    return rows[term].term;
}

const char *cab_term_name(cab_term_id term)
{
    return rows[term].name;
}

const char *cab_term_names(char *out, unsigned size)
{
    unsigned used = 0;
    out[0] = '\0';
    for (int t = 0; t < CAB_TERM_COUNT && used < size; t++)
        used += (unsigned)snprintf(out + used, size - used, "%s%s",
                                   t == 0                    ? ""
                                   : t + 1 == CAB_TERM_COUNT ? " or "
                                                             : ", ",
                                   rows[t].name);
    return out;
}

double cab_terms_loss(const cab_term_weights *weights, const cab_term_values *values)
{
    double sum = 0;
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (weights->of[t] > 0 && !isnan(values->of[t]))
            sum += weights->of[t] * values->of[t];
    return sum;
}

cab_status cab_term_add(cab_graph *g, cab_term_output *output, cab_tensor *scalar)
{
    if (scalar == NULL)
        return CAB_OK;
    CAB_TRY(CAB_GROW(&output->scalars, &output->capacity, (size_t)output->count + 1, "a loss term"));
    output->scalars[output->count++] = scalar;
    cab_graph_keep(g, scalar);
    return CAB_OK;
}

/* ---- in a recipe ---------------------------------------------------------------------------------------------------- */

cab_term_span cab_stage_weight(const cab_stage *stage, cab_term_id term)
{
    cab_term_span span;
    memcpy(&span.start, (const char *)stage + rows[term].start, sizeof span.start);
    memcpy(&span.end, (const char *)stage + rows[term].end, sizeof span.end);
    return span;
}

bool cab_stage_uses(const cab_stage *stage, cab_term_id term)
{
    const cab_term_span span = cab_stage_weight(stage, term);
    return span.start > 0 || span.end > 0;
}

bool cab_stage_needs(const cab_stage *stage, unsigned needs)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (cab_stage_uses(stage, (cab_term_id)t) && (rows[t].term->needs & needs) == needs)
            return true;
    return false;
}

bool cab_recipe_needs(const cab_recipe *recipe, unsigned needs)
{
    for (unsigned i = 0; i < recipe->stages_count; i++)
        if (cab_stage_needs(&recipe->stages[i], needs))
            return true;
    return false;
}

/* ---- of a pair of models ---------------------------------------------------------------------------------------------- */

static bool recipe_uses(const cab_recipe *recipe, cab_term_id term)
{
    for (unsigned i = 0; i < recipe->stages_count; i++)
        if (cab_stage_uses(&recipe->stages[i], term))
            return true;
    return false;
}

cab_status cab_term_set_open(const cab_term_setup *setup, cab_term_set *set)
{
    cab_term_setup with_params = *setup;
    for (int t = 0; t < CAB_TERM_COUNT; t++) {
        if (rows[t].term->open == NULL || !recipe_uses(setup->recipe, (cab_term_id)t))
            continue;
        if (set->params == NULL)
            CAB_TRY(cab_params_new(setup->student->backend, &set->params));
        with_params.params = set->params;
        CAB_TRY(rows[t].term->open(&with_params, &set->state[t]));
    }
    return CAB_OK;
}

void cab_term_set_close(cab_term_set *set)
{
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        if (set->state[t] != NULL)
            rows[t].term->close(set->state[t]);
    cab_params_free(set->params);
    *set = (cab_term_set){0};
}
