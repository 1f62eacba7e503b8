#include "distill/layouts.h"

#include "models/architectures.h"

#include <stdio.h>

static const cab_student_layout layouts[] = {
    {.name = "falcon-h1", .arch = &cab_arch_falcon_h1, .keeps = CAB_KEEP_HEADS, .automatic = true, .mlp_biases = true},
    {.name = "granite-hybrid",
     .arch = &cab_arch_granitemoehybrid,
     .keeps = CAB_KEEP_LAYERS,
     .groups = 1,
     .expand = 2,
     .gated_norm = true,
     .multipliers = true},
    {.name = "own",
     .arch = &cab_arch_in_place,
     .keeps = CAB_KEEP_HEADS | CAB_KEEP_LAYERS,
     .automatic = true,
     .own = true},
    {.name = "mamba2", .arch = &cab_arch_mamba2, .no_mlp = true, .expand = 2, .groups = 1, .gated_norm = true},
    {.name = "mamba", .arch = &cab_arch_mamba, .no_mlp = true},
};

const cab_student_layout *cab_student_layout_at(unsigned index)
{
    return index < sizeof layouts / sizeof *layouts ? &layouts[index] : NULL;
}

/* What these layouts hold is Llama's block: RMS norm, mixers, RMS norm, SwiGLU, one after the other. NULL: it is. */
static const char *other_block(const cab_student_layout *layout, const cab_block *b)
{
    const bool biased =
        b->mlp.gate_up.b != NULL || b->mlp.gate.b != NULL || b->mlp.up.b != NULL || b->mlp.down.b != NULL;
    if (layout->no_mlp)
        return b->mlp.down.w != NULL ? "an MLP" : NULL;
    if (b->parallel)
        return "attention and MLP side by side";
    if (b->mlp.down.w == NULL)
        return "layers without an MLP";
    if (b->norm.w == NULL || b->mlp_norm.w == NULL || b->mixed_norm.w != NULL || b->fed_norm.w != NULL)
        return "norms behind attention and MLP";
    if (b->norm.b != NULL || b->mlp_norm.b != NULL)
        return "layer norms";
    if (!cab_mlp_gated(&b->mlp) || b->mlp.act != CAB_SILU)
        return "an MLP other than SwiGLU";
    if (biased && !layout->mlp_biases)
        return "biases of the MLP";
    if (b->branch_scale > 0 && b->branch_scale != 1 && !layout->multipliers)
        return "a factor on the residual branches";
    return NULL;
}

static const char *other_attention(const cab_student_layout *layout, const cab_config *c, const cab_attention_mixer *a)
{
    if (a->out.w == NULL)
        return NULL;
    if (layout->no_mlp)
        return "attention";
    if (a->q_norm.w != NULL || a->k_norm.w != NULL)
        return "norms of Q and K";
    if (a->shape.window > 0 && a->shape.window < c->max_length)
        return "sliding windows";
    if (a->shape.cap > 0)
        return "soft caps of the attention's logits";
    if (a->rope.dim != a->shape.head_dim)
        return "rotary positions of a part of the features, or of none";
    if (a->rope.kind != CAB_ROPE_DEFAULT && a->rope.kind != CAB_ROPE_LLAMA3)
        return "rotary positions scaled otherwise than Llama 3's";
    if (!cab_student_layout_beside(layout) && c->n_head * c->head_dim != c->d_model)
        return "heads that are not width / heads wide";
    return NULL;
}

/* What stands between a Llama's blocks and the logits, or before them. */
static const char *other_ends(const cab_network *n)
{
    if (n->embedding == NULL || n->positions != NULL)
        return "learned positions";
    if (n->final_norm.b != NULL || n->head.b != NULL)
        return "a layer norm or a bias before the logits";
    return n->logit_cap > 0 ? "a soft cap of the logits" : NULL;
}

/* A norm over the features of all heads is another one over those of some. */
static const char *other_norms(const cab_config *c, const cab_attention_mixer *a)
{
    const bool together = (a->q_norm.w != NULL && a->q_norm.w->shape[0] != c->head_dim) ||
                          (a->k_norm.w != NULL && a->k_norm.w->shape[0] != c->head_dim);
    return together ? "norms of Q and K over all heads together, of which some are kept" : NULL;
}

bool cab_student_layout_holds(const cab_student_layout *layout, const cab_model *teacher, int keeps,
                              char why[CAB_WHY_MAX])
{
    const cab_network *n = &teacher->network;
    const char *found = layout->own || layout->no_mlp ? NULL : other_ends(n);
    for (int l = 0; found == NULL && l < n->n_layer; l++) {
        const cab_attention_mixer *a = &n->blocks[l].attention;
        if (!layout->own)
            found = other_block(layout, &n->blocks[l]);
        if (found == NULL && keeps != 0 && !layout->own)
            found = other_attention(layout, &teacher->config, a);
        if (found == NULL && keeps == CAB_KEEP_HEADS && a->out.w != NULL)
            found = other_norms(&teacher->config, a);
    }
    if (found == NULL && layout->no_mlp) /* after what no such layout can hold of any Transformer */
        found = other_ends(n);
    snprintf(why, CAB_WHY_MAX, "%s", found != NULL ? found : "");
    return found == NULL;
}
