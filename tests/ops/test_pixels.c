/* The op `pixels` against its formula: scaling, erased rectangles, both ways of mixing, partners of another micro-batch. What is not
 * noise has the bits of the formula in fp32 with every operation rounded, on every processor and on the GPU. */
#include "ops/check.h"
#include "ops/pixels.h"

#include <math.h>

enum { CHANNELS = 3 };

typedef struct pixels_case {
    int64_t B, H, W;
    int n;           /* rectangles of each picture; 0: no such input */
    cab_erase fill;  /* of the first one; the others have the next ones */
    bool partners;   /* stand apart */
    cab_blend blend; /* share 0: no such input */
} pixels_case;

typedef struct pixels_data {
    uint8_t *bytes;
    cab_erasure *erasures;
} pixels_data;

static const cab_pixels_scale scale = {255.0f, {0.485f, 0.456f, 0.406f}, {0.229f, 0.224f, 0.225f}};

static pixels_data draw(const pixels_case *c, uint32_t sub)
{
    cab_random random = {.seed = 3, .stream = CAB_STREAM_TEST, .sub = sub};
    const size_t count = (size_t)(c->B * c->H * c->W * CHANNELS);
    pixels_data d = {malloc(count), calloc((size_t)(c->B * c->n + 1), sizeof(cab_erasure))};
    assert_true(d.bytes != NULL && d.erasures != NULL);
    for (size_t i = 0; i < count; i++)
        d.bytes[i] = (uint8_t)cab_random_u32(&random);
    for (int64_t i = 0; i < c->B * c->n; i++) {
        cab_erasure *e = &d.erasures[i];
        e->width = 1 + (int32_t)cab_random_below(&random, (uint64_t)c->W);
        e->height = (int32_t)cab_random_below(&random, (uint64_t)c->H + 1); /* sometimes 0 */
        e->x = (int32_t)cab_random_below(&random, (uint64_t)(c->W - e->width + 1));
        e->y = (int32_t)cab_random_below(&random, (uint64_t)(c->H - e->height + 1));
        e->fill = (int32_t)(((int64_t)c->fill + i) % 3);
        e->random = (cab_random){.seed = UINT64_C(0x123456789abcdef0),
                                 .stream = CAB_STREAM_AUGMENT,
                                 .sub = (uint32_t)i,
                                 .index = ((uint64_t)i << 32) + 7};
    }
    return d;
}

static void pixels_free(pixels_data *d)
{
    free(d->bytes);
    free(d->erasures);
}

/* The noise of one place, number by number. */
static float noise(const cab_erasure *e, int c, int64_t y, int64_t x)
{
    cab_random random = e->random;
    float row[64], value = 0;
    if (e->fill == CAB_ERASE_CONST)
        return 0;
    if (e->fill == CAB_ERASE_RAND) {
        for (int k = 0; k <= c; k++)
            cab_random_normals(&random, &value, 1);
        return value;
    }
    for (int64_t k = 0; k <= c * e->height + y - e->y; k++)
        cab_random_normals(&random, row, (size_t)e->width);
    return row[x - e->x];
}

/* v[b, c, y, x]; *noisy is set where it is noise. */
static float value_of(const pixels_case *c, const pixels_data *d, int64_t b, int channel, int64_t y, int64_t x,
                      bool *noisy)
{
    volatile float v = (float)d->bytes[((b * c->H + y) * c->W + x) * CHANNELS + channel] / scale.divisor;
    v = v - scale.mean[channel];
    v = v / scale.std[channel];
    for (int i = 0; i < c->n; i++) {
        const cab_erasure *e = &d->erasures[b * c->n + i];
        if (y < e->y || y >= e->y + e->height || x < e->x || x >= e->x + e->width)
            continue;
        *noisy = *noisy || e->fill != CAB_ERASE_CONST;
        v = noise(e, channel, y, x);
    }
    return v;
}

static float expected(const pixels_case *c, const pixels_data *own, const pixels_data *partners, int64_t b, int channel,
                      int64_t y, int64_t x, bool *noisy)
{
    const cab_blend *m = &c->blend;
    bool partner_noisy = false;
    const float first = value_of(c, own, b, channel, y, x, noisy);
    if (m->share == 0.0f || m->share == 1.0f || m->alone == b)
        return first;
    const float second = value_of(c, partners, c->B - 1 - b, channel, y, x, &partner_noisy);
    if (m->cut) {
        const bool pasted = x >= m->x && x < m->x + m->width && y >= m->y && y < m->y + m->height;
        *noisy = pasted ? partner_noisy : *noisy;
        return pasted ? second : first;
    }
    *noisy = *noisy || partner_noisy;
    const volatile float kept = first * m->share, given = second * (1.0f - m->share);
    return kept + given;
}

static cab_tensor *erasures_input(cab_graph *g, const pixels_case *c)
{
    return c->n == 0 ? NULL : cab_graph_input(g, "erasures", CAB_I32, 3, (int64_t[]){c->B, c->n, CAB_ERASURE_WORDS});
}

static void run(const pixels_case *c, const pixels_data *own, const pixels_data *partners, float *image)
{
    cab_backend *backend;
    cab_graph *g;
    check_ok(cab_backend_open(check_device(), &backend));
    check_ok(cab_graph_new(backend, &g));
    const int64_t shape[] = {c->B, c->H, c->W, CHANNELS};
    const cab_pixels_inputs in = {
        .bytes = cab_graph_input(g, "bytes", CAB_U8, 4, shape),
        .erasures = erasures_input(g, c),
        .partners = c->partners ? cab_graph_input(g, "partners", CAB_U8, 4, shape) : NULL,
        .partner_erasures = c->partners ? erasures_input(g, c) : NULL,
        .blend = c->blend.share > 0 ? cab_graph_input(g, "blend", CAB_I32, 1, (int64_t[]){CAB_BLEND_WORDS}) : NULL};
    cab_tensor *out = cab_pixels(g, &in, &scale);
    cab_graph_keep(g, out);
    check_ok(cab_graph_plan(g, NULL));
    check_ok(cab_tensor_write(g, in.bytes, own->bytes));
    if (in.erasures != NULL)
        check_ok(cab_tensor_write(g, in.erasures, own->erasures));
    if (in.partners != NULL)
        check_ok(cab_tensor_write(g, in.partners, partners->bytes));
    if (in.partner_erasures != NULL)
        check_ok(cab_tensor_write(g, in.partner_erasures, partners->erasures));
    if (in.blend != NULL)
        check_ok(cab_tensor_write(g, in.blend, &c->blend));
    check_ok(cab_graph_run(g));
    check_ok(cab_tensor_read(g, out, image));
    cab_graph_free(g);
    cab_backend_close(backend);
}

static void check(const pixels_case *c)
{
    const bool host = strcmp(check_device(), "cpu") == 0;
    pixels_data own = draw(c, 0), apart = draw(c, 1);
    const pixels_data *partners = c->partners ? &apart : &own;
    float *image = malloc((size_t)(c->B * CHANNELS * c->H * c->W) * sizeof *image), *at = image;
    int64_t erased = 0;
    assert_non_null(image);
    run(c, &own, &apart, image);
    for (int64_t b = 0; b < c->B; b++)
        for (int channel = 0; channel < CHANNELS; channel++)
            for (int64_t y = 0; y < c->H; y++)
                for (int64_t x = 0; x < c->W; x++, at++) {
                    bool noisy = false;
                    const float e = expected(c, &own, partners, b, channel, y, x, &noisy);
                    erased += noisy;
                    if (noisy && !host ? !(fabsf(*at - e) < 1e-5f) : memcmp(at, &e, sizeof e) != 0)
                        fail_msg("picture %d, channel %d, row %d, column %d of %d x %d: %.9g, expected %.9g", (int)b,
                                 channel, (int)y, (int)x, (int)c->H, (int)c->W, (double)*at, (double)e);
                }
    assert_true(c->n == 0 || erased > 0);
    free(image);
    pixels_free(&own);
    pixels_free(&apart);
}

static void check_on_all(const pixels_case *c)
{
    static const char *const isas[] = {"v1", "v3", "v4"};
    cab_backend *backend = NULL;
    check(c);
    for (size_t i = 0; i < sizeof isas / sizeof *isas && strcmp(check_device(), "cpu") == 0; i++) {
        setenv("CAB_CPU_ISA", isas[i], 1);
        if (cab_backend_open("cpu", &backend) == CAB_OK) {
            cab_backend_close(backend);
            check(c);
        }
        unsetenv("CAB_CPU_ISA");
    }
}

static void test_scaled(void **state)
{
    const pixels_case cases[] = {
        {.B = 1, .H = 1, .W = 1}, {.B = 2, .H = 3, .W = 5}, {.B = 3, .H = 4, .W = 12}, {.B = 2, .H = 5, .W = 16}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        check_on_all(&cases[i]);
}

static void test_erased(void **state)
{
    (void)state;
    for (int fill = CAB_ERASE_CONST; fill <= CAB_ERASE_PIXEL; fill++) {
        check_on_all(&(pixels_case){.B = 4, .H = 9, .W = 16, .n = 1, .fill = (cab_erase)fill});
        check_on_all(&(pixels_case){.B = 2, .H = 7, .W = 11, .n = 3, .fill = (cab_erase)fill});
        check_on_all(&(pixels_case){.B = 2, .H = 16, .W = 20, .n = 4, .fill = (cab_erase)fill});
    }
}

static void test_mixed(void **state)
{
    const cab_blend average = {.share = 0.3f, .alone = -1}, middle = {.share = 0.7f, .alone = 1},
                    whole = {.share = 1.0f, .alone = -1},
                    cut = {.share = 0.6f, .cut = 1, .x = 3, .y = 1, .width = 6, .height = 5, .alone = -1},
                    none = {.share = 0.9f, .cut = 1, .x = 3, .y = 2, .alone = -1};
    const cab_blend *blends[] = {&average, &middle, &whole, &cut, &none};
    (void)state;
    for (size_t i = 0; i < sizeof blends / sizeof *blends; i++)
        for (int partners = 0; partners < 2; partners++)
            for (int n = 0; n < 3; n += 2) {
                check_on_all(&(pixels_case){.B = 3,
                                            .H = 8,
                                            .W = 16,
                                            .n = n,
                                            .fill = CAB_ERASE_PIXEL,
                                            .partners = partners,
                                            .blend = *blends[i]});
                check_on_all(&(pixels_case){
                    .B = 2, .H = 7, .W = 9, .n = n, .fill = CAB_ERASE_RAND, .partners = partners, .blend = *blends[i]});
            }
}

static void test_shape_errors(void **state)
{
    static const char *const texts[] = {
        "pixels: \"bytes\" is (2, 3, 8, 8) U8, expected (B, H, W, 3) U8",
        "pixels: \"erasures\" is (1, 1, 12) I32, expected (2, n, 12) I32",
        "pixels: \"partners\" is (1, 8, 8, 3) U8, expected (B, H, W, 3) U8 like (2, 8, 8, 3) U8",
        "pixels: \"blend\" is (3) I32, expected (8) I32"};
    cab_backend *backend;
    (void)state;
    check_ok(cab_backend_open("cpu", &backend));
    for (int i = 0; i < 4; i++) {
        cab_graph *g;
        check_ok(cab_graph_new(backend, &g));
        const int64_t right[] = {2, 8, 8, 3}, wrong[] = {2, 3, 8, 8}, fewer[] = {1, 8, 8, 3};
        const cab_pixels_inputs in = {
            .bytes = cab_graph_input(g, "bytes", CAB_U8, 4, i == 0 ? wrong : right),
            .erasures =
                i == 1 ? cab_graph_input(g, "erasures", CAB_I32, 3, (int64_t[]){1, 1, CAB_ERASURE_WORDS}) : NULL,
            .partners = i == 2 ? cab_graph_input(g, "partners", CAB_U8, 4, fewer) : NULL,
            .blend = i == 3 ? cab_graph_input(g, "blend", CAB_I32, 1, (int64_t[]){3}) : NULL};
        assert_null(cab_pixels(g, &in, &scale));
        assert_int_equal(cab_graph_plan(g, NULL), CAB_ESHAPE);
        assert_non_null(strstr(cab_error_text(), texts[i]));
        cab_graph_free(g);
    }
    cab_backend_close(backend);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_scaled), cmocka_unit_test(test_erased),
                                       cmocka_unit_test(test_mixed), cmocka_unit_test(test_shape_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
