/* fuzz_index.c - hostile model.safetensors.index.json files over two shards. Every tensor of what opens is read. */
#include "directory.h"
#include "io/checkpoint.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static const char *const names[] = {"a.safetensors", "b.safetensors"};
    static const char *const tensors[] = {"x", "y"};
    const float values[4] = {1, 2, 3, 4};
    (void)argc;
    (void)argv;
    fuzz_open();
    for (int i = 0; i < 2; i++) {
        cab_safetensors_writer *writer = NULL;
        if (cab_safetensors_writer_new(&writer) != CAB_OK ||
            cab_safetensors_writer_add(writer, tensors[i], CAB_F32, 2, (int64_t[]){2, 2}, values) != CAB_OK ||
            cab_safetensors_writer_add(writer, i == 0 ? "z" : "w", CAB_F32, 1, (int64_t[]){4}, values) != CAB_OK ||
            cab_safetensors_writer_save(writer, fuzz_path(names[i])) != CAB_OK)
            abort();
        cab_safetensors_writer_free(writer);
    }
    fuzz_write("config.json", "{}", 2);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_checkpoint *ck = NULL;
    fuzz_write("model.safetensors.index.json", data, size);
    cab_error_set_text("");
    if (cab_checkpoint_open(fuzz_directory, &ck) != CAB_OK) {
        fuzz_check_error();
        return 0;
    }
    for (size_t i = 0; i < cab_checkpoint_count(ck); i++) {
        const cab_safetensors_entry *e = cab_checkpoint_at(ck, i);
        float values[4];
        if (cab_checkpoint_index(ck, e->name) >= cab_checkpoint_count(ck) ||
            cab_checkpoint_read_f32(ck, e->name, e->n_dim, e->shape, values) != CAB_OK)
            abort();
    }
    cab_checkpoint_close(ck);
    return 0;
}
