/* vit.c - Vision Transformers (Dosovitskiy et al. 2021) and DeiT (Touvron et al. 2021), names of transformers or of timm.
 *
 *   x = (class token, [distillation token,] patches(pixels) W + b) + positions
 *   per layer:  x = x + proj(attention(qkv(norm1(x))))     x = x + fc2(gelu(fc1(norm2(x))))
 *   logits = classifier(norm(x)[0]), or the mean of two classifiers on the class and the distillation token
 *
 * transformers keeps Q, K and V in three matrices and says all sizes in config.json; timm keeps them in one and says only a
 * name there, so that the sizes are read off the tensors. */
#include "base/memory.h"
#include "models/architectures.h"
#include "models/builder.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct layer {
    cab_norm norm1, norm2;
    cab_dense qkv; /* timm */
    cab_dense q, k, v;
    cab_dense proj;
    cab_mlp mlp;
} layer;

typedef struct vit {
    cab_dense patch_embed; /* (D, 3 p p): a convolution of stride p */
    cab_tensor *special[2], *positions;
    cab_norm norm;
    cab_dense head; /* (classes, D), or both heads side by side (classes, 2 D) */
    layer layers[];
} vit;

/* ---- sizes ----------------------------------------------------------------------------------------------------------- */

static const char *const encoder_prefixes[] = {"vit.", "deit.", "", NULL};
static const char *const plain_prefixes[] = {"", NULL};

static cab_status configure_transformers(const cab_json *json, cab_config *c)
{
    int64_t width, n_layer, n_head, inner, image, patch, channels;
    CAB_TRY(cab_json_int(json, NULL, "hidden_size", 1, 1 << 16, &width));
    CAB_TRY(cab_json_int(json, NULL, "num_hidden_layers", 1, 1024, &n_layer));
    CAB_TRY(cab_json_int(json, NULL, "num_attention_heads", 1, 1024, &n_head));
    CAB_TRY(cab_json_int(json, NULL, "intermediate_size", 1, 1 << 18, &inner));
    CAB_TRY(cab_json_int_or(json, NULL, "image_size", 1, CAB_IMAGE_MAX, 224, &image));
    CAB_TRY(cab_json_int_or(json, NULL, "patch_size", 1, CAB_IMAGE_MAX, 16, &patch));
    CAB_TRY(cab_json_int_or(json, NULL, "num_channels", 3, 3, 3, &channels));
    CAB_TRY(cab_positive_parse(json, NULL, "layer_norm_eps", 1e-12, &c->norm_eps));
    CAB_TRY(cab_activation_parse(json, "hidden_act", "gelu", &c->activation));
    if (width % n_head != 0 || image % patch != 0)
        return cab_fail(
            CAB_ESHAPE,
            "%s: hidden_size %lld over num_attention_heads %lld and image_size %lld over patch_size %lld do "
            "not divide",
            json->name, (long long)width, (long long)n_head, (long long)image, (long long)patch);
    c->d_model = (int)width;
    c->n_layer = (int)n_layer;
    c->n_head = c->n_kv_head = (int)n_head;
    c->head_dim = (int)(width / n_head);
    c->d_mlp = (int)inner;
    c->patch_size = (int)patch;
    c->image_size = (int)image;
    return CAB_OK;
}

/* Heads are the one size that no tensor shows: timm's names say them, and "model_args" where they were given. */
static cab_status timm_heads(const cab_json *json, const char *name, cab_config *c)
{
    static const struct {
        const char *size;
        int n_head;
    } known[] = {{"_tiny_", 3}, {"_small_", 6}, {"_base_", 12}, {"_large_", 16}, {"_huge_", 16}};
    json_object *arguments = NULL;
    int64_t n_head = 0;
    if (json_object_object_get_ex(json->root, "model_args", &arguments) && arguments != NULL) {
        CAB_TRY(cab_json_object(json, NULL, "model_args", &arguments));
        CAB_TRY(cab_json_int_or(json, arguments, "num_heads", 1, 1024, 0, &n_head));
    }
    for (size_t i = 0; n_head == 0 && i < sizeof known / sizeof *known; i++)
        if (strstr(name, known[i].size) != NULL)
            n_head = known[i].n_head;
    c->n_head = c->n_kv_head = (int)n_head;
    if (n_head > 0)
        return CAB_OK;
    return cab_fail(CAB_EUNSUPPORTED,
                    "%s: \"architecture\" is \"%s\"; of timm's, tiny, small, base, large and huge are supported",
                    json->name, name);
}

static cab_status configure(const cab_json *json, cab_config *c)
{
    const char *type = NULL, *name = NULL;
    CAB_TRY(cab_json_string_or(json, NULL, "model_type", NULL, &type));
    if (type != NULL)
        return configure_transformers(json, c);
    CAB_TRY(cab_json_string(json, NULL, "architecture", &name));
    c->timm = true;
    c->norm_eps = 1e-6;
    c->activation = CAB_GELU_ERF;
    return timm_heads(json, name, c);
}

/* The shape of a tensor that must be there. */
static cab_status need(const cab_checkpoint *source, const char *name, int n_dim, const cab_safetensors_entry **out)
{
    *out = cab_checkpoint_find(source, name);
    if (*out == NULL)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" is missing", cab_checkpoint_directory(source), name);
    if ((*out)->n_dim != n_dim)
        return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\" has %d dimensions, expected %d", (*out)->file, name,
                        (*out)->n_dim, n_dim);
    for (int i = 0; i < n_dim; i++)
        if ((*out)->shape[i] < 1 || (*out)->shape[i] > 1 << 24)
            return cab_fail(CAB_ESHAPE, "%s: tensor \"%s\": dimension %d is %lld, too small or too large", (*out)->file,
                            name, i, (long long)(*out)->shape[i]);
    return CAB_OK;
}

static cab_status refuse_variants(const cab_checkpoint *source)
{
    static const char *const unknown[] = {"blocks.0.ls1.gamma",          "norm_pre.weight", "fc_norm.weight",
                                          "blocks.0.attn.q_norm.weight", "reg_token",       "attn_pool.latent"};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++)
        if (cab_checkpoint_has(source, unknown[i]))
            return cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%s\" belongs to a variant of ViT that is not supported",
                            cab_checkpoint_directory(source), unknown[i]);
    return CAB_OK;
}

static cab_status measure_timm(const cab_checkpoint *source, cab_config *c)
{
    const cab_safetensors_entry *patch, *positions, *fc1;
    char name[CAB_NAME_MAX] = "blocks.0.norm1.weight";
    CAB_TRY(refuse_variants(source));
    CAB_TRY(need(source, "patch_embed.proj.weight", 4, &patch));
    CAB_TRY(need(source, "pos_embed", 3, &positions));
    CAB_TRY(need(source, "blocks.0.mlp.fc1.weight", 2, &fc1));
    while (c->n_layer < 1024 && cab_checkpoint_has(source, name))
        snprintf(name, sizeof name, "blocks.%d.norm1.weight", ++c->n_layer);
    const int64_t patches = positions->shape[1] - c->n_special;
    const int64_t grid = patches > 0 ? (int64_t)(sqrt((double)patches) + 0.5) : 0;
    if (patch->shape[0] > 1 << 16 || patch->shape[0] % c->n_head != 0 || patch->shape[2] > CAB_IMAGE_MAX || grid < 1 ||
        grid * grid != patches || grid * patch->shape[2] > CAB_IMAGE_MAX || fc1->shape[0] > 1 << 18)
        return cab_fail(CAB_ESHAPE,
                        "%s: width %lld in %d heads, patches of %lld, %lld rows in \"pos_embed\": expected heads that "
                        "divide the width and a square grid",
                        patch->file, (long long)patch->shape[0], c->n_head, (long long)patch->shape[2],
                        (long long)positions->shape[1]);
    c->d_model = (int)patch->shape[0];
    c->head_dim = c->d_model / c->n_head;
    c->d_mlp = (int)fc1->shape[0];
    c->patch_size = (int)patch->shape[2];
    c->image_size = (int)(grid * patch->shape[2]);
    return CAB_OK;
}

static cab_status measure(const cab_checkpoint *source, cab_config *c)
{
    static const char *const distillation[] = {"dist_token", "deit.embeddings.distillation_token",
                                               "embeddings.distillation_token"};
    const cab_safetensors_entry *classifier;
    const char *second = c->timm ? "head_dist.weight" : "distillation_classifier.weight";
    c->n_special = 1;
    for (size_t i = 0; i < sizeof distillation / sizeof *distillation; i++)
        if (cab_checkpoint_has(source, distillation[i]))
            c->n_special = 2;
    c->two_heads = cab_checkpoint_has(source, second);
    if (c->two_heads && c->n_special < 2)
        return cab_fail(CAB_EFORMAT, "%s: tensor \"%s\" without a distillation token", cab_checkpoint_directory(source),
                        second);
    const char *first = c->timm ? "head.weight" : c->two_heads ? "cls_classifier.weight" : "classifier.weight";
    CAB_TRY(need(source, first, 2, &classifier));
    c->n_classes = (int)classifier->shape[0];
    if (c->timm)
        CAB_TRY(measure_timm(source, c));
    cab_config_set_image(c, c->image_size);
    return CAB_OK;
}

/* ---- parameters ------------------------------------------------------------------------------------------------------ */

static cab_status build_norm(cab_builder *b, const cab_config *c, cab_norm *norm, const char *name)
{
    norm->eps = (float)c->norm_eps;
    CAB_TRY(cab_builder_vector(b, &norm->w, c->d_model, "%s.weight", name));
    return cab_builder_vector(b, &norm->b, c->d_model, "%s.bias", name);
}

/* A bias may be missing only where `optional`. */
static cab_status build_dense(cab_builder *b, cab_dense *dense, int64_t n_in, int64_t n_out, bool optional,
                              const char *format, int l)
{
    char name[CAB_NAME_MAX - 8], bias[CAB_NAME_MAX];
    snprintf(name, sizeof name, format, l);
    snprintf(bias, sizeof bias, "%s.bias", name);
    CAB_TRY(cab_builder_matrix(b, &dense->w, n_out, n_in, "%s.weight", name));
    if (optional && b->source != NULL && !cab_builder_has(b, bias))
        return CAB_OK;
    return cab_builder_vector(b, &dense->b, n_out, "%s", bias);
}

/* The names of a layer's parts. */
typedef struct layer_names {
    const char *norm1, *norm2, *proj, *fc1, *fc2;
} layer_names;

static const layer_names timm_names = {"blocks.%d.norm1", "blocks.%d.norm2", "blocks.%d.attn.proj", "blocks.%d.mlp.fc1",
                                       "blocks.%d.mlp.fc2"};
static const layer_names transformers_names = {"encoder.layer.%d.layernorm_before", "encoder.layer.%d.layernorm_after",
                                               "encoder.layer.%d.attention.output.dense",
                                               "encoder.layer.%d.intermediate.dense", "encoder.layer.%d.output.dense"};

static cab_status build_layer(cab_builder *b, const cab_config *c, layer *y, int l)
{
    const layer_names *n = c->timm ? &timm_names : &transformers_names;
    const int64_t D = c->d_model;
    char name[CAB_NAME_MAX];
    snprintf(name, sizeof name, n->norm1, l);
    CAB_TRY(build_norm(b, c, &y->norm1, name));
    snprintf(name, sizeof name, n->norm2, l);
    CAB_TRY(build_norm(b, c, &y->norm2, name));
    CAB_TRY(build_dense(b, &y->proj, D, D, false, n->proj, l));
    CAB_TRY(build_dense(b, &y->mlp.fc1, D, c->d_mlp, false, n->fc1, l));
    CAB_TRY(build_dense(b, &y->mlp.fc2, c->d_mlp, D, false, n->fc2, l));
    y->mlp.act = c->activation;
    if (c->timm)
        return build_dense(b, &y->qkv, D, 3 * D, true, "blocks.%d.attn.qkv", l);
    CAB_TRY(build_dense(b, &y->q, D, D, true, "encoder.layer.%d.attention.attention.query", l));
    CAB_TRY(build_dense(b, &y->k, D, D, true, "encoder.layer.%d.attention.attention.key", l));
    return build_dense(b, &y->v, D, D, true, "encoder.layer.%d.attention.attention.value", l);
}

/* Half of each of two heads, side by side: applied to both tokens in a row, that is the mean of their logits. */
static cab_status build_two_heads(cab_builder *b, const cab_config *c, cab_dense *head)
{
    const char *const names[2] = {c->timm ? "head" : "cls_classifier",
                                  c->timm ? "head_dist" : "distillation_classifier"};
    const int64_t V = c->n_classes, D = c->d_model;
    float *w = NULL, *bias = NULL, *one = NULL;
    char name[CAB_NAME_MAX];
    cab_status status;
    CAB_GOTO(CAB_NEW(&one, (size_t)(V * D), "classifier"));
    CAB_GOTO(CAB_NEW(&w, (size_t)(2 * V * D), "classifier"));
    CAB_GOTO(CAB_NEW(&bias, (size_t)V, "classifier"));
    for (int i = 0; i < 2; i++) {
        snprintf(name, sizeof name, "%s.weight", names[i]);
        CAB_GOTO(cab_checkpoint_read_f32(b->source, name, 2, (int64_t[]){V, D}, one));
        for (int64_t j = 0; j < V * D; j++)
            w[(j / D * 2 + i) * D + j % D] = 0.5f * one[j];
        snprintf(name, sizeof name, "%s.bias", names[i]);
        CAB_GOTO(cab_checkpoint_read_f32(b->source, name, 1, &V, one));
        for (int64_t j = 0; j < V; j++)
            bias[j] += 0.5f * one[j];
    }
    const cab_dtype dtype = b->trainable ? CAB_F32 : b->dtype;
    CAB_GOTO(cab_params_add(b->params, "both heads.weight", dtype, 2, (int64_t[]){V, 2 * D}, CAB_DECAY, &head->w));
    CAB_GOTO(cab_params_add(b->params, "both heads.bias", CAB_F32, 1, &V, CAB_NO_DECAY, &head->b));
    CAB_GOTO(cab_params_write(b->params, head->w, w));
    status = cab_params_write(b->params, head->b, bias);
done:
    cab_free(w);
    cab_free(bias);
    cab_free(one);
    return status;
}

static cab_status build_embeddings(cab_builder *b, const cab_config *c, vit *m)
{
    const int64_t D = c->d_model, filter[4] = {D, 3, c->patch_size, c->patch_size}, token[3] = {1, 1, D};
    const char *projection = c->timm ? "patch_embed.proj" : "embeddings.patch_embeddings.projection";
    CAB_TRY(cab_builder_filter(b, &m->patch_embed.w, 4, filter, "%s.weight", projection));
    CAB_TRY(cab_builder_vector(b, &m->patch_embed.b, D, "%s.bias", projection));
    CAB_TRY(cab_builder_shaped(b, &m->special[0], CAB_NO_DECAY, 3, token, "%s",
                               c->timm ? "cls_token" : "embeddings.cls_token"));
    if (c->n_special > 1)
        CAB_TRY(cab_builder_shaped(b, &m->special[1], CAB_NO_DECAY, 3, token, "%s",
                                   c->timm ? "dist_token" : "embeddings.distillation_token"));
    return cab_builder_positions(b, &m->positions, c, c->timm ? "pos_embed" : "embeddings.position_embeddings");
}

static cab_status build(cab_builder *b, cab_model *model)
{
    const cab_config *c = &model->config;
    vit *m = model->layers;
    cab_builder_prefixes(b, encoder_prefixes);
    CAB_TRY(build_embeddings(b, c, m));
    for (int l = 0; l < c->n_layer; l++)
        CAB_TRY(build_layer(b, c, &m->layers[l], l));
    CAB_TRY(build_norm(b, c, &m->norm, c->timm ? "norm" : "layernorm"));
    cab_builder_prefixes(b, plain_prefixes);
    if (c->two_heads && b->source != NULL)
        return build_two_heads(b, c, &m->head);
    return build_dense(b, &m->head, c->d_model, c->n_classes, false, c->timm ? "head" : "classifier", 0);
}

/* ---- forward --------------------------------------------------------------------------------------------------------- */

static void project(cab_graph *g, const cab_config *c, const layer *y, cab_tensor *x, cab_tensor *qkv[3])
{
    const int64_t sizes[3] = {c->d_model, c->d_model, c->d_model};
    cab_tensor *u = cab_norm_record(g, &y->norm1, x);
    if (c->timm) {
        cab_split(g, cab_dense_record(g, &y->qkv, u), 3, sizes, qkv);
        return;
    }
    qkv[0] = cab_dense_record(g, &y->q, u);
    qkv[1] = cab_dense_record(g, &y->k, u);
    qkv[2] = cab_dense_record(g, &y->v, u);
}

static cab_attention_shape attention_shape(const cab_config *c, int l)
{
    (void)l; /* all alike */
    return (cab_attention_shape){.n_head = c->n_head,
                                 .n_kv_head = c->n_head,
                                 .head_dim = c->head_dim,
                                 .scale = (float)(1.0 / sqrt(c->head_dim))};
}

static cab_tensor *record(cab_graph *g, const cab_model *model, cab_tensor *pixels, int recompute, const cab_taps *taps)
{
    static const int64_t front[2] = {0, 1};
    const cab_config *c = &model->config;
    const vit *m = model->layers;
    const cab_attention_shape shape = attention_shape(c, 0);
    cab_tensor *x = cab_dense_record(g, &m->patch_embed, cab_patches(g, pixels, c->patch_size, cab_model_dtype(model)));
    x = cab_insert_tokens(g, x, c->n_special, m->special, front, m->positions);
    for (int l = 0; l < c->n_layer; l++) {
        const layer *y = &m->layers[l];
        cab_tensor *qkv[3];
        if (l < recompute)
            cab_graph_segment_begin(g);
        cab_taps_set(taps, l, CAB_TAP_HIDDEN, x);
        project(g, c, y, x, qkv);
        for (int i = 0; i < 3; i++)
            cab_taps_set(taps, l, (cab_tap)i, qkv[i]);
        cab_tensor *mixed = cab_dense_record(g, &y->proj, cab_attention(g, qkv[0], qkv[1], qkv[2], &shape));
        x = cab_add(g, 2, (cab_tensor *[]){x, mixed});
        x = cab_add(g, 2, (cab_tensor *[]){x, cab_mlp_record(g, &y->mlp, cab_norm_record(g, &y->norm2, x))});
        if (l < recompute)
            cab_graph_segment_end(g);
    }
    x = cab_norm_record(g, &m->norm, cab_select_tokens(g, x, 0, c->two_heads ? 2 : 1));
    if (x == NULL || !c->two_heads)
        return x;
    return cab_reshape(g, x, 3, (int64_t[]){x->shape[0], 1, 2 * (int64_t)c->d_model});
}

static cab_head_side head(const cab_model *model)
{
    const vit *m = model->layers;
    return (cab_head_side){.w = m->head.w, .b = m->head.b};
}

/* Of two heads side by side the class token's, as if it stood for both: the sum of the halves. */
static cab_status class_head(const cab_model *model, cab_part_values *out)
{
    const vit *m = model->layers;
    const int64_t D = model->config.d_model;
    CAB_TRY(cab_part_copy(model->params, &(cab_part_place){m->head.w, CAB_OUT_IN, 0, model->config.n_classes}, out));
    if (!model->config.two_heads)
        return CAB_OK;
    for (int64_t r = 0; r < out->rows; r++)
        for (int64_t d = 0; d < D; d++)
            out->values[r * D + d] = out->values[r * 2 * D + d] + out->values[(r * 2 + 1) * D + d];
    out->columns = D;
    return CAB_OK;
}

static cab_part_place attention_place(const cab_config *c, const layer *y, int which, bool bias)
{
    const cab_dense *const own[3] = {&y->q, &y->k, &y->v}, *dense = c->timm ? &y->qkv : own[which];
    const int64_t D = c->d_model;
    return (cab_part_place){bias ? dense->b : dense->w, CAB_OUT_IN, c->timm ? which * D : 0, D};
}

static cab_status part(const cab_model *model, cab_part which, int l, cab_part_values *out)
{
    const cab_config *c = &model->config;
    const vit *m = model->layers;
    const layer *y = &m->layers[l];
    const int64_t D = c->d_model, inner = c->d_mlp;
    const cab_part_place parts[] = {
        [CAB_PART_EMBEDDING] = {m->patch_embed.w, CAB_OUT_IN, 0, D},
        [CAB_PART_EMBEDDING_B] = {m->patch_embed.b, CAB_OUT_IN, 0, D},
        [CAB_PART_CLASS_TOKEN] = {m->special[0], CAB_OUT_IN, 0, D},
        [CAB_PART_POSITIONS] = {m->positions, CAB_OUT_IN, 0, c->max_length * D},
        [CAB_PART_HEAD_B] = {m->head.b, CAB_OUT_IN, 0, c->n_classes},
        [CAB_PART_FINAL_NORM_W] = {m->norm.w, CAB_OUT_IN, 0, D},
        [CAB_PART_FINAL_NORM_B] = {m->norm.b, CAB_OUT_IN, 0, D},
        [CAB_PART_NORM_W] = {y->norm1.w, CAB_OUT_IN, 0, D},
        [CAB_PART_NORM_B] = {y->norm1.b, CAB_OUT_IN, 0, D},
        [CAB_PART_MLP_NORM_W] = {y->norm2.w, CAB_OUT_IN, 0, D},
        [CAB_PART_MLP_NORM_B] = {y->norm2.b, CAB_OUT_IN, 0, D},
        [CAB_PART_Q_W] = attention_place(c, y, 0, false),
        [CAB_PART_Q_B] = attention_place(c, y, 0, true),
        [CAB_PART_K_W] = attention_place(c, y, 1, false),
        [CAB_PART_K_B] = attention_place(c, y, 1, true),
        [CAB_PART_V_W] = attention_place(c, y, 2, false),
        [CAB_PART_V_B] = attention_place(c, y, 2, true),
        [CAB_PART_OUT_W] = {y->proj.w, CAB_OUT_IN, 0, D},
        [CAB_PART_OUT_B] = {y->proj.b, CAB_OUT_IN, 0, D},
        [CAB_PART_FC1_W] = {y->mlp.fc1.w, CAB_OUT_IN, 0, inner},
        [CAB_PART_FC1_B] = {y->mlp.fc1.b, CAB_OUT_IN, 0, inner},
        [CAB_PART_FC2_W] = {y->mlp.fc2.w, CAB_OUT_IN, 0, D},
        [CAB_PART_FC2_B] = {y->mlp.fc2.b, CAB_OUT_IN, 0, D},
    };
    if (which == CAB_PART_HEAD_W)
        return class_head(model, out);
    CAB_TRY(cab_part_copy(model->params, &parts[which], out));
    if (which == CAB_PART_POSITIONS) {
        out->rows = c->max_length;
        out->columns = D;
    }
    return CAB_OK;
}

const cab_arch cab_arch_vit = {
    .name = "vit",
    .timm = "vit_",
    .teacher = true,
    .layers_size = sizeof(vit),
    .per_layer = sizeof(layer),
    .configure = configure,
    .measure = measure,
    .build = build,
    .record = record,
    .attention = attention_shape,
    .head = head,
    .part = part,
};

const cab_arch cab_arch_deit = {
    .name = "deit",
    .timm = "deit_",
    .teacher = true,
    .layers_size = sizeof(vit),
    .per_layer = sizeof(layer),
    .configure = configure,
    .measure = measure,
    .build = build,
    .record = record,
    .attention = attention_shape,
    .head = head,
    .part = part,
};
