/* term_align.c - alignment: the student's B and C, carried over a bridge (nn/bridge.h), against the teacher's K and Q.
 *
 *   mean over aligned layers l of  mse(phi_B(B_l), psi(K_g(l))) + mse(phi_C(C_l), psi(Q_g(l)))
 *
 * and the same of the second direction where the student has two; with bridge.error: relative each error is divided by the
 * variance of its target. The state is the cab_bridge. */
#include "base/memory.h"
#include "distill/term.h"
#include "nn/bridge.h"

/* Alignment compares token with token. */
static cab_status align_check(const cab_config *s, const cab_config *t)
{
    if (s->patch_size == t->patch_size)
        return CAB_OK;
    return cab_fail(CAB_ESHAPE,
                    "the student has patches of %d pixels, the teacher of %d: alignment compares token with token",
                    s->patch_size, t->patch_size);
}

static cab_bridge_widths widths_of(const cab_model *student, int l, const cab_model *teacher, int t)
{
    return (cab_bridge_widths){.B = cab_model_tap_width(student, l, CAB_TAP_B),
                               .C = cab_model_tap_width(student, l, CAB_TAP_C),
                               .K = cab_model_tap_width(teacher, t, CAB_TAP_KEY),
                               .Q = cab_model_tap_width(teacher, t, CAB_TAP_QUERY)};
}

static cab_status align_open(const cab_term_setup *setup, void **state)
{
    static const cab_activation_kind activations[] = {CAB_SILU, CAB_GELU_ERF, CAB_RELU, CAB_TANH};
    static const cab_feature_map maps[] = {CAB_MAP_NONE, CAB_MAP_NONE, CAB_MAP_RELU, CAB_MAP_EXP};
    const struct cab_recipe_bridge *b = &setup->recipe->bridge;
    const cab_model *student = setup->student, *teacher = setup->teacher;
    const cab_bridge_options options = {.n_layer = (int)b->n_layer,
                                        .hidden = b->hidden > 0 ? b->hidden : teacher->config.d_model,
                                        .activation = activations[b->activation],
                                        .softmax = b->feature_map == CAB_BRIDGE_MAP_SOFTMAX,
                                        .map = maps[b->feature_map],
                                        .relative = b->error == CAB_BRIDGE_ERROR_RELATIVE,
                                        .bidirectional = cab_network_bidirectional(&student->network)};
    const int n_layer = student->config.n_layer;
    int *map = NULL; /* a layer of attention alone has no B and C */
    cab_bridge_widths *widths = NULL;
    cab_bridge *bridge = NULL;
    cab_status status;
    CAB_TRY(align_check(&student->config, &teacher->config));
    CAB_GOTO(CAB_NEW(&map, (size_t)n_layer, "a bridge"));
    CAB_GOTO(CAB_NEW(&widths, (size_t)n_layer, "a bridge"));
    for (int l = 0; l < n_layer; l++) {
        map[l] = cab_model_tap_width(student, l, CAB_TAP_B) > 0 ? setup->layer_map[l] : -1;
        if (map[l] >= 0)
            widths[l] = widths_of(student, l, teacher, map[l]);
    }
    status = cab_bridge_new(setup->params, &options, map, n_layer, widths, (uint64_t)setup->recipe->seed, &bridge);
done:
    cab_free(map);
    cab_free(widths);
    *state = bridge;
    return status;
}

static void align_close(void *state)
{
    cab_bridge_free(state);
}

/* Tokens beside the sequence, as a class token, stand elsewhere in the student than in the teacher. */
static void record_pairs(const cab_term_inputs *in, cab_tensor **scalars)
{
    const cab_taps *s = in->student_taps, *t = in->teacher_taps;
    if (in->student->config.n_special == 0) {
        cab_bridge_record(in->g, in->state, s->B, s->C, t->key, t->query, scalars);
        return;
    }
    const cab_bridge_images sides = {.B = s->B,
                                     .C = s->C,
                                     .B_back = s->key_back,
                                     .C_back = s->query_back,
                                     .K = t->key,
                                     .Q = t->query,
                                     .rows = {.class_at = in->student->config.class_at,
                                              .skip = in->teacher->config.n_special - in->student->config.n_special}};
    cab_bridge_record_images(in->g, in->state, &sides, scalars);
}

static cab_status align_record(const cab_term_inputs *in, cab_term_output *out)
{
    const int n = cab_bridge_terms(in->state);
    cab_tensor **scalars = NULL;
    cab_status status = CAB_OK;
    out->over = cab_bridge_aligned(in->state);
    CAB_TRY(CAB_NEW(&scalars, (size_t)n, "alignment terms"));
    record_pairs(in, scalars);
    for (int i = 0; i < n; i++)
        CAB_GOTO(cab_term_add(in->g, out, scalars[i]));
done:
    cab_free(scalars);
    return status;
}

enum {
    STUDENT_TAPS = CAB_TAP_BIT(CAB_TAP_C) | CAB_TAP_BIT(CAB_TAP_B) | CAB_TAP_BIT(CAB_TAP_QUERY_BACK) |
                   CAB_TAP_BIT(CAB_TAP_KEY_BACK),
    TEACHER_TAPS = CAB_TAP_BIT(CAB_TAP_QUERY) | CAB_TAP_BIT(CAB_TAP_KEY)
};

const cab_term cab_term_align = {
    .needs = CAB_NEEDS_TEACHER,
    .student_taps = STUDENT_TAPS,
    .teacher_taps = TEACHER_TAPS,
    .chart = {.title = "Alignment, training",
              .note = "bridged B, C against the teacher's K, Q",
              .unit = "mean squared error",
              .logarithmic = true},
    .open = align_open,
    .close = align_close,
    .record = align_record,
};
