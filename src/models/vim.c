/* vim.c - Vision Mamba (Zhu et al. 2024), the image student of the paper, under its public names.
 *
 *   x = patches(pixels) W + b, class token in the middle, + pos_embed
 *   per layer:  r = x + r (fp32)     x = mixer(norm(r))
 *   logits = head(norm_f(x + r)[class token])
 *
 * Vim-Tiny and -Small: 24 layers, D 192 or 384, E = 2 D, N 16, R = ceil(D / 16), K 4, patches of 16. */
#include "models/architectures.h"
#include "models/vision.h"

enum { EXPAND = 2 };

/* The arguments of the public code's VisionMamba, its spelling included, and our own: of its variants this is one, and another
 * would compute something else without saying so. */
static const cab_setting settings[] = {{"architectures", NULL}, {"model_type", NULL}, {"transformers_version", NULL},
                                       {"d_conv", NULL},        {"d_state", NULL},    {"depth", NULL},
                                       {"dt_rank", NULL},       {"embed_dim", NULL},  {"expand", NULL},
                                       {"img_size", NULL},      {"norm_eps", NULL},   {"norm_epsilon", NULL},
                                       {"num_classes", NULL},   {"patch_size", NULL}, {"stride", NULL},
                                       {"tied_decay", NULL},    {NULL, NULL}};
/* They change nothing; pt_hw_seq_len is of the rotary embedding. */
static const cab_setting ignored[] = {{"device", NULL},          {"drop_path_rate", NULL},
                                      {"drop_rate", NULL},       {"dtype", NULL},
                                      {"fused_add_norm", NULL},  {"id2label", NULL},
                                      {"initializer_cfg", NULL}, {"label2id", NULL},
                                      {"pt_hw_seq_len", NULL},   {NULL, NULL}};
/* Another value is another model. */
static const cab_setting tokens[] = {{"final_pool_type", "\"none\""},  {"flip_img_sequences_ratio", "-1"},
                                     {"ft_seq_len", "null"},           {"if_abs_pos_embed", "true"},
                                     {"if_cls_token", "true"},         {"if_rope", "false"},
                                     {"if_rope_residual", "false"},    {"use_double_cls_token", "false"},
                                     {"use_middle_cls_token", "true"}, {NULL, NULL}};
static const cab_setting mixers[] = {
    {"bias", "false"},       {"bimamba_type", "\"v2\""}, {"conv_bias", "true"},     {"if_bidirectional", "false"},
    {"if_bimamba", "false"}, {"if_devide_out", "true"},  {"if_divide_out", "true"}, {NULL, NULL}};
static const cab_setting layers[] = {{"channels", "3"},    {"init_layer_scale", "null"}, {"residual_in_fp32", "true"},
                                     {"rms_norm", "true"}, {"ssm_cfg", "null"},          {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, ignored, tokens, mixers, layers, NULL};

static const cab_size sizes[] = {CAB_SIZE("img_size", image_size, CAB_IMAGE_MAX, CAB_REQUIRED),
                                 CAB_SIZE("patch_size", patch_size, CAB_IMAGE_MAX, CAB_REQUIRED),
                                 CAB_SIZE("embed_dim", d_model, 1 << 16, CAB_REQUIRED),
                                 CAB_SIZE("depth", n_layer, CAB_LAYERS_MAX, CAB_REQUIRED),
                                 CAB_SIZE("num_classes", n_classes, 1 << 24, CAB_REQUIRED),
                                 CAB_SIZE("d_state", d_state, 256, 16),
                                 CAB_SIZE("d_conv", d_conv, 16, 4),
                                 CAB_SIZE("dt_rank", dt_rank, 1 << 16, 0),
                                 {0}};
static const cab_vision_names names = {
    .patches = "patch_embed.proj", .class_token = "cls_token", .positions = "pos_embed"};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t stride, expand;
    CAB_TRY(cab_sizes_parse(json, sizes, c));
    CAB_TRY(cab_json_int_or(json, NULL, "stride", 1, CAB_IMAGE_MAX, c->patch_size, &stride));
    CAB_TRY(cab_json_int_or(json, NULL, "expand", 1, 16, EXPAND, &expand));
    CAB_TRY(cab_positive_parse(json, NULL, "norm_epsilon", 1e-5, &c->norm_eps));
    CAB_TRY(cab_positive_parse(json, NULL, "norm_eps", c->norm_eps, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "tied_decay", false, &c->tied_decay));
    if (stride != c->patch_size)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"stride\" is %lld; only patch_size, %d, is supported", json->name,
                        (long long)stride, c->patch_size);
    if (c->image_size % c->patch_size != 0)
        return cab_fail(CAB_ESHAPE, "%s: img_size %d is not a multiple of patch_size %d", json->name, c->image_size,
                        c->patch_size);
    c->dt_rank = c->dt_rank > 0 ? c->dt_rank : (c->d_model + 15) / 16;
    c->d_inner = (int)expand * c->d_model;
    c->n_group = c->n_special = 1;
    c->class_middle = true;
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
}

static cab_status describe(const cab_config *c, json_object *json)
{
    json_object *architectures = json_object_new_array();
    json_object_array_add(architectures, json_object_new_string("VisionMamba"));
    json_object_object_add(json, "architectures", architectures);
    json_object_object_add(json, "model_type", json_object_new_string("vim"));
    cab_sizes_describe(sizes, c, json);
    json_object_object_add(json, "expand", json_object_new_int(c->d_inner / c->d_model));
    json_object_object_add(json, "norm_eps", json_object_new_double(c->norm_eps));
    json_object_object_add(json, "bimamba_type", json_object_new_string("v2"));
    json_object_object_add(json, "use_middle_cls_token", json_object_new_boolean(true));
    json_object_object_add(json, "if_divide_out", json_object_new_boolean(true));
    if (c->tied_decay)
        json_object_object_add(json, "tied_decay", json_object_new_boolean(true));
    return CAB_OK;
}

/* One direction; suffix "" or "_b" stands in its parameters' names. */
static cab_status build_direction(cab_builder *b, const cab_config *c, cab_mamba1 *m, int l, const char *suffix)
{
    const int64_t E = c->d_inner, N = c->d_state, R = c->dt_rank;
    m->dt_rank = c->dt_rank;
    m->d_state = c->d_state;
    CAB_TRY(cab_builder_shaped(b, &m->A_log, CAB_NO_DECAY, 2, (int64_t[]){E, N}, "layers.%d.mixer.A%s_log", l, suffix));
    if (c->tied_decay)
        CAB_TRY(cab_builder_tie(b, m->A_log));
    CAB_TRY(cab_builder_vector(b, &m->D, E, "layers.%d.mixer.D%s", l, suffix));
    CAB_TRY(cab_builder_shaped(b, &m->conv_w, CAB_DECAY, 3, (int64_t[]){E, 1, c->d_conv},
                               "layers.%d.mixer.conv1d%s.weight", l, suffix));
    CAB_TRY(cab_builder_vector(b, &m->conv_b, E, "layers.%d.mixer.conv1d%s.bias", l, suffix));
    CAB_TRY(cab_builder_matrix(b, &m->x_proj.w, R + 2 * N, E, "layers.%d.mixer.x_proj%s.weight", l, suffix));
    CAB_TRY(cab_builder_matrix(b, &m->dt_proj.w, E, R, "layers.%d.mixer.dt_proj%s.weight", l, suffix));
    return cab_builder_vector(b, &m->dt_bias, E, "layers.%d.mixer.dt_proj%s.bias", l, suffix);
}

static cab_status build_layer(cab_builder *b, const cab_config *c, cab_block *y, int l)
{
    cab_vim_mixer *m = &y->vim;
    y->x_apart = true;
    y->norm.eps = (float)c->norm_eps;
    m->d_inner = c->d_inner;
    CAB_TRY(cab_builder_vector(b, &y->norm.w, c->d_model, "layers.%d.norm.weight", l));
    CAB_TRY(
        cab_builder_matrix(b, &m->in_proj.w, 2 * (int64_t)c->d_inner, c->d_model, "layers.%d.mixer.in_proj.weight", l));
    CAB_TRY(build_direction(b, c, &m->forward, l, ""));
    CAB_TRY(build_direction(b, c, &m->backward, l, "_b"));
    return cab_builder_matrix(b, &m->out_proj.w, c->d_model, c->d_inner, "layers.%d.mixer.out_proj.weight", l);
}

static cab_status build(cab_builder *b, const cab_config *c, cab_network *n)
{
    const int64_t D = c->d_model;
    n->read_at = c->class_at;
    n->read_count = 1;
    CAB_TRY(cab_vision_embeddings(b, c, &names, n));
    for (int l = 0; l < c->n_layer; l++)
        CAB_TRY(build_layer(b, c, &n->blocks[l], l));
    CAB_TRY(cab_builder_norm(b, &n->final_norm, D, c->norm_eps, false, "norm_f"));
    return cab_builder_dense(b, &n->head, D, c->n_classes, true, "head");
}

const cab_arch cab_arch_vim = {
    .name = "vim",
    .student = true,
    .settings = setting_tables,
    .strict = true,
    .configure = configure,
    .describe = describe,
    .build = build,
};
