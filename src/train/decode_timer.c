/* decode_timer.c - the same graph at growing positions, each measured over a few steps. */
#include "train/decode_timer.h"

#include "base/log.h"
#include "base/memory.h"
#include "distill/students.h"
#include "models/synthetic.h"
#include "ops/backends.h"
#include "train/decode.h"
#include "train/limits.h"

#include <inttypes.h>

enum { WARM = 3, MAX_POSITIONS = 64 };

typedef struct timer {
    const cab_decode_timer_options *o;
    FILE *out;
    int64_t positions[MAX_POSITIONS];
    unsigned n_positions;
    cab_backend *backend;
    cab_model *teacher, *student;
    double copy; /* bytes per second */
    int32_t *prompt, *tokens;
    cab_decode_row *rows;
} timer;

static cab_status open_one(const timer *t, const char *directory, const char *config, cab_model **model)
{
    if (directory != NULL)
        CAB_TRY(cab_model_open(directory, t->backend, t->o->precision, false, model));
    else
        CAB_TRY(cab_model_synthetic(config, 0, t->backend, t->o->precision, false, model));
    return CAB_OK;
}

static cab_status decode_timer_open_models(timer *t)
{
    const cab_decode_timer_options *o = t->o;
    CAB_TRY(cab_backend_open(o->device, &t->backend));
    if (o->teacher != NULL || o->teacher_config != NULL)
        CAB_TRY(open_one(t, o->teacher, o->teacher_config, &t->teacher));
    if (o->student != NULL || o->student_config != NULL)
        CAB_TRY(open_one(t, o->student, o->student_config, &t->student));
    else if (t->teacher != NULL)
        CAB_TRY(cab_student_synthetic(t->teacher, o->n_layer, false, &t->student));
    else
        return cab_fail(CAB_EARG, "there is neither a teacher nor a student to time");
    return cab_copy_limit(t->backend, &t->copy);
}

/* A batch of one-token prompts, all different as far as the vocabulary goes. */
static cab_status make_rows(timer *t, const cab_model *model, int64_t batch)
{
    cab_free(t->prompt);
    cab_free(t->tokens);
    cab_free(t->rows);
    t->prompt = t->tokens = NULL;
    t->rows = NULL;
    CAB_TRY(CAB_NEW(&t->prompt, (size_t)batch, "prompts"));
    CAB_TRY(CAB_NEW(&t->tokens, (size_t)batch, "prompts"));
    CAB_TRY(CAB_NEW(&t->rows, (size_t)batch, "prompts"));
    for (int64_t b = 0; b < batch; b++) {
        t->prompt[b] = (int32_t)(b % model->config.vocab_size);
        t->rows[b] = (cab_decode_row){&t->prompt[b], 1, 0};
    }
    return CAB_OK;
}

static cab_status steps(const timer *t, cab_decode *d, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        CAB_TRY(cab_decode_step(d));
        CAB_TRY(cab_decode_tokens(d, t->tokens));
    }
    return CAB_OK;
}

/* Brings the decoder to where the measurement that ends at `end` begins, warm. */
static cab_status approach(const timer *t, cab_decode *d, bool bounded, int64_t end)
{
    const int64_t first = end > t->o->steps ? end - t->o->steps : 0;
    if (!bounded)
        return steps(t, d, first - cab_decode_position(d));
    CAB_TRY(cab_decode_seek(d, (int32_t)(first > WARM ? first - WARM : 0)));
    CAB_TRY(steps(t, d, WARM));
    return cab_decode_seek(d, (int32_t)first);
}

static void print_row(const timer *t, const cab_model *model, const cab_decode *d, int64_t batch, double seconds)
{
    char state[CAB_FORMAT_MAX];
    const cab_decode_traffic traffic = cab_decode_traffic_of(d);
    fprintf(t->out, "  %-10s %6" PRId64 " %9d %12.0f %10.3f %12s %9.1f%%\n", model->arch->name, batch,
            cab_decode_position(d), (double)batch / seconds, seconds * 1e3, cab_format_bytes(traffic.state, state),
            100 * (traffic.weights + traffic.moved) / seconds / t->copy);
}

/* One decoder through all positions, which rise. */
static cab_status time_positions(const timer *t, const cab_model *model, cab_decode *d, int64_t batch)
{
    const cab_decode_timer_options *o = t->o;
    const bool bounded = cab_network_bounded(&model->network);
    CAB_TRY(steps(t, d, WARM)); /* the third is the first that a GPU replays */
    CAB_TRY(cab_decode_seek(d, 0));
    for (unsigned i = 0; i < t->n_positions; i++) {
        if (bounded && t->positions[i] > model->network.step_length) {
            fprintf(t->out, "  %-10s %6" PRId64 " %9" PRId64 "   beyond its context of %" PRId64 "\n",
                    model->arch->name, batch, t->positions[i], model->network.step_length);
            break;
        }
        CAB_TRY(approach(t, d, bounded, t->positions[i]));
        const double started = cab_seconds();
        CAB_TRY(steps(t, d, o->steps));
        print_row(t, model, d, batch, (cab_seconds() - started) / o->steps);
    }
    return CAB_OK;
}

static cab_status time_batch(timer *t, const cab_model *model, int64_t batch)
{
    const cab_sampling most_likely = {0};
    cab_decode *d = NULL;
    CAB_TRY(make_rows(t, model, batch));
    cab_status status = cab_decode_new(model, t->rows, batch, &most_likely, &d);
    if (status == CAB_OK)
        status = time_positions(t, model, d, batch);
    cab_decode_free(d);
    if (status != CAB_ENOMEM)
        return status;
    fprintf(t->out, "  %-10s %6" PRId64 "   does not fit: %s\n", model->arch->name, batch, cab_error_text());
    return CAB_OK;
}

/* Adds a position unless its measurement would begin before the last one ended. */
static bool add_position(timer *t, int64_t position)
{
    const int steps = t->o->steps;
    if (t->n_positions > 0) {
        const int64_t last = t->positions[t->n_positions - 1], ended = last > steps ? last : steps;
        if (position < ended + steps)
            return false;
    }
    t->positions[t->n_positions++] = position;
    return true;
}

/* The start, the context's end and twice as far, and two that are the same for all models. */
static void usual_positions(timer *t)
{
    const int64_t context = (t->teacher != NULL ? t->teacher : t->student)->config.max_length;
    const int64_t usual[] = {0, context, 2 * context, 1024, 4096};
    int64_t last = -1;
    for (int n = 0; n < 5; n++) {
        int64_t next = INT64_MAX;
        for (int i = 0; i < 5; i++)
            next = usual[i] > last && usual[i] < next ? usual[i] : next;
        if (next < INT64_MAX)
            (void)add_position(t, next);
        last = next;
    }
}

static cab_status choose_positions(timer *t)
{
    const cab_decode_timer_options *o = t->o;
    if (o->n_positions == 0)
        usual_positions(t);
    if (o->n_positions > MAX_POSITIONS)
        return cab_fail(CAB_EARG, "%u positions, at most %d are possible", o->n_positions, MAX_POSITIONS);
    for (unsigned i = 0; i < o->n_positions; i++) {
        if (o->positions[i] < 0 || o->positions[i] > INT32_MAX)
            return cab_fail(CAB_EARG, "length: found %" PRId64 ", expected 0 to %d", o->positions[i], INT32_MAX);
        if (!add_position(t, o->positions[i]))
            return cab_fail(CAB_EARG, "position %" PRId64 " is not %d steps behind the one before", o->positions[i],
                            o->steps);
    }
    return CAB_OK;
}

static cab_status check_batches(const cab_decode_timer_options *o)
{
    for (unsigned i = 0; i < o->n_batches; i++)
        if (o->batches[i] < 1 || o->batches[i] > 1 << 20)
            return cab_fail(CAB_EARG, "batch: found %" PRId64 ", expected 1 to %d", o->batches[i], 1 << 20);
    return CAB_OK;
}

static cab_status time_all(timer *t)
{
    const cab_decode_timer_options *o = t->o;
    const cab_model *const models[] = {t->student, t->teacher};
    char rate[CAB_FORMAT_MAX];
    fprintf(t->out, "decoding, %s, %s, %d steps each; a copy moves %s/s\n",
            o->precision == CAB_PRECISION_BF16 ? "bf16" : "fp32", t->backend->name, o->steps,
            cab_format_bytes(t->copy, rate));
    for (int i = 0; i < 2; i++)
        if (models[i] != NULL)
            fprintf(t->out, "  %-10s %.1f M, %d layers\n", models[i]->arch->name,
                    (double)cab_model_parameters(models[i]) * 1e-6, models[i]->config.n_layer);
    fprintf(t->out, "  %-10s %6s %9s %12s %10s %12s %10s\n", "model", "batch", "position", "tokens/s", "ms/step",
            "state", "of copy");
    for (int i = 0; i < 2; i++)
        for (unsigned k = 0; models[i] != NULL && k < o->n_batches; k++)
            CAB_TRY(time_batch(t, models[i], o->batches[k]));
    return CAB_OK;
}

cab_status cab_decode_time(const cab_decode_timer_options *options, FILE *out)
{
    timer t = {.o = options, .out = out};
    cab_status status;
    CAB_GOTO(check_batches(options));
    CAB_GOTO(decode_timer_open_models(&t));
    CAB_GOTO(choose_positions(&t));
    status = time_all(&t);
done:
    cab_free(t.prompt);
    cab_free(t.tokens);
    cab_free(t.rows);
    cab_model_free(t.student);
    cab_model_free(t.teacher);
    cab_backend_close(t.backend);
    return status;
}
