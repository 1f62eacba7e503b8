/* test_checkpoint.c - model directories: whole, in shards, and broken in each way a download can break. */
#include "base/memory.h"
#include "io/checkpoint.h"
#include "temp.h"

#include <math.h>

static const float values[6] = {1, 2, 3, 4, 5, 6};

static void put_text(void **state, const char *name, const char *text)
{
    assert_ok(cab_file_write(temp_path(state, name), text, strlen(text)));
}

/* A file holding one (2, 3) F32 tensor per name; NULL ends the list. */
static void put_tensors(void **state, const char *file, const char *const *names)
{
    cab_safetensors_writer *writer = NULL;
    assert_ok(cab_safetensors_writer_new(&writer));
    for (; *names != NULL; names++)
        assert_ok(cab_safetensors_writer_add(writer, *names, CAB_F32, 2, (int64_t[]){2, 3}, values));
    assert_ok(cab_safetensors_writer_save(writer, temp_path(state, file)));
    cab_safetensors_writer_free(writer);
}

static cab_status open_once(void **state)
{
    cab_checkpoint *ck = NULL;
    cab_status status = cab_checkpoint_open(*state, &ck);
    assert_true((status == CAB_OK) == (ck != NULL));
    cab_checkpoint_close(ck);
    return status;
}

static void one_file(void **state)
{
    cab_checkpoint *ck = NULL;
    float out[6];
    const void *data = NULL;
    int64_t layers = 0;
    put_text(state, "config.json", "{\"n_layer\": 4}");
    put_tensors(state, "model.safetensors", (const char *const[]){"b", "a", NULL});
    assert_ok(cab_checkpoint_open(*state, &ck));
    assert_string_equal(cab_checkpoint_directory(ck), *state);
    assert_ok(cab_json_int(cab_checkpoint_config(ck), NULL, "n_layer", 1, 9, &layers));
    assert_int_equal(layers, 4);
    assert_int_equal(cab_checkpoint_count(ck), 2);
    assert_string_equal(cab_checkpoint_at(ck, 0)->name, "a");
    assert_true(cab_checkpoint_has(ck, "b"));
    assert_false(cab_checkpoint_has(ck, "c"));
    assert_null(cab_checkpoint_find(ck, "c"));
    assert_ok(cab_checkpoint_read_f32(ck, "b", 2, (int64_t[]){2, 3}, out));
    assert_memory_equal(out, values, sizeof out);
    assert_fails(cab_checkpoint_read_f32(ck, "b", 2, (int64_t[]){3, 2}, out), CAB_ESHAPE,
                 "model.safetensors: tensor \"b\": shape (2, 3), expected (3, 2)");
    assert_fails(cab_checkpoint_read_f32(ck, "c", 2, (int64_t[]){2, 3}, out), CAB_EFORMAT,
                 ": tensor \"c\" is missing from the model's weights");
    assert_non_null(strstr(cab_error_text(), *state));
    assert_ok(cab_checkpoint_view(ck, "a", 2, (int64_t[]){2, 3}, CAB_F32, &data));
    assert_ptr_equal(data, cab_checkpoint_find(ck, "a")->data);
    assert_ok(cab_checkpoint_view(ck, "a", 2, (int64_t[]){2, 3}, CAB_BF16, &data));
    assert_null(data);
    assert_fails(cab_checkpoint_view(ck, "a", 1, (int64_t[]){6}, CAB_F32, &data), CAB_ESHAPE, "expected (6)");
    assert_fails(cab_checkpoint_view(ck, "c", 1, (int64_t[]){6}, CAB_F32, &data), CAB_EFORMAT, "\"c\" is missing");
    cab_checkpoint_close(ck);
    cab_checkpoint_close(NULL);
}

/* Older writers did not pad the header: such data cannot be used in place, only copied. */
static void unaligned_data_is_not_viewed(void **state)
{
    static const char header[] = "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[1,25]}}";
    uint8_t file[8 + sizeof header - 1 + 25] = {sizeof header - 1};
    cab_checkpoint *ck = NULL;
    const void *data = file;
    float out[6];
    memcpy(file + 8, header, sizeof header - 1);
    memcpy(file + sizeof file - sizeof values, values, sizeof values);
    put_text(state, "config.json", "{}");
    assert_ok(cab_file_write(temp_path(state, "model.safetensors"), file, sizeof file));
    assert_ok(cab_checkpoint_open(*state, &ck));
    assert_true((uintptr_t)cab_checkpoint_find(ck, "w")->data % 4 != 0);
    assert_ok(cab_checkpoint_view(ck, "w", 2, (int64_t[]){2, 3}, CAB_F32, &data));
    assert_null(data);
    assert_ok(cab_checkpoint_read_f32(ck, "w", 2, (int64_t[]){2, 3}, out));
    assert_memory_equal(out, values, sizeof out);
    cab_checkpoint_close(ck);
}

static void shards(void **state)
{
    cab_checkpoint *ck = NULL;
    float out[6];
    put_text(state, "config.json", "{}");
    put_tensors(state, "one.safetensors", (const char *const[]){"b", "stray", NULL});
    put_tensors(state, "two.safetensors", (const char *const[]){"a", "c", NULL});
    put_text(state, "model.safetensors.index.json",
             "{\"metadata\": {\"total_size\": 72}, \"weight_map\": {\"c\": \"two.safetensors\", \"b\": "
             "\"one.safetensors\", \"a\": \"two.safetensors\"}}");
    assert_ok(cab_checkpoint_open(*state, &ck));
    assert_int_equal(cab_checkpoint_count(ck), 3);
    assert_string_equal(cab_checkpoint_at(ck, 2)->name, "c");
    assert_false(cab_checkpoint_has(ck, "stray"));
    assert_ok(cab_checkpoint_read_f32(ck, "a", 2, (int64_t[]){2, 3}, out));
    assert_memory_equal(out, values, sizeof out);
    assert_ok(cab_checkpoint_read_f32(ck, "b", 2, (int64_t[]){2, 3}, out));
    cab_checkpoint_close(ck);
}

static void broken_indexes(void **state)
{
    static const struct {
        const char *index;
        cab_status status;
        const char *text;
    } cases[] = {
        {"{}", CAB_EFORMAT, "model.safetensors.index.json: \"weight_map\" is missing"},
        {"{\"weight_map\": []}", CAB_EFORMAT, "index.json: \"weight_map\" is [] (array), expected an object"},
        {"{\"weight_map\": {\"a\": \"gone.safetensors\"}}", CAB_EIO,
         "index.json: tensor \"a\" lies in \"gone.safetensors\""},
        {"{\"weight_map\": {\"z\": \"one.safetensors\"}}", CAB_EFORMAT,
         "index.json: tensor \"z\" is not in \"one.safetensors\", where the index puts it"},
        {"{\"weight_map\": {\"a\": \"../one.safetensors\"}}", CAB_EFORMAT,
         "tensor \"a\" lies in \"../one.safetensors\", expected the name of a file of this directory"},
        {"{\"weight_map\": {\"a\": \"/etc/passwd\"}}", CAB_EFORMAT, "expected the name of a file of this directory"},
        {"{\"weight_map\": {\"a\": \"\"}}", CAB_EFORMAT, "expected the name of a file of this directory"},
        {"{\"weight_map\": {\"a\": 7}}", CAB_EFORMAT, "tensor \"a\" lies in 7, expected the name of a file"},
        {"{\"weight_map\": {\"a\": \"config.json\"}}", CAB_EFORMAT, "config.json: "},
        {"{\"weight_map\": {\"a\"", CAB_EFORMAT, "index.json: JSON ends unfinished"},
    };
    put_text(state, "config.json", "{}");
    put_tensors(state, "one.safetensors", (const char *const[]){"a", NULL});
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text(state, "model.safetensors.index.json", cases[i].index);
        assert_fails(open_once(state), cases[i].status, cases[i].text);
    }
}

static void missing_parts(void **state)
{
    cab_checkpoint *ck = NULL;
    assert_fails(cab_checkpoint_open(temp_path(state, "none"), &ck), CAB_EIO, "none: no such directory");
    assert_fails(open_once(state), CAB_EIO, "config.json: cannot open: No such file");
    put_text(state, "config.json", "{\"a\":}");
    assert_fails(open_once(state), CAB_EFORMAT, "config.json: not valid JSON at byte");
    put_text(state, "config.json", "{}");
    assert_fails(open_once(state), CAB_EIO, "neither model.safetensors nor model.safetensors.index.json is there");
    put_text(state, "pytorch_model.bin", "PK");
    assert_fails(open_once(state), CAB_EUNSUPPORTED,
                 "pytorch_model.bin: pickled PyTorch weights are not read; convert");
    put_text(state, "model.safetensors", "version https://git-lfs.github.com/spec/v1\n");
    assert_fails(open_once(state), CAB_EFORMAT, "model.safetensors: a Git LFS pointer of 43 bytes");
    put_text(state, "model.safetensors", "");
    assert_fails(open_once(state), CAB_EFORMAT, "model.safetensors: 0 bytes, too short");
}

static void real_teacher(void **state)
{
    (void)state;
    const char *directory = "../shared/teachers/books-gpt2";
    cab_checkpoint *ck = NULL;
    size_t parameters = 0;
    const void *data = NULL;
    const int64_t shape[2] = {8192, 512};
    if (!cab_path_exists(directory)) {
        print_message("no %s here\n", directory);
        skip();
    }
    assert_ok(cab_checkpoint_open(directory, &ck));
    assert_int_equal(cab_checkpoint_count(ck), 76);
    for (size_t i = 0; i < cab_checkpoint_count(ck); i++) {
        const cab_safetensors_entry *entry = cab_checkpoint_at(ck, i);
        assert_int_equal(entry->dtype, CAB_BF16);
        parameters += entry->bytes / 2;
    }
    assert_int_equal(parameters, 23371776);
    float *out = malloc((size_t)(shape[0] * shape[1]) * sizeof *out);
    assert_ok(cab_checkpoint_read_f32(ck, "transformer.wte.weight", 2, shape, out));
    assert_ok(cab_checkpoint_view(ck, "transformer.wte.weight", 2, shape, CAB_BF16, &data));
    assert_non_null(data);
    for (int64_t i = 0; i < shape[0] * shape[1]; i++)
        if (out[i] != cab_bf16_to_f32(((const cab_bf16 *)data)[i]))
            fail_msg("element %lld differs", (long long)i);
    free(out);
    cab_checkpoint_close(ck);
}

/* A matrix (rows, columns) of 8-bit floats 1, 2, -1.5, 448, 2^-9 and -0 in turn, and its scales 0.5, 1, 1.5 ...; `scale` NULL: none. */
static void put_scaled(void **state, int64_t rows, int64_t columns, const char *scale, int n_dim, const int64_t *shape)
{
    static const uint8_t codes[6] = {0x38, 0x40, 0xbc, 0x7e, 0x01, 0x80};
    static uint8_t stored[130 * 257];
    float scales[160];
    cab_safetensors_writer *writer = NULL;
    for (int64_t i = 0; i < rows * columns; i++)
        stored[i] = codes[i % 6];
    for (int i = 0; i < 160; i++)
        scales[i] = 0.5f * (float)(i + 1);
    assert_ok(cab_safetensors_writer_new(&writer));
    assert_ok(cab_safetensors_writer_add(writer, "w", CAB_F8_E4M3, 2, (int64_t[]){rows, columns}, stored));
    if (scale != NULL)
        assert_ok(cab_safetensors_writer_add(writer, scale, CAB_F32, n_dim, shape, scales));
    assert_ok(cab_safetensors_writer_save(writer, temp_path(state, "model.safetensors")));
    cab_safetensors_writer_free(writer);
}

static const char *const fp8_config =
    "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [128, 128]}}";

static void eight_bit_floats_with_scales(void **state)
{
    static const float meant[6] = {1, 2, -1.5f, 448, 0x1p-9f, 0};
    static float out[130 * 257];
    static const struct {
        const char *name;
        int n_dim;
        int64_t shape[2], span[2];
    } cases[] = {{"w_scale", 0, {0}, {130, 257}},
                 {"w_scale", 2, {130, 1}, {1, 257}},
                 {"w_scale", 1, {130}, {1, 257}},
                 {"w_scale_inv", 2, {2, 3}, {128, 128}}};
    put_text(state, "config.json", fp8_config);
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        cab_checkpoint *ck = NULL;
        const int64_t *span = cases[k].span, across = (257 + span[1] - 1) / span[1];
        put_scaled(state, 130, 257, cases[k].name, cases[k].n_dim, cases[k].shape);
        assert_ok(cab_checkpoint_open(*state, &ck));
        assert_int_equal(cab_checkpoint_count(ck), 1); /* scales are no tensors of the model */
        assert_false(json_object_object_get_ex(cab_checkpoint_config(ck)->root, "quantization_config", NULL));
        for (int part = 0; part < 2; part++) { /* whole, and its last two rows */
            const int64_t first = part ? 128 : 0, rows = 130 - first;
            if (part)
                assert_ok(cab_checkpoint_read_part(ck, cab_checkpoint_find(ck, "w"), first * 257, rows * 257, out));
            else
                assert_ok(cab_checkpoint_read_f32(ck, "w", 2, (int64_t[]){130, 257}, out));
            for (int64_t i = 0; i < rows * 257; i++) {
                const int64_t e = first * 257 + i, s = e / 257 / span[0] * across + e % 257 / span[1];
                assert_true(out[i] == meant[e % 6] * 0.5f * (float)(s + 1));
            }
        }
        cab_checkpoint_close(ck);
    }
}

static void eight_bit_floats_are_refused_by_name(void **state)
{
    cab_checkpoint *ck = NULL;
    float out[12];
    put_text(state, "config.json", fp8_config);
    put_scaled(state, 3, 4, NULL, 0, NULL);
    assert_fails(open_once(state), CAB_EFORMAT, "tensor \"w\" is stored as F8_E4M3, and neither \"w_scale\" nor");
    put_scaled(state, 3, 4, "w_scale", 1, (int64_t[]){2});
    assert_fails(open_once(state), CAB_ESHAPE, "tensor \"w_scale\" has 1 dimensions and 2 rows, expected one scale");
    put_scaled(state, 3, 4, "w_scale", 1, (int64_t[]){3});
    put_text(state, "config.json",
             "{\"quantization_config\": {\"quant_method\": \"fp8\", \"weight_block_size\": [64, 128]}}");
    assert_fails(open_once(state), CAB_EUNSUPPORTED, "weight_block_size is [64,128], expected [128, 128]");
    put_text(state, "config.json",
             "{\"quantization_config\": {\"quant_method\": \"gptq\"}}"); /* which is the model's to refuse */
    assert_ok(cab_checkpoint_open(*state, &ck));
    assert_fails(cab_checkpoint_read_f32(ck, "w", 2, (int64_t[]){3, 4}, out), CAB_EUNSUPPORTED,
                 "tensor \"w\" is stored as F8_E4M3; config.json has no quantization_config");
    cab_checkpoint_close(ck);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEMP_TEST(one_file),
        TEMP_TEST(eight_bit_floats_with_scales),
        TEMP_TEST(eight_bit_floats_are_refused_by_name),
        TEMP_TEST(unaligned_data_is_not_viewed),
        TEMP_TEST(shards),
        TEMP_TEST(broken_indexes),
        TEMP_TEST(missing_parts),
        cmocka_unit_test(real_teacher),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
