/* rope.c - what configurations say of rotary embeddings, and of what lets them reach further (nn/context.h has the formulas).
 *
 * Until transformers 5: rope_theta and partial_rotary_factor at the top level, "rope_scaling" with "rope_type", which was
 * "type" before. Since then: all of it in "rope_parameters". */
#include "models/rope.h"

#include "models/sizes.h"

#include <math.h>
#include <string.h>

/* The key at the top level goes before that of the object, as in transformers. */
static cab_status parse_length(const cab_json *json, json_object *rope, cab_config *c)
{
    static const char key[] = "original_max_position_embeddings";
    int64_t original;
    CAB_TRY(cab_json_int_or(json, rope, key, 1, 1 << 24, c->max_length, &original));
    CAB_TRY(cab_json_int_or(json, NULL, key, 1, 1 << 24, original, &original));
    c->rope.original = (int)original;
    return CAB_OK;
}

static cab_status parse_yarn(const cab_json *json, json_object *rope, cab_config *c)
{
    static const cab_setting only[] = {
        {"mscale", "null"}, {"mscale_all_dim", "null"}, {"truncate", "true"}, {NULL, NULL}};
    CAB_TRY(cab_settings_check(json, rope, (const cab_setting *const[]){only, NULL}, false));
    CAB_TRY(parse_length(json, rope, c));
    CAB_TRY(cab_positive_parse(json, rope, "beta_slow", 1, &c->rope.low));
    CAB_TRY(cab_positive_parse(json, rope, "beta_fast", 32, &c->rope.high));
    return cab_positive_parse(json, rope, "attention_factor", c->rope.factor > 1 ? 0.1 * log(c->rope.factor) + 1 : 1,
                              &c->rope.scale);
}

static cab_status parse_llama3(const cab_json *json, json_object *rope, cab_config *c)
{
    CAB_TRY(parse_length(json, rope, c));
    CAB_TRY(cab_positive_parse(json, rope, "low_freq_factor", 1, &c->rope.low));
    CAB_TRY(cab_positive_parse(json, rope, "high_freq_factor", 4, &c->rope.high));
    if (c->rope.high <= c->rope.low)
        return cab_fail(CAB_EFORMAT, "%s: high_freq_factor %g is not above low_freq_factor %g", json->name,
                        c->rope.high, c->rope.low);
    return CAB_OK;
}

/* A factor for each pair of rotated features, in the object's key. */
static cab_status parse_factors(const cab_json *json, json_object *rope, const char *key, float *out, int *count)
{
    json_object *list = NULL;
    CAB_TRY(cab_json_array(json, rope, key, &list));
    const size_t n = json_object_array_length(list);
    if (n < 1 || n > CAB_PAIRS_MAX)
        return cab_fail(CAB_ESHAPE, "%s: \"%s\" has %zu entries, expected 1 to %d", json->name, key, n, CAB_PAIRS_MAX);
    for (size_t i = 0; i < n; i++) {
        json_object *entry = json_object_array_get_idx(list, i);
        const bool number = json_object_is_type(entry, json_type_double) || json_object_is_type(entry, json_type_int);
        out[i] = number ? (float)json_object_get_double(entry) : 0;
        if (!(out[i] > 0) || !isfinite(out[i]))
            return cab_fail(CAB_EFORMAT, "%s: \"%s\"[%zu] is %.40s, expected a positive number", json->name, key, i,
                            json_object_to_json_string(entry));
    }
    if (*count > 0 && *count != (int)n)
        return cab_fail(CAB_ESHAPE, "%s: \"short_factor\" has %d entries, \"long_factor\" %zu", json->name, *count, n);
    *count = (int)n;
    return CAB_OK;
}

static cab_status parse_longrope(const cab_json *json, json_object *rope, cab_config *c)
{
    static const cab_setting only[] = {{"short_mscale", "null"}, {"long_mscale", "null"}, {NULL, NULL}};
    int count = 0;
    double factor;
    CAB_TRY(cab_settings_check(json, rope, (const cab_setting *const[]){only, NULL}, false));
    CAB_TRY(parse_length(json, rope, c));
    CAB_TRY(cab_positive_parse(json, rope, "factor", (double)c->max_length / c->rope.original, &factor));
    CAB_TRY(cab_positive_parse(json, rope, "attention_factor",
                               factor > 1 && c->rope.original > 1 ? sqrt(1 + log(factor) / log(c->rope.original)) : 1,
                               &c->rope.scale));
    CAB_TRY(parse_factors(json, rope, "short_factor", c->rope_factors[0], &count));
    return parse_factors(json, rope, "long_factor", c->rope_factors[1], &count);
}

/* longrope was "su" at first, and "yarn" in some of the files of Phi 3. */
static bool is_longrope(const char *type, json_object *rope)
{
    return strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0 ||
           (strcmp(type, "yarn") == 0 && json_object_object_get_ex(rope, "short_factor", NULL));
}

/* The kind of one object, rope_parameters or rope_scaling, whose type was "type" before it was "rope_type". */
static cab_status parse_kind(const cab_json *json, json_object *rope, cab_config *c)
{
    const char *type = NULL;
    CAB_TRY(cab_json_string_or(json, rope, "type", "default", &type));
    CAB_TRY(cab_json_string_or(json, rope, "rope_type", type, &type));
    if (strcmp(type, "default") == 0 || strcmp(type, "dynamic") == 0)
        return CAB_OK;
    if (is_longrope(type, rope)) {
        c->rope.kind = CAB_ROPE_LONGROPE;
        return parse_longrope(json, rope, c);
    }
    c->rope.kind = strcmp(type, "linear") == 0   ? CAB_ROPE_LINEAR
                   : strcmp(type, "llama3") == 0 ? CAB_ROPE_LLAMA3
                   : strcmp(type, "yarn") == 0   ? CAB_ROPE_YARN
                                                 : CAB_ROPE_DEFAULT;
    if (c->rope.kind == CAB_ROPE_DEFAULT)
        return cab_fail(CAB_EUNSUPPORTED,
                        "%s: rope_type is \"%s\"; supported are default, linear, dynamic, llama3, yarn and longrope",
                        json->name, type);
    CAB_TRY(cab_json_number(json, rope, "factor", &c->rope.factor));
    CAB_TRY(cab_positive_parse(json, rope, "factor", 1, &c->rope.factor));
    return c->rope.kind == CAB_ROPE_LLAMA3 ? parse_llama3(json, rope, c)
           : c->rope.kind == CAB_ROPE_YARN ? parse_yarn(json, rope, c)
                                           : CAB_OK;
}

/* Which of a head's features are rotated. */
static cab_status set_rotated(const cab_json *json, double partial, cab_config *c)
{
    c->rope.dim = partial <= 1 ? (int)(partial * c->head_dim) / 2 * 2 : 0;
    if (c->rope.dim < 2)
        return cab_fail(CAB_ESHAPE,
                        "%s: partial_rotary_factor %g of head width %d leaves nothing to rotate or too much",
                        json->name, partial, c->head_dim);
    int pairs = 0;
    while (pairs < CAB_PAIRS_MAX && c->rope_factors[0][pairs] > 0)
        pairs++;
    if (c->rope.kind == CAB_ROPE_LONGROPE && pairs != c->rope.dim / 2)
        return cab_fail(CAB_ESHAPE, "%s: \"short_factor\" and \"long_factor\" have %d entries, expected %d", json->name,
                        pairs, c->rope.dim / 2);
    return CAB_OK;
}

cab_status cab_rope_parse(const cab_json *json, double theta, double partial, cab_config *c)
{
    static const char *const objects[] = {"rope_scaling", "rope_parameters"};
    json_object *rope = NULL;
    CAB_TRY(cab_positive_parse(json, NULL, "partial_rotary_factor", partial, &partial));
    CAB_TRY(cab_positive_parse(json, NULL, "rope_theta", theta, &c->rope.theta));
    for (int i = 0; i < 2; i++) {
        if (!json_object_object_get_ex(json->root, objects[i], &rope) || rope == NULL)
            continue;
        CAB_TRY(cab_json_object(json, NULL, objects[i], &rope));
        CAB_TRY(cab_positive_parse(json, rope, "partial_rotary_factor", partial, &partial));
        CAB_TRY(cab_positive_parse(json, rope, "rope_theta", c->rope.theta, &c->rope.theta));
        CAB_TRY(parse_kind(json, rope, c));
    }
    return set_rotated(json, partial, c);
}

cab_status cab_rope_whole_parse(const cab_json *json, double theta, cab_config *c)
{
    CAB_TRY(cab_rope_parse(json, theta, 1, c));
    if (c->rope.dim == c->head_dim)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: partial_rotary_factor leaves %d features of %d to rotate; only all are supported", json->name,
                    c->rope.dim, c->head_dim);
}

static void add_number(json_object *json, const char *key, double value)
{
    json_object_object_add(json, key, json_object_new_double(value));
}

static void add_factors(json_object *json, const char *key, const float *factors, int n)
{
    json_object *list = json_object_new_array();
    for (int i = 0; i < n; i++)
        json_object_array_add(list, json_object_new_double((double)factors[i]));
    json_object_object_add(json, key, list);
}

/* What lets it reach further, beside the type. */
static void describe_kind(const cab_config *c, json_object *json)
{
    const cab_rope *rope = &c->rope;
    if (rope->kind != CAB_ROPE_LONGROPE)
        add_number(json, "factor", rope->factor);
    if (rope->kind != CAB_ROPE_LINEAR)
        json_object_object_add(json, "original_max_position_embeddings", json_object_new_int(rope->original));
    if (rope->kind == CAB_ROPE_LLAMA3 || rope->kind == CAB_ROPE_YARN) {
        add_number(json, rope->kind == CAB_ROPE_LLAMA3 ? "low_freq_factor" : "beta_slow", rope->low);
        add_number(json, rope->kind == CAB_ROPE_LLAMA3 ? "high_freq_factor" : "beta_fast", rope->high);
    }
    if (rope->kind == CAB_ROPE_YARN || rope->kind == CAB_ROPE_LONGROPE)
        add_number(json, "attention_factor", rope->scale);
    if (rope->kind == CAB_ROPE_LONGROPE) {
        add_factors(json, "short_factor", c->rope_factors[0], rope->dim / 2);
        add_factors(json, "long_factor", c->rope_factors[1], rope->dim / 2);
    }
}

void cab_rope_describe(const cab_config *c, json_object *json)
{
    static const char *const types[] = {[CAB_ROPE_DEFAULT] = "default",
                                        [CAB_ROPE_LINEAR] = "linear",
                                        [CAB_ROPE_LLAMA3] = "llama3",
                                        [CAB_ROPE_YARN] = "yarn",
                                        [CAB_ROPE_LONGROPE] = "longrope"};
    if (c->rope.dim == 0)
        return;
    json_object *rope = json_object_new_object();
    json_object_object_add(rope, "rope_type", json_object_new_string(types[c->rope.kind]));
    add_number(rope, "rope_theta", c->rope.theta);
    if (c->rope.dim !=
        c->head_dim) /* the half keeps the quotient from being rounded down when it is multiplied again */
        add_number(rope, "partial_rotary_factor", (c->rope.dim + 0.5) / c->head_dim);
    if (c->rope.kind != CAB_ROPE_DEFAULT)
        describe_kind(c, rope);
    add_number(json, "rope_theta", c->rope.theta);
    json_object_object_add(json, "rope_scaling", c->rope.kind == CAB_ROPE_DEFAULT ? NULL : json_object_get(rope));
    json_object_object_add(json, "rope_parameters", rope);
}

/* One kind of layers' object of rope_parameters. */
static cab_status parse_layers(const cab_json *json, json_object *all, const char *kind, double theta, cab_config *c)
{
    json_object *rope = NULL;
    double partial = 1;
    c->rope = (cab_rope){0};
    CAB_TRY(cab_json_object(json, all, kind, &rope));
    CAB_TRY(cab_positive_parse(json, rope, "partial_rotary_factor", 1, &partial));
    CAB_TRY(cab_positive_parse(json, rope, "rope_theta", theta, &c->rope.theta));
    CAB_TRY(parse_kind(json, rope, c));
    return set_rotated(json, partial, c);
}

cab_status cab_rope_layers_parse(const cab_json *json, double theta, double local_theta, cab_config *c)
{
    json_object *all = NULL;
    CAB_TRY(cab_positive_parse(json, NULL, "rope_theta", theta, &theta));
    CAB_TRY(cab_positive_parse(json, NULL, "rope_local_base_freq", local_theta, &local_theta));
    if (!json_object_object_get_ex(json->root, "rope_parameters", &all) || all == NULL) {
        CAB_TRY(cab_rope_parse(json, theta, 1, c));
        c->local_rope = (cab_rope){.theta = local_theta, .dim = c->rope.dim};
        return CAB_OK;
    }
    CAB_TRY(cab_json_object(json, NULL, "rope_parameters", &all));
    CAB_TRY(parse_layers(json, all, "sliding_attention", local_theta, c));
    c->local_rope = c->rope;
    return parse_layers(json, all, "full_attention", theta, c);
}
