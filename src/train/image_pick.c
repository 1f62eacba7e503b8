#include "train/image_pick.h"

#include <stdio.h>
#include <string.h>

cab_status cab_image_pick(cab_image_set *set, uint64_t i, uint64_t n, cab_image *image, uint64_t *index)
{
    const uint64_t count = cab_image_set_count(set), wanted = i * count / n;
    *index = wanted;
    cab_status status = cab_image_set_load(set, wanted, image);
    for (uint64_t k = 1; k < count && status != CAB_OK && cab_image_set_is_bad(set, *index); k++) {
        *index = (wanted + k) % count;
        status = cab_image_set_load(set, *index, image);
    }
    return status;
}

const char *cab_class_caption(const cab_classes *classes, int32_t label, char out[CAB_CAPTION_MAX])
{
    const char *words = classes->words != NULL ? classes->words[label] : NULL;
    const char *text = words != NULL && words[0] != '\0' ? words : classes->names[label];
    snprintf(out, CAB_CAPTION_MAX, "%.*s", (int)strcspn(text, ","), text);
    return out;
}
