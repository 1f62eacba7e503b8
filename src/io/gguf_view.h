/* gguf_view.h - a GGUF file as the Hugging Face directory that it was made from: the keys of config.json, and tensors under the names of
 * transformers.
 *
 * So an architecture is read by one file of src/models, wherever its weights come from. What llama.cpp's converter changed on the way is
 * changed back while values are read (cab_gguf_change). */
#ifndef CAB_IO_GGUF_VIEW_H
#define CAB_IO_GGUF_VIEW_H

#include "io/gguf.h"
#include "io/gguf_names.h"

typedef struct cab_gguf_view {
    cab_json config;
    cab_safetensors_entry *entries;
    cab_gguf_change *changes; /* by entry */
    const cab_safetensors_entry *
        *rests;   /* by entry: the file's tensor with the second half of its rows; NULL: it has all */
    float *zeros; /* of entries that the file leaves out */
    size_t count;
    char **names; /* owned; entries point to them */
} cab_gguf_view;

/* CAB_EUNSUPPORTED, with what is supported: an architecture that has no row here, or a key of it that changes what is computed and is not
 * known. The file must outlive the view. */
cab_status cab_gguf_view_open(const cab_gguf *gguf, cab_gguf_view *view);
void cab_gguf_view_close(cab_gguf_view *view);

#endif
