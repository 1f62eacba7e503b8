/* fuzz_gguf.c - any bytes as a GGUF file: parsed or refused with a sentence; whatever was believed must be readable, also under
 * transformers' names. */
#include "base/memory.h"
#include "io/gguf_view.h"
#include "tensor/blocks.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const cab_safetensors_entry *entry)
{
    volatile uint64_t sum = 0;
    float *values = NULL;
    int64_t elements = 1;
    for (size_t i = 0; entry->data != NULL && i < entry->bytes; i++)
        sum = sum + ((const uint8_t *)entry->data)[i];
    if (entry->dtype == CAB_DTYPES)
        return;
    for (int i = 0; i < entry->n_dim; i++)
        elements *= entry->shape[i];
    if (elements > 1 << 20 || CAB_NEW(&values, (size_t)elements, "values") != CAB_OK)
        return;
    if (cab_safetensors_entry_read_f32(entry, entry->n_dim, entry->shape, values) == CAB_ESHAPE)
        abort();
    cab_free(values);
}

static void check_refusal(cab_status status)
{
    if (status != CAB_OK && (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_gguf *gguf = NULL;
    cab_gguf_view view;
    cab_error_set_text("");
    cab_status status = cab_gguf_parse(data, size, "fuzz", &gguf);
    check_refusal(status);
    if (status != CAB_OK)
        return 0;
    for (size_t i = 0; i < cab_gguf_count(gguf); i++)
        use(cab_gguf_at(gguf, i));
    cab_error_set_text("");
    status = cab_gguf_view_open(gguf, &view);
    check_refusal(status);
    for (size_t i = 0; status == CAB_OK && i < view.count; i++)
        use(view.rests[i] != NULL ? view.rests[i]
                                  : &view.entries[i]); /* of a tensor in two halves the entry has the shape of both */
    if (status == CAB_OK)
        cab_gguf_view_close(&view);
    cab_gguf_close(gguf);
    return 0;
}
