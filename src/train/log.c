/* log.c - writing log.jsonl and result.json; log.h has their layout. */
#include "train/log.h"

#include "base/json.h"
#include "base/memory.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static const size_t LOG_MAX = (size_t)1 << 30;

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

/* Adds one value; false when there is no memory for it. */
static bool add(json_object *object, const char *key, json_object *value)
{
    if (value && json_object_object_add(object, key, value) == 0)
        return true;
    json_object_put(value);
    return false;
}

static bool add_real(json_object *object, const char *key, double value)
{
    char text[32];
    if (!isfinite(value))
        return true;
    snprintf(text, sizeof text, "%.9g", value);
    return add(object, key, json_object_new_double_s(value, text));
}

static bool add_whole(json_object *object, const char *key, uint64_t value)
{
    return add(object, key, json_object_new_int64(value > INT64_MAX ? INT64_MAX : (int64_t)value));
}

static bool add_terms(json_object *object, const double terms[CAB_TERM_COUNT])
{
    bool complete = true;
    for (int t = 0; t < CAB_TERM_COUNT; t++)
        complete = complete && add_real(object, cab_term_name((cab_term_id)t), terms[t]);
    return complete;
}

/* Tokens count under "tokens"; images under "images" too. */
static bool add_count(json_object *object, const char *unit, uint64_t count)
{
    return strcmp(unit, "tokens") == 0 || add_whole(object, unit, count);
}

/* "tokens_per_s", "images_per_second" ... */
static bool add_rate(json_object *object, const char *unit, const char *time, double rate)
{
    char key[64];
    snprintf(key, sizeof key, "%s_per_%s", unit, time);
    return add_real(object, key, rate);
}

static bool add_ranks(json_object *object, double top1, double top5)
{
    return add_real(object, "top1", top1) && add_real(object, "top5", top5);
}

static bool add_text(json_object *object, const char *key, const char *value)
{
    return !value || add(object, key, cab_json_text(value));
}

static bool add_tasks(json_object *object, json_object *tasks)
{
    return tasks == NULL || add(object, "tasks", json_object_get(tasks));
}

static const char *text_of(json_object *object, int style)
{
    return json_object_to_json_string_ext(object, style | JSON_C_TO_STRING_NOSLASHESCAPE);
}

/* ---- log.jsonl -------------------------------------------------------------------------------------------------- */

/* Whether a line of an earlier run belongs before `step`: complete, readable, of that step at the latest, and not the
 * evaluation at the end. */
static bool keep_line(const char *line, size_t length, uint64_t step, bool last)
{
    cab_json json;
    int64_t of_line;
    bool evaluation = false;
    if (cab_json_parse(line, length, CAB_RUN_LOG, &json) != CAB_OK)
        return false;
    bool keep = cab_json_int(&json, NULL, "step", 0, INT64_MAX, &of_line) == CAB_OK && (uint64_t)of_line <= step &&
                cab_json_bool_or(&json, NULL, "eval", false, &evaluation) == CAB_OK;
    cab_json_close(&json);
    return keep && !(last && evaluation && (uint64_t)of_line == step);
}

static cab_status drop_later_lines(const char *path, uint64_t step, bool last)
{
    char *text;
    size_t size;
    cab_writer writer;
    cab_status status = CAB_OK;
    CAB_TRY(cab_file_read_text(path, LOG_MAX, &text, &size));
    status = cab_writer_open(&writer, path);
    if (status != CAB_OK) {
        cab_free(text);
        return status;
    }
    for (char *line = text, *end; (end = memchr(line, '\n', size - (size_t)(line - text))); line = end + 1) {
        if (keep_line(line, (size_t)(end - line), step, last))
            CAB_GOTO(cab_writer_write(&writer, line, (size_t)(end - line) + 1));
    }
    status = cab_writer_commit(&writer);
    cab_free(text);
    return status;
done:
    cab_writer_abort(&writer);
    cab_free(text);
    return status;
}

cab_status cab_run_log_open(cab_run_log *log, const char *directory, uint64_t step, bool last)
{
    *log = (cab_run_log){0};
    CAB_TRY(cab_path_join(log->path, directory, CAB_RUN_LOG));
    if (step > 0 && cab_path_exists(log->path))
        CAB_TRY(drop_later_lines(log->path, step, last));
    return cab_file_append(log->path, step > 0, &log->stream);
}

/* Writes the object as one line and frees it. */
static cab_status put_line(cab_run_log *log, json_object *object, bool complete)
{
    const char *text = complete ? text_of(object, JSON_C_TO_STRING_PLAIN) : NULL;
    cab_status status = CAB_OK;
    if (!text)
        status = cab_fail(CAB_ENOMEM, "%s: not enough memory for a line", log->path);
    else if (fprintf(log->stream, "%s\n", text) < 0 || fflush(log->stream) != 0)
        status = cab_fail_errno(CAB_EIO, errno, "%s: cannot be written", log->path);
    json_object_put(object);
    return status;
}

cab_status cab_run_log_step(cab_run_log *log, const cab_run_step *step)
{
    json_object *line = json_object_new_object();
    bool complete = line && add_whole(line, "step", step->step) && add_whole(line, "tokens", step->tokens) &&
                    add_text(line, "stage", step->stage) && add_real(line, "loss", step->loss) &&
                    add_terms(line, step->terms) && add_real(line, "lr", step->lr) &&
                    add_real(line, "grad_norm", step->grad_norm) && add_count(line, step->unit, step->tokens) &&
                    add_rate(line, step->unit, "s", step->tokens_per_s) && add_real(line, "seconds", step->seconds);
    return put_line(log, line, complete);
}

cab_status cab_run_log_eval(cab_run_log *log, const cab_run_eval *eval)
{
    json_object *line = json_object_new_object();
    bool complete = line && add(line, "eval", json_object_new_boolean(1)) && add_whole(line, "step", eval->step) &&
                    add_whole(line, "tokens", eval->tokens) && add_real(line, "loss", eval->loss) &&
                    add_real(line, "perplexity", eval->perplexity) && add_real(line, "kl", eval->kl) &&
                    add_real(line, "agreement", eval->agreement) && add_ranks(line, eval->top1, eval->top5) &&
                    add_count(line, eval->unit, eval->tokens) && add_tasks(line, eval->tasks) &&
                    add_real(line, "seconds", eval->seconds);
    return put_line(log, line, complete);
}

void cab_run_log_close(cab_run_log *log)
{
    if (log->stream)
        fclose(log->stream); /* every line is flushed and checked */
    log->stream = NULL;
}

/* ---- result.json ------------------------------------------------------------------------------------------------ */

/* "time": {"loader": 0.01, "host": 0.02, "device": 0.97} */
static bool add_shares(json_object *object, const cab_run_spent *spent)
{
    if (!(spent->steps > 0))
        return true;
    json_object *time = json_object_new_object();
    return time && add(object, "time", time) && add_real(time, "loader", spent->loader / spent->steps) &&
           add_real(time, "host", (spent->steps - spent->loader - spent->device) / spent->steps) &&
           add_real(time, "device", spent->device / spent->steps);
}

cab_status cab_run_summary_write(const char *directory, const cab_run_summary *summary)
{
    const cab_result *result = &summary->result;
    char path[CAB_PATH_MAX];
    CAB_TRY(cab_path_join(path, directory, CAB_RUN_RESULT));
    json_object *object = json_object_new_object();
    bool complete =
        object && add_text(object, "method", summary->method) && add_text(object, "teacher", summary->teacher) &&
        add_text(object, "student", summary->student) && add_real(object, "loss", result->loss) &&
        add_real(object, "perplexity", result->perplexity) && add_real(object, "kl", result->kl) &&
        add_real(object, "agreement", result->agreement) &&
        add_real(object, "teacher_perplexity", summary->teacher_perplexity) &&
        add_ranks(object, result->top1, result->top5) && add_real(object, "teacher_top1", summary->teacher_top1) &&
        add_real(object, "teacher_top5", summary->teacher_top5) &&
        (summary->teacher_parameters == 0 || add_whole(object, "teacher_parameters", summary->teacher_parameters)) &&
        add_count(object, summary->unit, result->tokens) &&
        add_rate(object, summary->unit, "second", result->tokens_per_second) && add_shares(object, &summary->spent) &&
        add_real(object, "seconds", result->seconds) && add_real(object, "peak_memory", result->peak_memory) &&
        add_whole(object, "tokens", result->tokens) && add_whole(object, "steps", result->steps) &&
        add_whole(object, "parameters", summary->parameters) && add_real(object, "fraction", summary->fraction) &&
        add_whole(object, "seed", summary->seed) && add_text(object, "sample", summary->sample) &&
        add_tasks(object, summary->tasks);
    const char *text = complete ? text_of(object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED) : NULL;
    cab_status status = text ? cab_file_write(path, text, strlen(text))
                             : cab_fail(CAB_ENOMEM, "%s: not enough memory to write it", path);
    json_object_put(object);
    return status;
}
