/* export_multipliers.c - Falcon-H1's multipliers in the weights: llama.cpp's architecture has none, and its own converter writes them so. */
#include "models/export_internal.h"

#include <fnmatch.h>
#include <string.h>

bool cab_export_multiplies(const cab_exporter *x)
{
    return strcmp(x->family->name, "falcon-h1") == 0;
}

/* One factor for all rows. */
static cab_export_factors all(double factor)
{
    return (cab_export_factors){.n = factor != 1, .rows = {INT64_MAX}, .factor = {(float)factor}};
}

/* Of the mixer's projection in: what is read, and each of z, x, B, C and dt. */
static cab_export_factors of_mixer(const cab_config *c)
{
    const int64_t groups = (int64_t)c->n_group * c->d_state;
    const int64_t rows[CAB_FACTORS_MAX] = {c->d_inner, c->d_inner, groups, groups, c->n_state_head};
    cab_export_factors f = {.n = CAB_FACTORS_MAX};
    for (int i = 0; i < f.n; i++) {
        f.rows[i] = rows[i];
        f.factor[i] = (float)(c->multipliers.state_in * c->multipliers.state_parts[i]);
    }
    return f;
}

cab_export_factors cab_export_factors_of(const cab_exporter *x, const char *name)
{
    const cab_config *c = &x->config;
    const cab_multipliers *m = &c->multipliers;
    const struct {
        const char *pattern;
        double factor;
    } rows[] = {{"model.embed_tokens.weight", c->embedding_scale},
                {"lm_head.weight", c->head_scale},
                {"*.self_attn.q_proj.weight", m->attention_in},
                {"*.self_attn.k_proj.weight", m->attention_in * m->key},
                {"*.self_attn.k_proj.bias", m->key},
                {"*.self_attn.v_proj.weight", m->attention_in},
                {"*.self_attn.o_proj.weight", m->attention_out},
                {"*.mamba.out_proj.weight", m->state_out},
                {"*.feed_forward.gate_proj.*", m->gate},
                {"*.feed_forward.down_proj.*", m->down}};
    if (cab_export_multiplies(x) && fnmatch("*.mamba.in_proj.weight", name, 0) == 0)
        return of_mixer(c);
    for (size_t i = 0; cab_export_multiplies(x) && i < sizeof rows / sizeof *rows; i++)
        if (fnmatch(rows[i].pattern, name, 0) == 0)
            return all(rows[i].factor);
    return (cab_export_factors){0};
}

float cab_export_factor(const cab_export_factors *f, int64_t row)
{
    int64_t end = 0;
    for (int i = 0; i < f->n; i++) {
        if (row < end + f->rows[i])
            return f->factor[i];
        end += f->rows[i];
    }
    return 1;
}
