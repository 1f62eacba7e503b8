/* optimizer.c - AdamW with decoupled weight decay (Loshchilov & Hutter 2019) over a list of parameters, in one node:
 *
 *   norm = sqrt(sum g^2) over the whole list        g *= clip / norm where norm > clip > 0
 *   m = beta1 m + (1 - beta1) g                     v = beta2 v + (1 - beta2) g^2
 *   p -= rate lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + decay p)
 *   average = ema average + (1 - ema) p             bf16 copy = p        g = 0
 *
 * A norm that is not finite clears the gradients and changes nothing else. */
#include "ops/optimizer.h"

const cab_op cab_op_adamw = {
    .name = "adamw", /* in: lr step   out: norm */
    .effect = true,
};

/* True when `t` is one element of that type. */
static bool is_scalar(const cab_tensor *t, cab_dtype dtype)
{
    return t->dtype == dtype && cab_elements(t) == 1;
}

cab_tensor *cab_adamw(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                      cab_tensor *lr, cab_tensor *step)
{
    if (cab_graph_failed(g) || lr == NULL || step == NULL)
        return NULL;
    char a[96], b[96];
    if (!is_scalar(lr, CAB_F32) || !is_scalar(step, CAB_I32))
        return cab_graph_fail(g, CAB_ESHAPE, "adamw: lr is %s and step %s, expected (1) F32 and (1) I32",
                              cab_shape_text(lr, a), cab_shape_text(step, b));
    cab_adamw_attributes attributes = {.list = list, .n = n, .options = *options};
    for (size_t i = 0; i < n; i++) {
        const cab_tensor *p = list[i].parameter;
        if (p->dtype != CAB_F32 || p->grad == NULL || list[i].m == NULL || list[i].v == NULL)
            return cab_graph_fail(g, CAB_EARG,
                                  "adamw: \"%s\" is %s, expected an F32 parameter with a gradient and moments", p->name,
                                  cab_shape_text(p, a));
        attributes.blocks += ((size_t)cab_elements(p) + CAB_ADAMW_BLOCK - 1) / CAB_ADAMW_BLOCK;
    }
    cab_tensor *norm = cab_graph_activation(g, "gradient norm", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_adamw, 2, (cab_tensor *[]){lr, step}, 1, &norm, &attributes, sizeof attributes);
    cab_graph_keep(g, norm);
    return cab_graph_failed(g) ? NULL : norm;
}
