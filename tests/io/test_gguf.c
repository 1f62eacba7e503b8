/* test_gguf.c - GGUF files: values and tensors as they were written, every way a header can lie, and the view as a directory of
 * transformers. */
#include "base/memory.h"
#include "io/checkpoint.h"
#include "io/gguf_view.h"
#include "temp.h"

#include <math.h>

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9 };
enum { TENSOR_F32 = 0, TENSOR_Q4_0 = 2, TENSOR_Q2_K = 10 };

/* A file under construction. */
typedef struct image {
    uint8_t bytes[1 << 16];
    size_t size;
} image;

static void put(image *f, const void *data, size_t size)
{
    assert_true(f->size + size <= sizeof f->bytes);
    memcpy(f->bytes + f->size, data, size);
    f->size += size;
}

static void put_u32(image *f, uint32_t v)
{
    put(f, &v, sizeof v);
}

static void put_u64(image *f, uint64_t v)
{
    put(f, &v, sizeof v);
}

static void put_text(image *f, const char *text)
{
    put_u64(f, strlen(text));
    put(f, text, strlen(text));
}

static void begin(image *f, uint64_t tensors, uint64_t pairs)
{
    f->size = 0;
    put(f, "GGUF", 4);
    put_u32(f, 3);
    put_u64(f, tensors);
    put_u64(f, pairs);
}

static void pair_text(image *f, const char *key, const char *value)
{
    put_text(f, key);
    put_u32(f, STRING);
    put_text(f, value);
}

static void pair_u32(image *f, const char *key, uint32_t value)
{
    put_text(f, key);
    put_u32(f, U32);
    put_u32(f, value);
}

static void pair_f32(image *f, const char *key, float value)
{
    put_text(f, key);
    put_u32(f, F32);
    put(f, &value, sizeof value);
}

static void tensor(image *f, const char *name, uint64_t rows, uint64_t columns, uint32_t type, uint64_t offset)
{
    put_text(f, name);
    put_u32(f, rows > 0 ? 2 : 1);
    put_u64(f, columns);
    if (rows > 0)
        put_u64(f, rows);
    put_u32(f, type);
    put_u64(f, offset);
}

static void pad(image *f)
{
    while (f->size % 32 != 0)
        put(f, "", 1);
}

static cab_status parse(const image *f)
{
    cab_gguf *g = NULL;
    uint8_t *copy = malloc(f->size > 0 ? f->size : 1); /* of the exact size: a sanitizer sees any read beyond it */
    memcpy(copy, f->bytes, f->size);
    cab_status status = cab_gguf_parse(copy, f->size, "bad.gguf", &g);
    assert_true((status == CAB_OK) == (g != NULL));
    cab_gguf_close(g);
    free(copy);
    return status;
}

static void assert_refused(const image *f, const char *text)
{
    assert_int_not_equal(parse(f), CAB_OK);
    if (strstr(cab_error_text(), text) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", cab_error_text(), text);
}

static void reads_values_and_tensors(void **state)
{
    (void)state;
    static image f;
    cab_gguf *g = NULL;
    const char *text = NULL;
    json_object *list = NULL;
    double number = 0;
    begin(&f, 2, 4);
    pair_text(&f, "general.architecture", "toy");
    pair_f32(&f, "toy.eps", 0.5f);
    pair_u32(&f, "toy.block_count", 3);
    put_text(&f, "toy.names");
    put_u32(&f, ARRAY);
    put_u32(&f, STRING);
    put_u64(&f, 2);
    put_text(&f, "a");
    put_text(&f, "bc");
    tensor(&f, "w", 2, 3, TENSOR_F32, 0);
    tensor(&f, "unread", 0, 256, TENSOR_Q2_K, 32);
    pad(&f);
    const float values[6] = {1, 2, 3, 4, 5, 6};
    put(&f, values, sizeof values);
    assert_int_equal(cab_gguf_parse(f.bytes, f.size, "toy.gguf", &g), CAB_OK);
    const cab_json *m = cab_gguf_metadata(g);
    assert_int_equal(cab_json_string(m, NULL, "general.architecture", &text), CAB_OK);
    assert_string_equal(text, "toy");
    assert_int_equal(cab_json_number(m, NULL, "toy.eps", &number), CAB_OK);
    assert_true(number == 0.5);
    assert_int_equal(cab_json_array(m, NULL, "toy.names", &list), CAB_OK);
    assert_string_equal(json_object_get_string(json_object_array_get_idx(list, 1)), "bc");
    const cab_safetensors_entry *w = cab_gguf_find(g, "w");
    float read[6];
    assert_int_equal(cab_safetensors_entry_read_f32(w, 2, (int64_t[]){2, 3}, read), CAB_OK);
    assert_memory_equal(read, values, sizeof read);
    assert_int_equal(cab_gguf_find(g, "unread")->dtype, CAB_DTYPES);
    assert_null(cab_gguf_find(g, "x"));
    cab_gguf_close(g);
}

static void lying_files(void **state)
{
    (void)state;
    static image f;
    begin(&f, 0, 0);
    f.bytes[0] = 'g';
    assert_refused(&f, "bad.gguf: does not begin with \"GGUF\"");
    begin(&f, 0, 0);
    f.bytes[4] = 1;
    assert_refused(&f, "bad.gguf: GGUF version 1; supported are 2 and 3");
    f.bytes[4] = 0;
    f.bytes[7] = 3;
    assert_refused(&f, "(big-endian?)");
    begin(&f, 0, 1);
    assert_refused(&f, "the file ends at byte 24, within a key");
    begin(&f, 0, UINT64_MAX);
    assert_refused(&f, "18446744073709551615 keys, at most 65536");
    begin(&f, UINT64_MAX / 2, 0);
    assert_refused(&f, "tensors in the 0 bytes left");
    begin(&f, 0, 1);
    put_u64(&f, UINT64_MAX);
    assert_refused(&f, "a key of 18446744073709551615 bytes");
    begin(&f, 0, 2);
    pair_u32(&f, "k", 1);
    pair_u32(&f, "k", 1);
    assert_refused(&f, "the key \"k\" stands there twice");
    begin(&f, 0, 1);
    put_text(&f, "k");
    put_u32(&f, ARRAY);
    put_u32(&f, U32);
    put_u64(&f, 1 << 30);
    assert_refused(&f, "k has 1073741824 elements, at most");
    begin(&f, 0, 1);
    put_text(&f, "k");
    put_u32(&f, 13);
    assert_refused(&f, "\"k\" is of type 13");
}

static void lying_tensors(void **state)
{
    (void)state;
    static image f;
    begin(&f, 1, 0);
    tensor(&f, "w", 2, 3, TENSOR_F32, 0);
    pad(&f);
    assert_refused(&f, "tensor \"w\": 24 bytes at 0 of a body of 0: the file is truncated");
    begin(&f, 1, 0);
    tensor(&f, "w", 2, 3, TENSOR_F32, UINT64_MAX);
    pad(&f);
    assert_refused(&f, "the file is truncated");
    begin(&f, 1, 0);
    tensor(&f, "w", 2, 33, TENSOR_Q4_0, 0);
    assert_refused(&f, "tensor \"w\": rows of 33 elements, expected a multiple of 32 for Q4_0");
    begin(&f, 1, 0);
    tensor(&f, "w", UINT64_C(1) << 40, UINT64_C(1) << 40, TENSOR_F32, 0);
    assert_refused(&f, "more than 2^63 elements");
    begin(&f, 1, 0);
    tensor(&f, "w", 2, 3, 99, 0);
    assert_refused(&f, "tensor \"w\": unknown type 99");
    begin(&f, 2, 0);
    tensor(&f, "w", 0, 0, TENSOR_F32, 0);
    tensor(&f, "w", 0, 0, TENSOR_F32, 0);
    assert_refused(&f, "tensor \"w\" stands there twice");
}

/* ---- as a directory ------------------------------------------------------------------------------------------------- */

/* A llama of one layer, width 4, two heads of 2 and one key head, of which only the tensors that are changed on the way are here. */
static void put_llama(image *f, const char *more_key)
{
    begin(f, 3, more_key != NULL ? 9 : 8);
    pair_text(f, "general.architecture", "llama");
    pair_u32(f, "llama.block_count", 1);
    pair_u32(f, "llama.context_length", 64);
    pair_u32(f, "llama.embedding_length", 4);
    pair_u32(f, "llama.attention.head_count", 1);
    pair_f32(f, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    pair_f32(f, "llama.rope.freq_base", 1e4f);
    pair_u32(f, "tokenizer.ggml.eos_token_id", 2);
    if (more_key != NULL)
        pair_u32(f, more_key, 1);
    tensor(f, "token_embd.weight", 3, 4, TENSOR_F32, 0);
    tensor(f, "blk.0.attn_q.weight", 4, 4, TENSOR_F32, 64);
    tensor(f, "output_norm.weight", 0, 4, TENSOR_F32, 128);
    pad(f);
    for (int i = 0; i < 36; i++) {
        const float v = (float)i;
        put(f, &v, sizeof v);
    }
}

static void write_image(const image *f, const char *directory, char path[CAB_PATH_MAX])
{
    assert_int_equal(cab_path_join(path, directory, "toy.gguf"), CAB_OK);
    assert_int_equal(cab_file_write(path, f->bytes, f->size), CAB_OK);
}

static void looks_like_a_directory(void **state)
{
    static image f;
    char path[CAB_PATH_MAX];
    cab_checkpoint *ck = NULL;
    int64_t width = 0, end = 0, vocab = 0, head = 0;
    bool tied = false;
    float q[16];
    put_llama(&f, NULL);
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_OK);
    const cab_json *config = cab_checkpoint_config(ck);
    assert_int_equal(cab_json_int(config, NULL, "hidden_size", 1, 100, &width), CAB_OK);
    assert_int_equal(cab_json_int(config, NULL, "vocab_size", 1, 100, &vocab), CAB_OK);
    assert_int_equal(cab_json_int(config, NULL, "eos_token_id", 0, 100, &end), CAB_OK);
    assert_int_equal(cab_json_int(config, NULL, "head_dim", 0, 100, &head), CAB_OK);
    assert_int_equal(cab_json_bool_or(config, NULL, "tie_word_embeddings", false, &tied), CAB_OK);
    assert_int_equal(width, 4);
    assert_int_equal(vocab, 3);
    assert_int_equal(end, 2);
    assert_int_equal(head, 4);
    assert_true(tied);
    /* llama.cpp has rotated pairs side by side: rows 0, 1, 2, 3 there are 0, 2, 1, 3 here. */
    assert_int_equal(cab_checkpoint_read_f32(ck, "model.layers.0.self_attn.q_proj.weight", 2, (int64_t[]){4, 4}, q),
                     CAB_OK);
    const float first[4] = {q[0], q[4], q[8], q[12]}, expected[4] = {16, 24, 20, 28};
    assert_memory_equal(first, expected, sizeof first);
    const void *view = NULL;
    assert_int_equal(
        cab_checkpoint_view(ck, "model.layers.0.self_attn.q_proj.weight", 2, (int64_t[]){4, 4}, CAB_F32, &view),
        CAB_OK);
    assert_null(view); /* is not there as it is needed */
    assert_true(cab_checkpoint_has(ck, "model.norm.weight"));
    cab_checkpoint_close(ck);
}

/* Llama 3's table of factors is transformers' longrope, of any length; the tensor is none of the model's. */
static void reads_rotary_factors(void **state)
{
    static image f;
    char path[CAB_PATH_MAX];
    cab_checkpoint *ck = NULL;
    json_object *scaling = NULL, *list = NULL;
    const float factors[2] = {1, 4.5f}, row[8] = {0};
    const char *type = NULL;
    begin(&f, 2, 5);
    pair_text(&f, "general.architecture", "llama");
    pair_u32(&f, "llama.block_count", 1);
    pair_u32(&f, "llama.context_length", 64);
    pair_u32(&f, "llama.embedding_length", 4);
    pair_u32(&f, "llama.attention.head_count", 1);
    tensor(&f, "token_embd.weight", 2, 4, TENSOR_F32, 0);
    tensor(&f, "rope_freqs.weight", 0, 2, TENSOR_F32, 32);
    pad(&f);
    put(&f, row, sizeof row);
    put(&f, factors, sizeof factors);
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_OK);
    const cab_json *config = cab_checkpoint_config(ck);
    assert_int_equal(cab_json_object(config, NULL, "rope_scaling", &scaling), CAB_OK);
    assert_int_equal(cab_json_string(config, scaling, "rope_type", &type), CAB_OK);
    assert_string_equal(type, "longrope");
    static const char *const keys[] = {"short_factor", "long_factor"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(cab_json_array(config, scaling, keys[i], &list), CAB_OK);
        assert_int_equal(json_object_array_length(list), 2);
        assert_true(json_object_get_double(json_object_array_get_idx(list, 1)) == 4.5);
    }
    assert_false(cab_checkpoint_has(ck, "rope_freqs.weight"));
    cab_checkpoint_close(ck);
}

static void refuses_what_it_does_not_know(void **state)
{
    static image f;
    char path[CAB_PATH_MAX];
    cab_checkpoint *ck = NULL;
    put_llama(&f, "llama.expert_count");
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_EUNSUPPORTED);
    assert_non_null(strstr(cab_error_text(), "the key \"llama.expert_count\" is not known"));
    begin(&f, 0, 1);
    pair_text(&f, "general.architecture", "rwkv6");
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_EUNSUPPORTED);
    assert_non_null(
        strstr(cab_error_text(), "architecture \"rwkv6\" is not read from GGUF files; supported are llama, qwen2"));
}

/* Two layers of width 4, as llama.cpp has them; only the tensors that are changed on the way. */
static void put_mixers(image *f, const char *architecture, uint32_t inner, float a)
{
    static const char *const keys[] = {"block_count",         "embedding_length", "attention.head_count",
                                       "feed_forward_length", "ssm.conv_kernel",  "ssm.state_size",
                                       "ssm.time_step_rank",  "ssm.group_count"};
    static const uint32_t values[] = {2, 4, 2, 3, 2, 5, 2, 1};
    char key[64];
    begin(f, 5, 11);
    pair_text(f, "general.architecture", architecture);
    for (int i = 0; i < 8; i++) {
        snprintf(key, sizeof key, "%s.%s", architecture, keys[i]);
        pair_u32(f, key, values[i]);
    }
    snprintf(key, sizeof key, "%s.ssm.inner_size", architecture);
    pair_u32(f, key, inner);
    snprintf(key, sizeof key, "%s.attention.head_count_kv", architecture);
    put_text(f, key);
    put_u32(f, ARRAY);
    put_u32(f, I32);
    put_u64(f, 2);
    put_u32(f, 0);
    put_u32(f, 1);
    tensor(f, "token_embd.weight", 3, 4, TENSOR_F32, 0);
    tensor(f, "blk.0.ssm_a", 2, 1, TENSOR_F32, 64);
    tensor(f, "blk.0.ssm_conv1d.weight", 6, 2, TENSOR_F32, 96);
    tensor(f, "blk.1.ffn_gate.weight", 3, 4, TENSOR_F32, 160);
    tensor(f, "blk.1.ffn_up.weight", 3, 4, TENSOR_F32, 224);
    pad(f);
    for (int i = 0; i < 68; i++) {
        const float v = i == 16 || i == 17 ? a * (float)(i - 15) : (float)i;
        put(f, &v, sizeof v);
    }
}

static void expect_int(const cab_json *json, const char *key, int64_t expected)
{
    int64_t value = -1;
    assert_int_equal(cab_json_int(json, NULL, key, 0, 1 << 20, &value), CAB_OK);
    assert_int_equal(value, expected);
}

static void reads_mixers(void **state)
{
    static image f;
    char path[CAB_PATH_MAX];
    cab_checkpoint *ck = NULL;
    json_object *types = NULL;
    float a[2], both[24], part[12];
    bool rope = false;
    put_mixers(&f, "granitehybrid", 8, -1);
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_OK);
    const cab_json *config = cab_checkpoint_config(ck);
    expect_int(config, "mamba_expand", 2);
    expect_int(config, "mamba_n_heads", 2);
    expect_int(config, "num_key_value_heads", 1);
    expect_int(config, "num_local_experts", 0);
    expect_int(config, "shared_intermediate_size", 3);
    assert_int_equal(cab_json_bool_or(config, NULL, "mamba_conv_bias", true, &rope), CAB_OK);
    assert_false(rope);
    assert_int_equal(cab_json_array(config, NULL, "layer_types", &types), CAB_OK);
    assert_string_equal(json_object_to_json_string_ext(types, JSON_C_TO_STRING_PLAIN), "[\"mamba\",\"attention\"]");
    assert_int_equal(cab_checkpoint_read_f32(ck, "model.layers.0.mamba.A_log", 1, (int64_t[]){2}, a), CAB_OK);
    assert_true(a[0] == 0 && fabsf(a[1] - logf(2)) < 1e-7f); /* -1 and -2 */
    const cab_safetensors_entry *filter = cab_checkpoint_find(ck, "model.layers.0.mamba.conv1d.weight");
    assert_int_equal(filter->n_dim, 3);
    assert_true(filter->shape[0] == 6 && filter->shape[1] == 1 && filter->shape[2] == 2);
    const cab_safetensors_entry *mlp = cab_checkpoint_find(ck, "model.layers.1.shared_mlp.input_linear.weight");
    assert_int_equal(cab_checkpoint_read_f32(ck, mlp->name, 2, (int64_t[]){6, 4}, both), CAB_OK);
    assert_int_equal(cab_checkpoint_read_part(ck, mlp, 8, 12, part), CAB_OK);
    for (int i = 0; i < 24; i++) /* gate, then up, which lie at 40 and 56 */
        assert_true(both[i] == (float)(i < 12 ? 40 + i : 56 + i - 12));
    assert_memory_equal(part, both + 8, sizeof part);
    cab_checkpoint_close(ck);
}

static void refuses_mixers(void **state)
{
    static const struct {
        const char *architecture;
        uint32_t inner;
        float a;
        const char *from, *to, *text; /* bytes of the file that are replaced */
    } cases[] = {
        {"granitehybrid", 8, 0.5f, NULL, NULL,
         "\"model.layers.0.mamba.A_log\": element 0 is 0.5, expected a number below 0"},
        {"granitehybrid", 6, -1, NULL, NULL, "\"granitehybrid.ssm.inner_size\" is 6, expected a multiple of 4"},
        {"mamba2", 8, -1, "group_count", "group_coumt", "the key \"mamba2.ssm.group_coumt\" is not known"},
        {"mamba2", 8, -1, "ssm.conv_kernel", "embedding_scale", "\"mamba2.ssm.conv_kernel\" is missing"},
        {"granitehybrid", 8, -1, "blk.1.ffn_gate", "blk.1.ffn_gatx", "has no place in a model"},
        {"granitehybrid", 8, -1, "blk.1.ffn_up", "blk.0.ffn_up", "tensor \"blk.1.ffn_up.weight\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        static image f;
        char path[CAB_PATH_MAX];
        cab_checkpoint *ck = NULL;
        float a[2];
        put_mixers(&f, cases[i].architecture, cases[i].inner, cases[i].a);
        for (size_t at = 0; cases[i].from != NULL && at + strlen(cases[i].from) < f.size; at++)
            if (memcmp(f.bytes + at, cases[i].from, strlen(cases[i].from)) == 0)
                memcpy(f.bytes + at, cases[i].to, strlen(cases[i].to));
        write_image(&f, *state, path);
        cab_status status = cab_checkpoint_open(path, &ck);
        if (status == CAB_OK)
            status = cab_checkpoint_read_f32(ck, "model.layers.0.mamba.A_log", 1, (int64_t[]){2}, a);
        assert_int_not_equal(status, CAB_OK);
        if (strstr(cab_error_text(), cases[i].text) == NULL)
            fail_msg("\"%s\" does not say \"%s\"", cab_error_text(), cases[i].text);
        cab_checkpoint_close(ck);
    }
}

/* An embedding of no rows has any width without a byte of data: nothing of that width may be allocated. */
static void refuses_a_width_without_rows(void **state)
{
    static image f;
    char path[CAB_PATH_MAX];
    cab_checkpoint *ck = NULL;
    static const char *const keys[] = {"block_count",    "embedding_length", "attention.head_count", "ssm.conv_kernel",
                                       "ssm.inner_size", "ssm.state_size",   "ssm.time_step_rank",   "ssm.group_count"};
    begin(&f, 2, 9);
    pair_text(&f, "general.architecture", "falcon-h1");
    for (int i = 0; i < 8; i++) {
        char key[64];
        snprintf(key, sizeof key, "falcon-h1.%s", keys[i]);
        pair_u32(&f, key, 2);
    }
    put_text(&f, "token_embd.weight");
    put_u32(&f, 2);
    put_u64(&f, UINT64_C(1) << 40);
    put_u64(&f, 0);
    put_u32(&f, TENSOR_F32);
    put_u64(&f, 0);
    tensor(&f, "blk.0.attn_q.bias", 0, 2, TENSOR_F32, 0);
    pad(&f);
    put(&f, (float[]){1, 2}, 8);
    write_image(&f, *state, path);
    assert_int_equal(cab_checkpoint_open(path, &ck), CAB_ESHAPE);
    assert_non_null(strstr(cab_error_text(), "\"token_embd.weight\" has 1099511627776 columns, expected 1 to 65536"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_and_tensors),
        cmocka_unit_test(lying_files),
        cmocka_unit_test(lying_tensors),
        cmocka_unit_test_setup_teardown(looks_like_a_directory, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(reads_rotary_factors, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(refuses_what_it_does_not_know, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(reads_mixers, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(refuses_mixers, temp_setup, temp_teardown),
        cmocka_unit_test_setup_teardown(refuses_a_width_without_rows, temp_setup, temp_teardown),
    };
    return cmocka_run_group_tests_name("gguf", tests, NULL, NULL);
}
