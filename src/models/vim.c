/* vim.c - Vision Mamba (Zhu et al. 2024), the image student of the paper, under its public names.
 *
 *   x = patches(pixels) W + b, class token in the middle, + pos_embed
 *   per layer:  r = x + r (fp32)     x = mixer(norm(r))
 *   logits = head(norm_f(x + r)[class token])
 *
 * Vim-Tiny and -Small: 24 layers, D 192 or 384, E = 2 D, N 16, R = ceil(D / 16), K 4, patches of 16. */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/builder.h"
#include "models/sizes.h"

#include <stdio.h>
#include <string.h>

enum { EXPAND = 2 };

/* The arguments of the public code's VisionMamba, its spelling included, and our own: of its variants this is one, and another
 * would compute something else without saying so. */
static const cab_setting settings[] = {{"architectures", NULL},
                                       {"bias", "false"},
                                       {"bimamba_type", "\"v2\""},
                                       {"channels", "3"},
                                       {"conv_bias", "true"},
                                       {"d_conv", NULL},
                                       {"d_state", NULL},
                                       {"depth", NULL},
                                       {"device", NULL},
                                       {"drop_path_rate", NULL},
                                       {"drop_rate", NULL},
                                       {"dt_rank", NULL},
                                       {"dtype", NULL},
                                       {"embed_dim", NULL},
                                       {"expand", NULL},
                                       {"final_pool_type", "\"none\""},
                                       {"flip_img_sequences_ratio", "-1"},
                                       {"ft_seq_len", "null"},
                                       {"fused_add_norm", NULL},
                                       {"id2label", NULL},
                                       {"if_abs_pos_embed", "true"},
                                       {"if_bidirectional", "false"},
                                       {"if_bimamba", "false"},
                                       {"if_cls_token", "true"},
                                       {"if_devide_out", "true"},
                                       {"if_divide_out", "true"},
                                       {"if_rope", "false"},
                                       {"if_rope_residual", "false"},
                                       {"img_size", NULL},
                                       {"init_layer_scale", "null"},
                                       {"initializer_cfg", NULL},
                                       {"label2id", NULL},
                                       {"model_type", NULL},
                                       {"norm_eps", NULL},
                                       {"norm_epsilon", NULL},
                                       {"num_classes", NULL},
                                       {"patch_size", NULL},
                                       {"pt_hw_seq_len", NULL}, /* of the rotary embedding */
                                       {"residual_in_fp32", "true"},
                                       {"rms_norm", "true"},
                                       {"ssm_cfg", "null"},
                                       {"stride", NULL},
                                       {"tied_decay", NULL},
                                       {"transformers_version", NULL},
                                       {"use_double_cls_token", "false"},
                                       {"use_middle_cls_token", "true"},
                                       {NULL, NULL}};
static const cab_setting *const setting_tables[] = {settings, NULL};

static cab_status configure(const cab_json *json, cab_config *c)
{
    int64_t image, patch, stride, width, n_layer, classes, state, conv, expand, rank;
    CAB_TRY(cab_json_int(json, NULL, "img_size", 1, CAB_IMAGE_MAX, &image));
    CAB_TRY(cab_json_int(json, NULL, "patch_size", 1, CAB_IMAGE_MAX, &patch));
    CAB_TRY(cab_json_int_or(json, NULL, "stride", 1, CAB_IMAGE_MAX, patch, &stride));
    CAB_TRY(cab_json_int(json, NULL, "embed_dim", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "depth", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "num_classes", 1, 1 << 24, &classes));
    CAB_TRY(cab_json_int_or(json, NULL, "d_state", 1, 256, 16, &state));
    CAB_TRY(cab_json_int_or(json, NULL, "d_conv", 1, 16, 4, &conv));
    CAB_TRY(cab_json_int_or(json, NULL, "expand", 1, 16, EXPAND, &expand));
    CAB_TRY(cab_json_int_or(json, NULL, "dt_rank", 1, 1 << 16, (width + 15) / 16, &rank));
    CAB_TRY(cab_positive_parse(json, NULL, "norm_epsilon", 1e-5, &c->norm_eps));
    CAB_TRY(cab_positive_parse(json, NULL, "norm_eps", c->norm_eps, &c->norm_eps));
    CAB_TRY(cab_json_bool_or(json, NULL, "tied_decay", false, &c->tied_decay));
    if (stride != patch)
        return cab_fail(CAB_EUNSUPPORTED, "%s: \"stride\" is %lld; only patch_size, %lld, is supported", json->name,
                        (long long)stride, (long long)patch);
    if (image % patch != 0)
        return cab_fail(CAB_ESHAPE, "%s: img_size %lld is not a multiple of patch_size %lld", json->name,
                        (long long)image, (long long)patch);
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_classes = (int)classes;
    c->d_state = (int)state;
    c->d_conv = (int)conv;
    c->d_inner = (int)(expand * width);
    c->dt_rank = (int)rank;
    c->n_group = 1;
    c->patch_size = (int)patch;
    c->n_special = 1;
    c->class_middle = true;
    cab_config_set_image(c, (int)image);
    return CAB_OK;
}

static cab_status describe(const cab_config *c, json_object *json)
{
    const struct {
        const char *key;
        int value;
    } numbers[] = {{"img_size", c->image_size}, {"patch_size", c->patch_size},       {"embed_dim", c->d_model},
                   {"depth", c->n_layer},       {"num_classes", c->n_classes},       {"d_state", c->d_state},
                   {"d_conv", c->d_conv},       {"expand", c->d_inner / c->d_model}, {"dt_rank", c->dt_rank}};
    json_object *architectures = json_object_new_array();
    json_object_array_add(architectures, json_object_new_string("VisionMamba"));
    json_object_object_add(json, "architectures", architectures);
    json_object_object_add(json, "model_type", json_object_new_string("vim"));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_object_add(json, numbers[i].key, json_object_new_int(numbers[i].value));
    json_object_object_add(json, "norm_eps", json_object_new_double(c->norm_eps));
    json_object_object_add(json, "bimamba_type", json_object_new_string("v2"));
    json_object_object_add(json, "use_middle_cls_token", json_object_new_boolean(true));
    json_object_object_add(json, "if_divide_out", json_object_new_boolean(true));
    if (c->tied_decay)
        json_object_object_add(json, "tied_decay", json_object_new_boolean(true));
    return CAB_OK;
}

static cab_status check_rows(const cab_builder *b, const cab_tensor *t, const float *values)
{
    const int64_t columns = cab_columns(t);
    for (int64_t i = 0; i < cab_elements(t); i++)
        if (values[i] != values[i / columns * columns])
            return cab_fail(CAB_EFORMAT,
                            "%s: tensor \"%s\": row %lld has %g and %g, expected one number in each row, as tied_decay "
                            "in config.json says",
                            cab_checkpoint_directory(b->source), t->name, (long long)(i / columns),
                            (double)values[i / columns * columns], (double)values[i]);
    return CAB_OK;
}

/* Marks a parameter as one of a number per row, which a checkpoint's must be. */
static cab_status tie(const cab_builder *b, cab_tensor *t)
{
    float *values = NULL;
    t->tied = true;
    if (b->source == NULL)
        return CAB_OK;
    CAB_TRY(CAB_NEW(&values, (size_t)cab_elements(t), t->name));
    cab_status status = cab_params_read(b->params, t, values);
    if (status == CAB_OK)
        status = check_rows(b, t, values);
    cab_free(values);
    return status;
}

/* One direction; suffix "" or "_b" stands in its parameters' names. */
static cab_status build_direction(cab_builder *b, const cab_config *c, cab_mamba1 *m, int l, const char *suffix)
{
    const int64_t E = c->d_inner, N = c->d_state, R = c->dt_rank;
    m->dt_rank = c->dt_rank;
    m->d_state = c->d_state;
    CAB_TRY(cab_builder_shaped(b, &m->A_log, CAB_NO_DECAY, 2, (int64_t[]){E, N}, "layers.%d.mixer.A%s_log", l, suffix));
    if (c->tied_decay)
        CAB_TRY(tie(b, m->A_log));
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
    y->kind = CAB_MIXER_VIM;
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
    n->patch_size = c->patch_size;
    n->n_special = 1;
    n->special_at[0] = n->read_at = c->class_at;
    n->read_count = 1;
    CAB_TRY(cab_builder_filter(b, &n->patches.w, 4, (int64_t[]){D, 3, c->patch_size, c->patch_size},
                               "patch_embed.proj.weight"));
    CAB_TRY(cab_builder_vector(b, &n->patches.b, D, "patch_embed.proj.bias"));
    CAB_TRY(cab_builder_shaped(b, &n->special[0], CAB_NO_DECAY, 3, (int64_t[]){1, 1, D}, "cls_token"));
    CAB_TRY(cab_builder_positions(b, &n->positions, c, "pos_embed"));
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
