/* fuzz_safetensors.c - any bytes as a safetensors file: parsed or refused with a sentence; whatever was believed must be
 * readable. Every byte of every accepted tensor is touched, and floating ones are converted. */
#include "base/memory.h"
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use(const cab_safetensors *st, const cab_safetensors_entry *entry)
{
    volatile uint64_t sum = 0;
    float *values = NULL;
    if (entry->n_dim < 0 || entry->n_dim > CAB_SAFETENSORS_DIMS || cab_safetensors_find(st, entry->name) == NULL)
        abort();
    for (size_t i = 0; i < entry->bytes; i++)
        sum = sum + ((const uint8_t *)entry->data)[i];
    if (entry->dtype == CAB_DTYPES || cab_alloc((void **)&values, entry->bytes, 2, "values") != CAB_OK)
        return;
    if (cab_safetensors_entry_read_f32(entry, entry->n_dim, entry->shape, values) == CAB_ESHAPE)
        abort();
    cab_free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_safetensors *st = NULL;
    cab_error_set_text("");
    cab_status status = cab_safetensors_parse(data, size, "fuzz", &st);
    if (status != CAB_OK) {
        if (st != NULL || cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL)
            abort();
        return 0;
    }
    for (size_t i = 0; i < cab_safetensors_count(st); i++)
        use(st, cab_safetensors_at(st, i));
    cab_safetensors_metadata(st, "format");
    cab_safetensors_close(st);
    return 0;
}
