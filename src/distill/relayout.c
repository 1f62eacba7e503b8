/* relayout.c - both models as outlines: for every parameter of the new one, the rows of the old one's that it is, or zeros. */
#include "distill/relayout.h"

#include "base/file.h"
#include "base/memory.h"
#include "distill/layouts.h"
#include "models/architectures.h"
#include "models/export_internal.h"
#include "models/outline.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { IDLE_WIDTH = 32 }; /* of the one head of zeros of a model without attention */

/* One model, without values. */
typedef struct side {
    const cab_arch *arch;
    cab_model model; /* arch, config and network are set */
    cab_outline outline;
} side;

typedef struct relayout {
    const cab_student_layout *layout;
    cab_checkpoint *source;
    side from, to;
    cab_export_tensor *moved;
    size_t count, capacity;
} relayout;

static cab_status outline(side *s)
{
    cab_network *n = &s->model.network;
    *n = (cab_network){.n_layer = s->model.config.n_layer, .max_length = s->model.config.max_length};
    s->model.arch = s->arch;
    CAB_TRY(CAB_NEW(&n->blocks, (size_t)n->n_layer, "a model's layers"));
    return cab_outline_build(s->arch, &s->model.config, CAB_F32, &s->outline, n);
}

static void close_side(side *s)
{
    cab_outline_close(&s->outline);
    cab_free(s->model.network.blocks);
}

/* ---- what the layout cannot hold -------------------------------------------------------------------------------------- */

static const char *other_mixer(const cab_network *n, const cab_config *c)
{
    const cab_attention_shape *first = NULL;
    for (int l = 0; l < n->n_layer; l++) {
        const cab_block *b = &n->blocks[l];
        const cab_attention_shape *shape = &b->attention.shape;
        const double scale =
            (double)shape->scale * (b->attention.query_scale > 0 ? (double)b->attention.query_scale : 1);
        if (b->mamba2.out_proj.w == NULL && b->attention.out.w == NULL)
            return "mixers of Mamba-1";
        if (b->mamba2.input_scale > 0)
            return "a factor on what the mixers read";
        if (!cab_block_attends(b))
            continue;
        if (first != NULL && (shape->n_head != first->n_head || shape->n_kv_head != first->n_kv_head))
            return "other numbers of heads in other layers";
        if (fabs(scale * sqrt(c->head_dim) - 1) > 1e-6)
            return "a scale of attention of its own";
        first = shape;
    }
    return NULL;
}

/* What stands against layers of one kind each, whose mixers have a norm. */
static const char *other_layers(const cab_network *n)
{
    for (int l = 0; l < n->n_layer; l++) {
        const cab_block *b = &n->blocks[l];
        if (b->mamba2.out_proj.w != NULL && cab_block_attends(b))
            return "attention and a mixer side by side";
        if (b->mamba2.out_proj.w != NULL && b->mamba2.norm.w == NULL)
            return "mixers without a norm behind the gate";
    }
    return "a model of another layout";
}

/* The words of the layouts that hold the source. */
static void list_holding(const relayout *r, int keeps, char *out, size_t size)
{
    char unused[CAB_WHY_MAX];
    const cab_student_layout *layout;
    size_t used = (size_t)snprintf(out, size, "its own");
    for (unsigned i = 0; (layout = cab_student_layout_at(i)) != NULL && used < size; i++)
        if (layout->arch == &cab_arch_falcon_h1 && layout->arch != r->from.arch &&
            other_mixer(&r->from.model.network, &r->from.model.config) == NULL &&
            cab_student_layout_holds(layout, &r->from.model, keeps, unused))
            used += (size_t)snprintf(out + used, size - used, ", %s", layout->name);
}

static cab_status check_holds(const relayout *r, const char *model)
{
    const cab_network *n = &r->from.model.network;
    char why[CAB_WHY_MAX], others[CAB_WHY_MAX];
    bool attends = false;
    for (int l = 0; l < n->n_layer; l++)
        attends = attends || cab_block_attends(&n->blocks[l]);
    const int keeps = attends ? CAB_KEEP_LAYERS : 0; /* norms of some heads are as the source has them */
    const char *other =
        r->layout->own ? "a model that has no teacher's configuration" : other_mixer(n, &r->from.model.config);
    if (other == NULL && r->layout->arch != &cab_arch_falcon_h1)
        other = other_layers(n);
    if (r->layout->own || cab_student_layout_holds(r->layout, &r->from.model, keeps, why)) {
        if (other == NULL)
            return CAB_OK;
        snprintf(why, sizeof why, "%s", other);
    }
    list_holding(r, keeps, others, sizeof others);
    return cab_fail(CAB_EUNSUPPORTED, "%s: layout %s cannot hold %s; layouts that can: %s", model, r->layout->name, why,
                    others);
}

/* ---- the new sizes ---------------------------------------------------------------------------------------------------- */

/* A Falcon-H1 of the source's sizes. */
static void derive(const side *from, cab_config *t)
{
    const cab_config *c = &from->model.config;
    const cab_network *n = &from->model.network;
    const cab_attention_mixer *attention = NULL;
    *t = *c;
    t->base = NULL;
    t->in_place = NULL;
    memset(t->layer_kinds, 0, sizeof t->layer_kinds);
    t->attention_bias = t->mlp_bias = false;
    t->embedding_scale = (double)n->embedding_scale;
    t->head_scale = (double)n->head_scale;
    t->attention_scale = t->branch_scale = 0;
    t->multipliers = (cab_multipliers){0};
    for (int l = 0; l < n->n_layer; l++) {
        const cab_block *b = &n->blocks[l];
        const cab_attention_mixer *a = &b->attention;
        attention = cab_block_attends(b) ? a : attention;
        t->attention_bias = t->attention_bias || a->qkv.b != NULL || a->q.b != NULL || a->k.b != NULL ||
                            a->v.b != NULL || a->out.b != NULL;
        t->mlp_bias = t->mlp_bias || b->mlp.gate_up.b != NULL || b->mlp.gate.b != NULL || b->mlp.up.b != NULL ||
                      b->mlp.down.b != NULL;
    }
    t->n_head = attention != NULL ? attention->shape.n_head : 1;
    t->n_kv_head = attention != NULL ? attention->shape.n_kv_head : 1;
    t->head_dim = attention != NULL ? attention->shape.head_dim : IDLE_WIDTH;
    if (attention == NULL)
        t->rope = (cab_rope){.theta = 10000, .dim = IDLE_WIDTH};
}

/* ---- the new parameters ----------------------------------------------------------------------------------------------- */

/* `to`, if the new model has it, is rows first .. of `from`, or zeros where that is NULL. */
static cab_status move(relayout *r, const cab_tensor *to, const cab_tensor *from, int64_t first)
{
    const void *data = NULL;
    if (to == NULL && from == NULL)
        return CAB_OK;
    if (to == NULL)
        return cab_fail(CAB_EUNSUPPORTED, "%s: tensor \"%s\" has no place in layout %s",
                        cab_checkpoint_directory(r->source), from->name, r->layout->name);
    CAB_TRY(CAB_GROW(&r->moved, &r->capacity, r->count + 1, "tensors to write"));
    cab_export_tensor *t = &r->moved[r->count++];
    *t = (cab_export_tensor){.n_dim = to->n_dim};
    snprintf(t->name, sizeof t->name, "%s", to->name);
    memcpy(t->shape, to->shape, sizeof t->shape);
    if (from == NULL)
        return CAB_OK;
    const char *name = !cab_checkpoint_has(r->source, from->name) && from == r->from.model.network.embedding
                           ? "lm_head.weight" /* a tied matrix may be stored under either name */
                           : from->name;
    CAB_TRY(cab_checkpoint_view(r->source, name, from->n_dim, from->shape, CAB_F32, &data));
    t->entry = cab_checkpoint_find(r->source, name);
    t->first = first * (cab_elements(from) / from->shape[0]);
    return CAB_OK;
}

static cab_status move_dense(relayout *r, const cab_dense *to, const cab_dense *from, int64_t first)
{
    CAB_TRY(move(r, to->w, from->w, first));
    return move(r, to->b, from->b, first);
}

static cab_status move_attention(relayout *r, const cab_attention_mixer *to, const cab_attention_mixer *from)
{
    const int64_t q = (int64_t)from->shape.n_head * from->shape.head_dim,
                  k = (int64_t)from->shape.n_kv_head * from->shape.head_dim;
    const bool one = from->qkv.w != NULL;
    CAB_TRY(move_dense(r, &to->q, one ? &from->qkv : &from->q, 0));
    CAB_TRY(move_dense(r, &to->k, one ? &from->qkv : &from->k, one ? q : 0));
    CAB_TRY(move_dense(r, &to->v, one ? &from->qkv : &from->v, one ? q + k : 0));
    return move_dense(r, &to->out, &from->out, 0);
}

static cab_status move_mixer(relayout *r, const cab_mamba2 *to, const cab_mamba2 *from)
{
    CAB_TRY(move_dense(r, &to->in_proj, &from->in_proj, 0));
    CAB_TRY(move_dense(r, &to->out_proj, &from->out_proj, 0));
    CAB_TRY(move(r, to->conv_w, from->conv_w, 0));
    CAB_TRY(move(r, to->conv_b, from->conv_b, 0));
    CAB_TRY(move(r, to->dt_bias, from->dt_bias, 0));
    CAB_TRY(move(r, to->A_log, from->A_log, 0));
    CAB_TRY(move(r, to->D, from->D, 0));
    return move(r, to->norm.w, from->norm.w, 0);
}

static cab_status move_mlp(relayout *r, const cab_mlp *to, const cab_mlp *from)
{
    const bool one = from->gate_up.w != NULL;
    CAB_TRY(move_dense(r, &to->gate, one ? &from->gate_up : &from->gate, 0));
    CAB_TRY(move_dense(r, &to->up, one ? &from->gate_up : &from->up, one ? from->gate_up.w->shape[0] / 2 : 0));
    return move_dense(r, &to->down, &from->down, 0);
}

static cab_status move_all(relayout *r)
{
    const cab_network *to = &r->to.model.network, *from = &r->from.model.network;
    CAB_TRY(move(r, to->embedding, from->embedding, 0));
    for (int l = 0; l < to->n_layer; l++) {
        const cab_block *a = &to->blocks[l], *b = &from->blocks[l];
        CAB_TRY(move(r, a->norm.w, b->norm.w, 0));
        CAB_TRY(move_attention(r, &a->attention, &b->attention));
        CAB_TRY(move_mixer(r, &a->mamba2, &b->mamba2));
        CAB_TRY(move(r, a->mlp_norm.w, b->mlp_norm.w, 0));
        CAB_TRY(move_mlp(r, &a->mlp, &b->mlp));
    }
    CAB_TRY(move(r, to->final_norm.w, from->final_norm.w, 0));
    return to->head.w == to->embedding ? CAB_OK : move_dense(r, &to->head, &from->head, 0);
}

/* ---- the whole -------------------------------------------------------------------------------------------------------- */

static cab_status find_layout(const char *name, const cab_student_layout **out)
{
    for (unsigned i = 0; (*out = cab_student_layout_at(i)) != NULL; i++)
        if (strcmp((*out)->name, name) == 0)
            return CAB_OK;
    return cab_fail(CAB_EARG, "there is no layout \"%s\"", name);
}

static cab_status write_config(const relayout *r, cab_dtype dtype, const char *directory)
{
    json_object *json = json_object_new_object();
    cab_status status = r->to.arch->describe(&r->to.model.config, json);
    if (status == CAB_OK)
        status = cab_export_config(json, dtype, directory);
    json_object_put(json);
    return status;
}

static cab_status rewrite(relayout *r, const cab_export *what, const char *directory, cab_exported *out)
{
    CAB_TRY(cab_architecture_configure(r->from.arch, cab_checkpoint_config(r->source), &r->from.model.config));
    CAB_TRY(outline(&r->from));
    CAB_TRY(check_holds(r, what->model));
    r->to.arch = r->layout->arch;
    derive(&r->from, &r->to.model.config);
    CAB_TRY(outline(&r->to));
    CAB_TRY(move_all(r));
    CAB_TRY(cab_directory_make(directory));
    CAB_TRY(cab_export_weights(r->source, r->moved, r->count, what->dtype, directory, out));
    CAB_TRY(write_config(r, what->dtype, directory));
    return cab_model_copy_tokenizer(what->tokenizer != NULL ? what->tokenizer : what->model, directory);
}

cab_status cab_relayout(const cab_export *what, const char *layout, const char *directory, cab_exported *out)
{
    relayout *r = NULL;
    cab_status status;
    *out = (cab_exported){0};
    CAB_TRY(cab_export_check(what, directory));
    CAB_TRY(CAB_NEW(&r, 1, "a model to write"));
    CAB_GOTO(find_layout(layout, &r->layout));
    CAB_GOTO(cab_checkpoint_open(what->model, &r->source));
    CAB_GOTO(cab_architecture_of(cab_checkpoint_config(r->source), &r->from.arch));
    if (!r->from.arch->student || r->from.arch->measure != NULL)
        status =
            cab_fail(CAB_EUNSUPPORTED, "%s: architecture \"%s\" has no state-space mixers to write in another layout",
                     what->model, r->from.arch->name);
    else if (r->from.arch == r->layout->arch)
        status = cab_export_directory(what, directory, out);
    else
        status = rewrite(r, what, directory, out);
done:
    close_side(&r->from);
    close_side(&r->to);
    cab_checkpoint_close(r->source);
    cab_free(r->moved);
    cab_free(r);
    return status;
}
