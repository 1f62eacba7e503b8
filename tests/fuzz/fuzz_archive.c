/* fuzz_archive.c - any bytes as a tar or zip of images: refused with a sentence, perhaps after some members; every byte of
 * every member must be readable, every file found by its name, and no more expanded than allowed. Class maps, the other
 * text that an image set reads, are tried on the same bytes. */
#include "data/image_archive.h"
#include "data/image_classes.h"

#include <stdlib.h>
#include <string.h>

enum { EXPANDED_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_text(void)
{
    if (cab_error_text()[0] == '\0' || strchr(cab_error_text(), '\n') != NULL)
        abort();
}

static void use(const cab_archive *archive, const uint8_t *data, size_t size)
{
    volatile uint64_t sum = 0;
    size_t expanded = 0;
    for (size_t i = 0; i < cab_archive_count(archive); i++) {
        const cab_member *m = cab_archive_at(archive, i);
        for (size_t k = 0; k < m->size; k++)
            sum = sum + m->data[k];
        if ((uintptr_t)m->data < (uintptr_t)data || (uintptr_t)m->data > (uintptr_t)data + size)
            expanded += m->size;
        if (!m->directory && cab_archive_find(archive, m->name) == NULL)
            abort();
    }
    if (expanded > EXPANDED_MAX)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cab_archive *archive = NULL;
    cab_classes classes;
    cab_error_set_text("");
    cab_status status =
        cab_archive_parse(data, size, "fuzz.tar", &(cab_expand_limits){.total = EXPANDED_MAX}, &archive);
    if (status != CAB_OK)
        check_text();
    if (status == CAB_OK && archive == NULL)
        abort();
    if (archive != NULL)
        use(archive, data, size);
    cab_archive_close(archive);
    if (cab_classes_parse((const char *)data, size, "fuzz.tsv", &classes) != CAB_OK)
        check_text();
    else
        for (size_t i = 0; i < classes.count; i++)
            if (cab_classes_find(&classes, classes.names[i]) != (int32_t)i)
                abort();
    cab_classes_free(&classes);
    return 0;
}
