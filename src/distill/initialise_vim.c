/* initialise_vim.c - the first parameters of Vision Mamba, those of its public code:
 *
 *   patches         normal, 1 / sqrt(fan in); bias 0       tokens, positions, head    normal 0.02; bias 0
 *   in_proj, x_proj, convolution    uniform in +-1/sqrt(fan in)
 *   out_proj        the same over sqrt(layers), so that the residual stream does not grow with depth
 *   dt_proj         uniform in +-1/sqrt(R); its bias such that softplus(bias) is log-uniform in 0.001 .. 0.1
 *   A_log           log(n + 1); 1 where a channel's states decay alike; -20 near the identity      D, norms    1 */
#include "distill/initialise_vim.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "base/thread.h"

#include <math.h>
#include <string.h>

static const double token_std = 0.02;
static const double step_least = 1e-3, step_most = 1e-1, step_floor = 1e-4;
static const double identity_a_log = -20, tied_a_log = 1;

typedef enum draw { DRAW_CONSTANT, DRAW_UNIFORM, DRAW_NORMAL, DRAW_STEPS, DRAW_A_LOG } draw;

/* Softplus of the result is drawn log-uniformly. */
static float draw_step(cab_random *random)
{
    const double u = (double)cab_random_uniform(random);
    double step = exp(u * (log(step_most) - log(step_least)) + log(step_least));
    step = step < step_floor ? step_floor : step;
    return (float)(step + log(-expm1(-step)));
}

/* Number i of a matrix of `columns`. scale: the constant, half the width of the interval, or the standard deviation. */
static float draw_number(draw how, cab_random random, double scale, int64_t i, int64_t columns)
{
    switch (how) {
    case DRAW_UNIFORM:
        return (float)((2.0 * (double)cab_random_uniform(&random) - 1.0) * scale);
    case DRAW_NORMAL:
        return (float)(scale * (double)cab_random_normal(&random));
    case DRAW_STEPS:
        return draw_step(&random);
    case DRAW_A_LOG:
        return (float)log((double)(i % columns + 1));
    default:
        return (float)scale;
    }
}

static cab_status set(const cab_model *student, uint64_t seed, cab_tensor *t, draw how, double scale)
{
    const int64_t n = cab_elements(t), columns = cab_columns(t);
    const cab_random random = {
        .seed = seed, .stream = CAB_STREAM_INIT, .sub = (uint32_t)cab_hash(CAB_HASH_START, t->name, strlen(t->name))};
    float *values = NULL;
    CAB_TRY(CAB_NEW(&values, (size_t)n, t->name));
#pragma omp parallel for num_threads(cab_thread_count()) schedule(static)
    for (int64_t i = 0; i < n; i++)
        values[i] = draw_number(how, cab_random_at(random, (uint64_t)i), scale, i, columns);
    cab_status status = cab_params_write(student->params, t, values);
    cab_free(values);
    return status;
}

static double fan_in(const cab_tensor *t)
{
    return 1.0 / sqrt((double)cab_columns(t));
}

static cab_status set_direction(const cab_model *student, uint64_t seed, const cab_mamba1 *m, bool near_identity)
{
    CAB_TRY(set(student, seed, m->conv_w, DRAW_UNIFORM, fan_in(m->conv_w)));
    CAB_TRY(set(student, seed, m->conv_b, DRAW_UNIFORM, fan_in(m->conv_w)));
    CAB_TRY(set(student, seed, m->x_proj.w, DRAW_UNIFORM, fan_in(m->x_proj.w)));
    CAB_TRY(set(student, seed, m->dt_proj.w, DRAW_UNIFORM, fan_in(m->dt_proj.w)));
    CAB_TRY(set(student, seed, m->dt_bias, DRAW_STEPS, 0));
    CAB_TRY(set(student, seed, m->A_log, near_identity || m->A_log->tied ? DRAW_CONSTANT : DRAW_A_LOG,
                near_identity ? identity_a_log : tied_a_log));
    return set(student, seed, m->D, DRAW_CONSTANT, 1);
}

static cab_status set_layer(const cab_model *student, uint64_t seed, const cab_block *y, bool near_identity)
{
    const cab_vim_mixer *m = &y->vim;
    const double depth = sqrt((double)student->config.n_layer);
    CAB_TRY(set(student, seed, y->norm.w, DRAW_CONSTANT, 1));
    CAB_TRY(set(student, seed, m->in_proj.w, DRAW_UNIFORM, fan_in(m->in_proj.w)));
    CAB_TRY(set_direction(student, seed, &m->forward, near_identity));
    CAB_TRY(set_direction(student, seed, &m->backward, near_identity));
    return set(student, seed, m->out_proj.w, DRAW_UNIFORM, fan_in(m->out_proj.w) / depth);
}

cab_status cab_initialise_vim(cab_model *student, uint64_t seed, bool near_identity)
{
    const cab_network *m = &student->network;
    if (strcmp(student->arch->name, "vim") != 0)
        return cab_fail(CAB_EUNSUPPORTED, "a student of architecture \"%s\" does not start as \"vim\" does",
                        student->arch->name);
    CAB_TRY(set(student, seed, m->patches.w, DRAW_NORMAL, fan_in(m->patches.w)));
    CAB_TRY(set(student, seed, m->patches.b, DRAW_CONSTANT, 0));
    CAB_TRY(set(student, seed, m->special[0], DRAW_NORMAL, token_std));
    CAB_TRY(set(student, seed, m->positions, DRAW_NORMAL, token_std));
    for (int l = 0; l < student->config.n_layer; l++)
        CAB_TRY(set_layer(student, seed, &m->blocks[l], near_identity));
    CAB_TRY(set(student, seed, m->final_norm.w, DRAW_CONSTANT, 1));
    CAB_TRY(set(student, seed, m->head.w, DRAW_NORMAL, token_std));
    return set(student, seed, m->head.b, DRAW_CONSTANT, 0);
}
