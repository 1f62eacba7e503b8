/* Results that are read behind later runs: whose they are, in which order, and what is waited for. */
#include "tensor/readback.h"
#include "toy.h"

/* A device whose copies are marked. */
static uint64_t marked, reached;

static cab_status download_behind(cab_backend *backend, void *to, const void *from, size_t bytes, uint64_t *mark)
{
    *mark = ++marked;
    return toy_copy(backend, to, from, bytes);
}

static cab_status reach(cab_backend *backend, uint64_t mark)
{
    (void)backend;
    reached = mark;
    return CAB_OK;
}

static int setup(void **state)
{
    toy_heap *heap = calloc(1, sizeof *heap);
    if (heap == NULL)
        return -1;
    *heap = toy_open();
    marked = reached = 0;
    *state = heap;
    return 0;
}

static int teardown(void **state)
{
    toy_heap *heap = *state;
    const int left = heap->blocks;
    free(heap);
    return left;
}

/* Runs a list that gives x and its sum, x being `value` everywhere, and asks for both. */
typedef struct list {
    cab_graph *g;
    cab_tensor *x, *results[3];
    cab_readback *readback;
} list;

static list list_new(cab_backend *backend)
{
    list l = {0};
    assert_ok(cab_graph_new(backend, &l.g));
    l.x = cab_graph_input(l.g, "x", CAB_F32, 1, (int64_t[]){4});
    cab_tensor *y = toy_mix(l.g, 2, (cab_tensor *[]){l.x, l.x});
    l.results[0] = toy_total(l.g, l.x);
    l.results[2] = toy_total(l.g, y);
    cab_graph_keep(l.g, l.results[0]);
    cab_graph_keep(l.g, l.results[2]);
    assert_ok(cab_graph_plan(l.g, NULL));
    return l;
}

static void list_run(list *l, float value)
{
    assert_ok(cab_tensor_write(l->g, l->x, (float[]){value, value, value, value}));
    assert_ok(cab_graph_run(l->g));
    assert_ok(cab_readback_ask(l->readback));
}

static void expect(list *l, float value)
{
    float got[3] = {0, 77, 0};
    assert_ok(cab_readback_take(l->readback, sizeof *got, got));
    assert_true(got[0] == 4 * value && got[1] == 77 && got[2] == 12 * value);
}

static void list_free(list *l)
{
    cab_readback_free(l->readback);
    cab_graph_free(l->g);
}

static void test_in_the_order_of_the_runs(void **state)
{
    toy_heap *heap = *state;
    for (int device = 0; device < 2; device++) {
        heap->backend.download_behind = device ? download_behind : NULL;
        heap->backend.reach = device ? reach : NULL;
        list l = list_new(&heap->backend);
        assert_ok(cab_readback_new(l.g, 3, l.results, &l.readback));
        list_run(&l, 1);
        list_run(&l, 2);
        assert_int_equal(cab_readback_waiting(l.readback), 2);
        expect(&l, 1);
        assert_int_equal(reached, device ? 1 : 0); /* not the second run */
        for (int i = 3; i < 30; i++) {
            list_run(&l, (float)i);
            expect(&l, (float)i - 1);
        }
        expect(&l, 29);
        assert_int_equal(reached, marked);
        list_free(&l);
    }
}

static void test_as_many_as_there_are_slots(void **state)
{
    toy_heap *heap = *state;
    list l = list_new(&heap->backend);
    float got[3];
    assert_ok(cab_readback_new(l.g, 3, l.results, &l.readback));
    assert_fails(cab_readback_take(l.readback, sizeof *got, got), CAB_EARG, "no run's results wait");
    for (int i = 0; i < CAB_READBACKS; i++)
        list_run(&l, (float)i);
    assert_fails(cab_readback_ask(l.readback), CAB_EARG, "wait to be taken already");
    for (int i = 0; i < CAB_READBACKS; i++)
        expect(&l, (float)i);
    list_free(&l);
}

/* Small kept tensors stand together and come in one copy; a large one comes as it is. */
static void test_results_come_at_once(void **state)
{
    toy_heap *heap = *state;
    cab_graph *g = NULL;
    cab_readback *few = NULL, *all = NULL, *none = NULL;
    float first = 0, third = 0, read[3] = {-1, -1, -1}, large[4][40 * 16];
    assert_ok(cab_graph_new(&heap->backend, &g));
    cab_tensor *x = toy_input(g, 40, 16, 1, 1), *y = toy_running(g, x);
    cab_tensor *kept[4] = {toy_total(g, x), NULL, toy_total(g, y), toy_running(g, y)};
    for (int i = 0; i < 4; i++)
        cab_graph_keep(g, kept[i]);
    assert_ok(cab_graph_plan(g, NULL));
    assert_ok(cab_graph_run(g));
    assert_ok(cab_scalar_read(g, kept[0], &first));
    assert_ok(cab_scalar_read(g, kept[2], &third));
    assert_ok(cab_readback_new(g, 3, kept, &few));
    assert_ok(cab_readback_new(g, 4, kept, &all));
    assert_ok(cab_readback_new(g, 1, &kept[1], &none));
    heap->downloads = 0;
    assert_ok(cab_readback_ask(few));
    assert_int_equal(heap->downloads, 1);
    assert_ok(cab_readback_take(few, sizeof read[0], read));
    assert_true(read[0] == first && read[1] == -1 && read[2] == third && first != third);
    assert_ok(cab_readback_ask(all));
    assert_ok(cab_readback_take(all, sizeof large[0], large));
    float *last = toy_read(g, kept[3]);
    assert_true(large[0][0] == first && large[2][0] == third);
    assert_memory_equal(large[3], last, sizeof large[3]);
    free(last);
    assert_ok(cab_readback_ask(none));
    assert_ok(cab_readback_take(none, sizeof read[0], read));
    cab_readback_free(few);
    cab_readback_free(all);
    cab_readback_free(none);
    cab_graph_free(g);
}

static void test_only_what_the_host_may_read(void **state)
{
    toy_heap *heap = *state;
    list l = list_new(&heap->backend);
    cab_tensor *hidden = toy_total(l.g, l.x);
    assert_ok(cab_readback_new(l.g, 1, &hidden, &l.readback));
    assert_ok(cab_graph_run(l.g));
    assert_fails(cab_readback_ask(l.readback), CAB_EARG, "was not kept");
    list_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_the_order_of_the_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_as_many_as_there_are_slots, setup, teardown),
        cmocka_unit_test_setup_teardown(test_results_come_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_only_what_the_host_may_read, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
