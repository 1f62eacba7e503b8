#include "models/state_space.h"

#include "models/sizes.h"

#include <math.h>
#include <string.h>

static const cab_size sizes[] = {CAB_SIZE("mamba_d_state", d_state, 1024, 256),
                                 CAB_SIZE("mamba_n_heads", n_state_head, 1 << 16, 128),
                                 CAB_SIZE("mamba_n_groups", n_group, 1 << 16, 1),
                                 CAB_SIZE("mamba_d_conv", d_conv, 16, 4),
                                 {0}};

const cab_setting cab_settings_mamba2[] = {
    {"mamba_chunk_size", NULL}, {"mamba_conv_bias", NULL}, {"mamba_d_conv", NULL},
    {"mamba_d_head", NULL},     {"mamba_d_state", NULL},   {"mamba_expand", NULL},
    {"mamba_n_groups", NULL},   {"mamba_n_heads", NULL},   {"mamba_proj_bias", NULL},
    {"time_step_floor", NULL},  {"time_step_limit", NULL}, {"time_step_max", NULL},
    {"time_step_rank", NULL},   {"time_step_min", NULL},   {NULL, NULL}};

enum { INNER_MAX = 1 << 18 };

cab_status cab_size_or_auto(const cab_json *json, const char *key, int64_t most, int64_t *out)
{
    json_object *value = NULL;
    *out = 0;
    if (json_object_object_get_ex(json->root, key, &value) && json_object_is_type(value, json_type_string) &&
        strcmp(json_object_get_string(value), "auto") == 0)
        return CAB_OK;
    return cab_json_int_or(json, NULL, key, 1, most, 0, out);
}

/* Infinity as JSON does not know it, and as transformers 5 writes it. */
static bool is_infinity(json_object *value)
{
    json_object *text = NULL;
    if (json_object_is_type(value, json_type_double))
        return isinf(json_object_get_double(value)) && json_object_get_double(value) > 0;
    return json_object_is_type(value, json_type_object) && json_object_object_get_ex(value, "__float__", &text) &&
           json_object_is_type(text, json_type_string) && strcmp(json_object_get_string(text), "Infinity") == 0;
}

cab_status cab_time_step_check(const cab_json *json)
{
    json_object *limit = NULL;
    if (!json_object_object_get_ex(json->root, "time_step_limit", &limit) || limit == NULL)
        return CAB_OK;
    CAB_TRY(cab_json_array(json, NULL, "time_step_limit", &limit));
    if (json_object_array_length(limit) == 2) {
        json_object *low = json_object_array_get_idx(limit, 0);
        const bool number = json_object_is_type(low, json_type_int) || json_object_is_type(low, json_type_double);
        if (number && json_object_get_double(low) == 0 && is_infinity(json_object_array_get_idx(limit, 1)))
            return CAB_OK;
    }
    return cab_fail(CAB_EUNSUPPORTED, "%s: \"time_step_limit\" is %.80s; only [0.0, Infinity] is supported", json->name,
                    json_object_to_json_string_ext(limit, JSON_C_TO_STRING_PLAIN));
}

cab_status cab_mamba2_check(const cab_json *json, int64_t width, const cab_config *c)
{
    if (c->d_inner % c->n_state_head != 0 || c->n_state_head % c->n_group != 0)
        return cab_fail(CAB_ESHAPE, "%s: an inner width of %d, %d state-space heads and %d groups do not divide",
                        json->name, c->d_inner, c->n_state_head, c->n_group);
    if (width > 0 && width * c->n_state_head != c->d_inner)
        return cab_fail(CAB_ESHAPE, "%s: %d state-space heads of width %lld are not the inner width of %d", json->name,
                        c->n_state_head, (long long)width, c->d_inner);
    return CAB_OK;
}

cab_status cab_mamba2_parse(const cab_json *json, int64_t inner, cab_config *c)
{
    int64_t expand, width;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "mamba_expand", 1, 16, 2, &expand));
    CAB_TRY(cab_size_or_auto(json, "mamba_d_head", INNER_MAX, &width));
    CAB_TRY(cab_json_bool_or(json, NULL, "mamba_conv_bias", true, &c->conv_bias));
    CAB_TRY(cab_json_bool_or(json, NULL, "mamba_proj_bias", false, &c->in_bias));
    CAB_TRY(cab_time_step_check(json));
    c->d_inner = (int)(inner > 0 ? inner : expand * c->d_model);
    return cab_mamba2_check(json, width, c);
}

void cab_mamba2_describe(const cab_config *c, json_object *json)
{
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "mamba_d_head", json_object_new_int(c->d_inner / c->n_state_head));
    json_object_object_add(json, "mamba_expand",
                           json_object_new_int(c->d_inner < c->d_model ? 1 : c->d_inner / c->d_model));
    json_object_object_add(json, "mamba_conv_bias", json_object_new_boolean(c->conv_bias));
    json_object_object_add(json, "mamba_proj_bias", json_object_new_boolean(c->in_bias));
}

cab_status cab_mixers_parse(const cab_json *json, cab_config *c)
{
    const char *key = "layer_types";
    json_object *types = NULL;
    if (!json_object_object_get_ex(json->root, key, &types) || types == NULL)
        key = "layers_block_type";
    if (!json_object_object_get_ex(json->root, key, &types) || types == NULL) {
        for (int l = 0; l < c->n_layer; l++)
            c->layer_kinds[l] |= CAB_LAYER_STATE_SPACE;
        return CAB_OK;
    }
    CAB_TRY(cab_json_array(json, NULL, key, &types));
    if (json_object_array_length(types) != (size_t)c->n_layer)
        return cab_fail(CAB_EFORMAT, "%s: \"%s\" has %zu entries, num_hidden_layers is %d", json->name, key,
                        json_object_array_length(types), c->n_layer);
    for (int l = 0; l < c->n_layer; l++) {
        json_object *item = json_object_array_get_idx(types, (size_t)l);
        const char *type = json_object_is_type(item, json_type_string) ? json_object_get_string(item) : "";
        const bool attends = strcmp(type, "attention") == 0 || strcmp(type, "full_attention") == 0;
        if (!attends && strcmp(type, "mamba") != 0 && strcmp(type, "linear_attention") != 0)
            return cab_fail(CAB_EUNSUPPORTED, "%s: %s[%d] is \"%.40s\"; supported are mamba and attention", json->name,
                            key, l, type);
        c->layer_kinds[l] |= attends ? 0 : CAB_LAYER_STATE_SPACE;
    }
    return CAB_OK;
}

void cab_mixers_describe(const cab_config *c, json_object *json)
{
    json_object *types = json_object_new_array();
    for (int l = 0; l < c->n_layer; l++)
        json_object_array_add(
            types, json_object_new_string(c->layer_kinds[l] & CAB_LAYER_STATE_SPACE ? "mamba" : "attention"));
    json_object_object_add(json, "layer_types", types);
}

/* Heads of dt. */
static int64_t steps_of(const cab_config *c)
{
    return c->both_ways && !c->shared_decay ? 2 * (int64_t)c->n_state_head : c->n_state_head;
}

static cab_status build_projections(cab_builder *b, const cab_config *c, const char *name, cab_mamba2 *m)
{
    const cab_multipliers *k = &c->multipliers;
    const int64_t E = c->d_inner, groups = (int64_t)c->n_group * c->d_state;
    const int64_t rows[5] = {E, E, groups, groups, steps_of(c)};
    cab_multiplied_rows parts[5];
    char part[CAB_NAME_MAX];
    for (int i = 0; i < 5; i++)
        parts[i] = (cab_multiplied_rows){rows[i], k->state_parts[i] > 0 ? k->state_parts[i] : 1};
    snprintf(part, sizeof part, "%s.in_proj", name);
    CAB_TRY(cab_builder_multiplied_dense(b, &m->in_proj, c->d_model, c->in_bias, part,
                                         k->state_in > 0 ? k->state_in : 1, 5, parts));
    snprintf(part, sizeof part, "%s.out_proj", name);
    return cab_builder_dense_times(b, &m->out_proj, E, c->d_model, c->out_bias, 1, k->state_out, part);
}

cab_status cab_mamba2_build(cab_builder *b, const cab_config *c, const char *name, cab_mamba2 *m)
{
    const int64_t H = c->n_state_head, steps = steps_of(c);
    const int64_t channels = c->d_inner + 2 * (int64_t)c->n_group * c->d_state;
    const int64_t filter[3] = {channels, 1, c->d_conv}, square[4] = {channels, 1, c->grid_conv, c->grid_conv};
    char norm[CAB_NAME_MAX];
    m->d_inner = c->d_inner;
    m->n_head = c->n_state_head;
    m->n_group = c->n_group;
    m->d_state = c->d_state;
    m->norm_first = c->norm_first;
    m->input_scale = (float)c->input_scale;
    m->both = c->both_ways;
    m->grid_first = c->n_special;
    m->grid_width = c->patch_size > 0 ? c->image_size / c->patch_size : 0;
    m->shared_decay = c->shared_decay;
    m->token_scale = (float)c->token_scale;
    CAB_TRY(build_projections(b, c, name, m));
    if (!c->both_ways)
        CAB_TRY(cab_builder_shaped(b, &m->conv_w, CAB_NO_DECAY, 3, filter, "%s.conv1d.weight", name));
    else if (c->grid_conv > 0)
        CAB_TRY(cab_builder_shaped(b, &m->conv_w, CAB_NO_DECAY, 4, square, "%s.conv2d.weight", name));
    if (m->conv_w != NULL && c->conv_bias)
        CAB_TRY(cab_builder_vector(b, &m->conv_b, channels, c->both_ways ? "%s.conv2d.bias" : "%s.conv1d.bias", name));
    CAB_TRY(cab_builder_vector(b, &m->dt_bias, steps, "%s.dt_bias", name));
    CAB_TRY(cab_builder_vector(b, &m->A_log, steps, "%s.A_log", name));
    CAB_TRY(cab_builder_vector(b, &m->D, H, "%s.D", name));
    snprintf(norm, sizeof norm, "%s.norm", name);
    return c->gated_norm ? cab_builder_norm(b, &m->norm, c->d_inner, c->norm_eps, false, norm) : CAB_OK;
}
