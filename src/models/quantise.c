/* quantise.c - which matrices of a frozen model are multiplied in 8 bits: those that linear layers read, layer by layer. */
#include "base/log.h"
#include "models/model.h"
#include "ops/fp8.h"

#include <string.h>

/* Whether a name has a number among its parts, as "h.0.attn.c_attn.weight". */
static bool in_a_layer(const char *name)
{
    for (const char *dot = strchr(name, '.'); dot != NULL; dot = strchr(dot + 1, '.')) {
        const size_t digits = strspn(dot + 1, "0123456789");
        if (digits > 0 && dot[1 + digits] == '.')
            return true;
    }
    return false;
}

cab_status cab_model_quantise(cab_model *model)
{
    const cab_tensor *left = NULL;
    size_t n_left = 0, n = 0;
    char shape[96];
    CAB_TRY(cab_fp8_check(model->backend));
    if (model->precision != CAB_PRECISION_BF16)
        return cab_fail(CAB_EARG, "fp8 goes with precision bf16, found fp32");
    for (size_t i = 0; i < cab_params_count(model->params); i++) {
        cab_tensor *t = cab_params_at(model->params, i);
        if (t->trainable || t->n_dim != 2 || !in_a_layer(t->name))
            continue;
        n++;
        t->fp8 = cab_fp8_fits(t);
        if (!t->fp8 && n_left++ == 0)
            left = t;
    }
    if (left != NULL)
        cab_log_info("fp8: %zu of %zu matrices stay in bf16, as \"%s\", %s: their sides are no multiples of 16", n_left,
                     n, left->name, cab_shape_text(left, shape));
    return CAB_OK;
}
