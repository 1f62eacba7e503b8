/* optimizer.c - AdamW with decoupled weight decay (Loshchilov & Hutter 2019) over a list of parameters, in one node:
 *
 *   norm = sqrt(sum g^2) over the whole list        g *= clip / norm where norm > clip > 0
 *   m = beta1 m + (1 - beta1) g                     v = beta2 v + (1 - beta2) g^2
 *   p -= rate lr (m / (1 - beta1^step) / (sqrt(v / (1 - beta2^step)) + eps) + decay p)
 *   average = ema average + (1 - ema) p             bf16 copy = p        g = 0
 *
 * A norm that is not finite clears the gradients and changes nothing else.
 *
 * Ranks that share the optimizer's state have a part of all elements each, and go three ways round: the norms of all
 * parts are gathered; a rank updates its part, and leaves the new values where the gradients were (publish); these are
 * gathered there, in one block, and every rank adopts them. */
#include "ops/optimizer.h"

const cab_op cab_op_adamw = {
    .name = "adamw", /* in: lr step norms (NULL: of the list alone)   out: norm */
    .effect = true,
};

const cab_op cab_op_gradient_norm = {
    .name = "gradient_norm", /* out: norm */
    .effect = true,
};

const cab_op cab_op_adopt = {
    .name = "adopt", /* in: norm */
    .effect = true,
};

/* True when `t` is one element of that type. */
static bool is_scalar(const cab_tensor *t, cab_dtype dtype)
{
    return t->dtype == dtype && cab_elements(t) == 1;
}

/* Whether the list can be updated; sets *attributes. */
static bool take_list(cab_graph *g, const char *op, const cab_optimized *list, size_t n, bool moments,
                      cab_adamw_attributes *attributes)
{
    char text[96];
    attributes->list = list;
    attributes->n = n;
    for (size_t i = 0; i < n; i++) {
        const cab_tensor *p = list[i].parameter;
        if (p->dtype != CAB_F32 || p->grad == NULL || (moments && (list[i].m == NULL || list[i].v == NULL))) {
            cab_graph_fail(g, CAB_EARG, "%s: \"%s\" is %s, expected an F32 parameter with a gradient and moments", op,
                           p->name, cab_shape_text(p, text));
            return false;
        }
        attributes->blocks += ((size_t)cab_optimized_count(&list[i]) + CAB_ADAMW_BLOCK - 1) / CAB_ADAMW_BLOCK;
    }
    return true;
}

cab_tensor *cab_adamw(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                      cab_tensor *lr, cab_tensor *step)
{
    return cab_adamw_part(g, list, n, options, lr, step, NULL);
}

cab_tensor *cab_adamw_part(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options,
                           cab_tensor *lr, cab_tensor *step, cab_tensor *norms)
{
    if (cab_graph_failed(g) || lr == NULL || step == NULL)
        return NULL;
    char a[96], b[96];
    if (!is_scalar(lr, CAB_F32) || !is_scalar(step, CAB_I32))
        return cab_graph_fail(g, CAB_ESHAPE, "adamw: lr is %s and step %s, expected (1) F32 and (1) I32",
                              cab_shape_text(lr, a), cab_shape_text(step, b));
    cab_adamw_attributes attributes = {.options = *options};
    if (!take_list(g, "adamw", list, n, true, &attributes))
        return NULL;
    cab_tensor *norm = cab_graph_activation(g, "gradient norm", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_adamw, 3, (cab_tensor *[]){lr, step, norms}, 1, &norm, &attributes, sizeof attributes);
    cab_graph_keep(g, norm);
    return cab_graph_failed(g) ? NULL : norm;
}

cab_tensor *cab_adamw_norms(cab_graph *g, const cab_optimized *list, size_t n)
{
    cab_adamw_attributes attributes = {0};
    if (cab_graph_failed(g) || !take_list(g, "gradient_norm", list, n, false, &attributes))
        return NULL;
    cab_tensor *norm = cab_graph_activation(g, "norm of a part", CAB_F32, 1, (int64_t[]){1});
    cab_graph_append(g, &cab_op_gradient_norm, 0, NULL, 1, &norm, &attributes, sizeof attributes);
    return cab_gather(g, norm);
}

void cab_adopt(cab_graph *g, const cab_optimized *list, size_t n, const cab_adamw_options *options, cab_tensor *norm)
{
    cab_adamw_attributes attributes = {.options = *options};
    if (!cab_graph_failed(g) && norm != NULL && take_list(g, "adopt", list, n, false, &attributes))
        cab_graph_append(g, &cab_op_adopt, 1, &norm, 0, NULL, &attributes, sizeof attributes);
}
