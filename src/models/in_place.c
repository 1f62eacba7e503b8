/* in_place.c - reading, writing and building what in_place.h describes. */
#include "models/in_place.h"

#include "base/file.h"
#include "models/architectures.h"
#include "models/outline.h"
#include "models/sizes.h"
#include "models/state_space.h"

#include <stdio.h>
#include <string.h>

static const cab_setting settings[] = {
    {"kept", NULL}, {"mixer", NULL}, {"sizes", NULL}, {"teacher", NULL}, {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, cab_settings_transformers, NULL};

/* ---- the mixer -------------------------------------------------------------------------------------------------------- */

static const cab_switch switches[] = {CAB_FIELD("projectors_bias", out_bias, false),
                                      CAB_FIELD("mamba_rms_norm", gated_norm, false),
                                      CAB_FIELD("mamba_norm_before_gate", norm_first, false),
                                      {0}};
static const cab_setting mixer_settings[] = {{"kind", NULL},
                                             {"mamba_d_ssm", NULL},
                                             {"input_scale", NULL},
                                             {"mamba_rms_norm", NULL},
                                             {"mamba_norm_before_gate", NULL},
                                             {"projectors_bias", NULL},
                                             {NULL, NULL}};
static const cab_setting *const mixer_tables[] = {mixer_settings, cab_settings_mamba2, NULL};
/* Of both directions: there is no convolution, or one over the grid of patches. */
static const cab_setting no_conv_settings[] = {{"mamba_conv_bias", "false"}, {NULL, NULL}};
static const cab_setting both_settings[] = {
    {"mamba_d_conv", "1"}, {"grid_conv", NULL}, {"shared_decay", NULL}, {"token_scale", NULL}, {NULL, NULL}};
static const cab_setting *const both_tables[] = {no_conv_settings, both_settings, mixer_settings, cab_settings_mamba2,
                                                 NULL};
static const cab_setting *const grid_tables[] = {both_settings, mixer_settings, cab_settings_mamba2, NULL};

/* Mamba-2 of both directions, of images. */
static const char both_ways[] = "mamba2-both-ways";

static cab_status parse_grid(const cab_json *json, cab_config *c)
{
    int64_t side = 0;
    CAB_TRY(cab_json_int_or(json, NULL, "grid_conv", 3, 7, 0, &side));
    c->grid_conv = (int)side;
    if (side > 0 && side % 2 == 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"grid_conv\" is %d; supported are 3, 5 and 7", json->name,
                        c->grid_conv);
    return cab_settings_check(json, NULL, side > 0 ? grid_tables : both_tables, true);
}

static cab_status parse_mixer(const cab_json *json, cab_config *c)
{
    const char *kind = NULL;
    int64_t inner;
    CAB_TRY(cab_json_string(json, NULL, "kind", &kind));
    c->both_ways = strcmp(kind, both_ways) == 0;
    if (!c->both_ways && strcmp(kind, "mamba2") != 0)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"kind\" is \"%.40s\"; supported are mamba2 and %s", json->name, kind,
                        both_ways);
    if (c->both_ways != (c->image_size > 0))
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"kind\" is \"%s\", the teacher reads %s", json->name, kind,
                        c->image_size > 0 ? "images" : "text");
    CAB_TRY(c->both_ways ? parse_grid(json, c) : cab_settings_check(json, NULL, mixer_tables, true));
    CAB_TRY(cab_json_int(json, NULL, "mamba_d_ssm", 1, 1 << 18, &inner));
    CAB_TRY(cab_switches_parse(json, switches, c));
    if (json_object_object_get_ex(json->root, "input_scale", NULL))
        CAB_TRY(cab_positive_parse(json, NULL, "input_scale", 1, &c->input_scale));
    CAB_TRY(cab_mamba2_parse(json, inner, c));
    if (!c->both_ways)
        return CAB_OK;
    CAB_TRY(cab_json_bool_or(json, NULL, "shared_decay", false, &c->shared_decay));
    return cab_positive_parse(json, NULL, "token_scale", 0, &c->token_scale);
}

static json_object *describe_mixer(const cab_config *c)
{
    json_object *mixer = json_object_new_object();
    json_object_object_add(mixer, "kind", json_object_new_string(c->both_ways ? both_ways : "mamba2"));
    json_object_object_add(mixer, "mamba_d_ssm", json_object_new_int(c->d_inner));
    cab_mamba2_describe(c, mixer);
    cab_switches_describe(switches, c, mixer);
    if (c->input_scale > 0)
        json_object_object_add(mixer, "input_scale", json_object_new_double(c->input_scale));
    if (c->grid_conv > 0)
        json_object_object_add(mixer, "grid_conv", json_object_new_int(c->grid_conv));
    if (c->shared_decay)
        json_object_object_add(mixer, "shared_decay", json_object_new_boolean(true));
    if (c->token_scale > 0)
        json_object_object_add(mixer, "token_scale", json_object_new_double(c->token_scale));
    return mixer;
}

/* ---- kept heads ------------------------------------------------------------------------------------------------------- */

static json_object *kept_of(const cab_config *c, int layer)
{
    json_object *kept = NULL;
    json_object_object_get_ex(c->in_place, "kept", &kept);
    return json_object_array_get_idx(kept, (size_t)layer);
}

int cab_in_place_kept(const cab_config *c, int layer, int heads[CAB_HEADS_MAX])
{
    json_object *list = kept_of(c, layer);
    const int n = (int)json_object_array_length(list);
    for (int i = 0; i < n; i++)
        heads[i] = json_object_get_int(json_object_array_get_idx(list, (size_t)i));
    return n;
}

int cab_in_place_kv_heads(const int *heads, int n, int share)
{
    int groups = n > 0;
    for (int i = 1; i < n; i++)
        groups += heads[i] / share != heads[i - 1] / share;
    for (int i = 0; i < n; i++) /* as many in each: head i is in group i / (n / groups) of those that are kept */
        if (n % groups != 0 || heads[i] / share != heads[i / (n / groups) * (n / groups)] / share)
            return n;
    return groups;
}

static cab_status parse_heads(const cab_json *json, const cab_config *c, int layer, json_object *list)
{
    int64_t last = -1;
    if (!json_object_is_type(list, json_type_array))
        return cab_fail(CAB_EFORMAT, "%s: kept[%d] is %.40s, expected a list of heads", json->name, layer,
                        json_object_to_json_string(list));
    for (size_t i = 0; i < json_object_array_length(list); i++) {
        json_object *item = json_object_array_get_idx(list, i);
        const int64_t head = json_object_is_type(item, json_type_int) ? json_object_get_int64(item) : -1;
        if (head <= last || head >= c->n_head)
            return cab_fail(CAB_EFORMAT, "%s: kept[%d][%zu] is %.40s, expected rising numbers of heads below %d",
                            json->name, layer, i, json_object_to_json_string(item), c->n_head);
        last = head;
    }
    return CAB_OK;
}

static cab_status parse_kept(const cab_json *json, cab_config *c)
{
    json_object *kept = NULL;
    CAB_TRY(cab_json_array(json, NULL, "kept", &kept));
    if (json_object_array_length(kept) != (size_t)c->n_layer)
        return cab_fail(CAB_EFORMAT, "%s: \"kept\" has %zu entries, the teacher has %d layers", json->name,
                        json_object_array_length(kept), c->n_layer);
    for (int l = 0; l < c->n_layer; l++)
        CAB_TRY(parse_heads(json, c, l, json_object_array_get_idx(kept, (size_t)l)));
    return CAB_OK;
}

/* ---- sizes of images -------------------------------------------------------------------------------------------------- */

/* Those of the model: its teacher may have had more layers, or told other classes apart. */
static const cab_size image_sizes[] = {
    CAB_SIZE("hidden_size", d_model, 1 << 16, CAB_REQUIRED),
    CAB_SIZE("num_hidden_layers", n_layer, CAB_LAYERS_MAX, CAB_REQUIRED),
    CAB_SIZE("intermediate_size", d_mlp, 1 << 18, CAB_REQUIRED),
    CAB_SIZE("num_attention_heads", n_head, CAB_HEADS_MAX, CAB_REQUIRED),
    CAB_SIZE("image_size", image_size, CAB_IMAGE_MAX, CAB_REQUIRED),
    CAB_SIZE("patch_size", patch_size, CAB_IMAGE_MAX, CAB_REQUIRED),
    CAB_SIZE("num_labels", n_classes, 1 << 24, CAB_REQUIRED),
    CAB_SIZE("special_tokens", n_special, CAB_SPECIAL_MAX + CAB_REGISTERS_MAX, CAB_REQUIRED),
    {0}};
static const cab_switch image_switches[] = {
    CAB_FIELD("qkv_bias", qkv_bias, true), CAB_FIELD("two_heads", two_heads, false), {0}};
static const cab_setting size_settings[] = {{"hidden_size", NULL},
                                            {"image_size", NULL},
                                            {"intermediate_size", NULL},
                                            {"num_attention_heads", NULL},
                                            {"num_hidden_layers", NULL},
                                            {"num_labels", NULL},
                                            {"patch_size", NULL},
                                            {"qkv_bias", NULL},
                                            {"special_tokens", NULL},
                                            {"two_heads", NULL},
                                            {NULL, NULL}};
static const cab_setting *const size_tables[] = {size_settings, NULL};

static cab_status parse_sizes(const cab_json *json, cab_config *c)
{
    CAB_TRY(cab_settings_check(json, NULL, size_tables, true));
    CAB_TRY(cab_sizes_parse(json, image_sizes, c));
    CAB_TRY(cab_switches_parse(json, image_switches, c));
    const int placed = c->n_special - c->n_register;
    if (c->d_model % c->n_head != 0 || c->image_size % c->patch_size != 0 || placed < 1 || placed > CAB_SPECIAL_MAX ||
        (c->two_heads && placed < 2))
        return cab_fail(CAB_ESHAPE,
                        "%s: hidden_size %d in %d heads, image_size %d in patches of %d, %d special_tokens do not fit "
                        "one another",
                        json->name, c->d_model, c->n_head, c->image_size, c->patch_size, c->n_special);
    c->n_kv_head = c->n_head;
    c->head_dim = c->d_model / c->n_head;
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
}

static json_object *describe_sizes(const cab_config *c)
{
    json_object *sizes = json_object_new_object();
    cab_sizes_describe(image_sizes, c, sizes);
    cab_switches_describe(image_switches, c, sizes);
    return sizes;
}

/* ---- config.json ------------------------------------------------------------------------------------------------------ */

/* An object of the file as a document of its own, whose errors say where it stands. */
static cab_status open_part(const cab_json *json, const char *key, char name[CAB_PATH_MAX], cab_json *part)
{
    *part = (cab_json){.name = name};
    CAB_TRY(cab_json_object(json, NULL, key, &part->root));
    snprintf(name, CAB_PATH_MAX, "%s: %s", json->name, key);
    return CAB_OK;
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    char name[CAB_PATH_MAX];
    cab_json part;
    CAB_TRY(open_part(json, "teacher", name, &part));
    CAB_TRY(cab_architecture_of(&part, &c->base));
    if (!c->base->teacher)
        return cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" is no Transformer", part.name, c->base->name);
    CAB_TRY(cab_architecture_configure(c->base, &part, c));
    if (c->base->measure != NULL) {
        CAB_TRY(open_part(json, "sizes", name, &part));
        CAB_TRY(parse_sizes(&part, c));
    }
    CAB_TRY(open_part(json, "mixer", name, &part));
    CAB_TRY(parse_mixer(&part, c));
    CAB_TRY(parse_kept(json, c));
    c->in_place = json->root;
    return CAB_OK;
}

static json_object *member(const cab_config *c, const char *key)
{
    json_object *value = NULL;
    json_object_object_get_ex(c->in_place, key, &value);
    return json_object_get(value);
}

static cab_status describe(const cab_config *c, json_object *json)
{
    json_object_object_add(json, "model_type", json_object_new_string("in-place"));
    if (c->image_size == 0)
        cab_tokens_describe(c, json);
    json_object_object_add(json, "teacher", member(c, "teacher"));
    if (c->image_size > 0)
        json_object_object_add(json, "sizes", describe_sizes(c));
    json_object_object_add(json, "mixer", describe_mixer(c));
    json_object_object_add(json, "kept", member(c, "kept"));
    return CAB_OK;
}

cab_status cab_in_place_describe_teacher(const cab_model *teacher, json_object *kept, cab_config *c)
{
    c->in_place = json_object_new_object();
    json_object_object_add(c->in_place, "kept", kept);
    if (teacher->source == NULL || !teacher->arch->teacher)
        return cab_fail(CAB_EUNSUPPORTED,
                        "a model of architecture \"%s\" that was not read from files cannot be kept in place",
                        teacher->arch->name);
    c->base = teacher->arch;
    json_object_object_add(c->in_place, "teacher", json_object_get(cab_checkpoint_config(teacher->source)->root));
    return CAB_OK;
}

/* ---- the network ------------------------------------------------------------------------------------------------------ */

static void set_outputs(cab_dense *d, int64_t n)
{
    if (d->w != NULL)
        d->w->shape[d->layout == CAB_IN_OUT ? 1 : 0] = n;
    if (d->b != NULL)
        d->b->shape[0] = n;
}

static bool spans_heads(const cab_norm *norm, int head_dim)
{
    return norm->w != NULL && norm->w->shape[0] != head_dim;
}

/* Attention of the kept heads alone, or none. */
static cab_status keep_heads(const cab_config *c, int layer, cab_attention_mixer *a)
{
    int heads[CAB_HEADS_MAX];
    const int n = cab_in_place_kept(c, layer, heads);
    if (n == c->n_head)
        return CAB_OK;
    if (n == 0) {
        *a = (cab_attention_mixer){0};
        return CAB_OK;
    }
    if (spans_heads(&a->q_norm, c->head_dim) || spans_heads(&a->k_norm, c->head_dim))
        return cab_fail(CAB_EUNSUPPORTED, "kept[%d] has %d of %d heads, whose Q and K are normed together", layer, n,
                        c->n_head);
    const int64_t P = c->head_dim;
    a->shape.n_head = n;
    a->shape.n_kv_head = cab_in_place_kv_heads(heads, n, c->n_head / c->n_kv_head);
    set_outputs(&a->qkv, (n + 2 * a->shape.n_kv_head) * P);
    set_outputs(&a->q, n * P);
    set_outputs(&a->k, a->shape.n_kv_head * P);
    set_outputs(&a->v, a->shape.n_kv_head * P);
    a->out.w->shape[a->out.layout == CAB_IN_OUT ? 0 : 1] = n * P;
    return CAB_OK;
}

static cab_status build_mixers(cab_builder *b, const cab_config *c, cab_network *n)
{
    for (int l = 0; l < c->n_layer; l++) {
        cab_builder_layer(b, "layers.%d.", l);
        if ((int)json_object_array_length(kept_of(c, l)) < c->n_head)
            CAB_TRY(cab_mamba2_build(b, c, "mamba", &n->blocks[l].mamba2));
    }
    cab_builder_no_layer(b);
    return CAB_OK;
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    cab_outline outline = {0};
    cab_status status;
    CAB_GOTO(cab_outline_build(c->base, c, b->dtype, &outline, n));
    if (c->two_heads) /* of two tokens side by side */
        n->head.w->shape[1] = 2 * (int64_t)c->d_model;
    for (int l = 0; l < c->n_layer; l++)
        CAB_GOTO(keep_heads(c, l, &n->blocks[l].attention));
    CAB_GOTO(cab_outline_make(b, c, n));
    status = build_mixers(b, c, n);
done:
    cab_outline_close(&outline);
    return status;
}

const cab_arch cab_arch_in_place = {
    .name = "in-place",
    .student = true,
    .settings = setting_tables,
    .strict = true,
    .configure = configure,
    .describe = describe,
    .build = build,
};
