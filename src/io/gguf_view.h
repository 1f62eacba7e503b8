/* gguf_view.h - a GGUF file as the Hugging Face directory that it was made from: the keys of config.json, and tensors under the names of
 * transformers.
 *
 * So an architecture is read by one file of src/models, wherever its weights come from. What llama.cpp's converter changed on the way is
 * changed back while values are read (cab_gguf_change). */
#ifndef CAB_IO_GGUF_VIEW_H
#define CAB_IO_GGUF_VIEW_H

#include "io/gguf.h"

/* What a value of the file has to go through to be transformers'. */
typedef struct cab_gguf_change {
    int heads; /* rows come head by head, and within each, row i of the first half of transformers' is row 2 i, of the second 2 i + 1; 0:
                    as they are */
    float added; /* to every element */
} cab_gguf_change;

typedef struct cab_gguf_view {
    cab_json config;
    cab_safetensors_entry *entries;
    cab_gguf_change *changes; /* by entry */
    size_t count;
    char **names; /* owned; entries point to them */
} cab_gguf_view;

/* CAB_EUNSUPPORTED, with what is supported: an architecture that has no row here, or a key of it that changes what is computed and is not
 * known. The file must outlive the view. */
cab_status cab_gguf_view_open(const cab_gguf *gguf, cab_gguf_view *view);
void cab_gguf_view_close(cab_gguf_view *view);

/* Row of the file that is row `row` of transformers' tensor, of `rows`. */
int64_t cab_gguf_row(const cab_gguf_change *change, int64_t rows, int64_t row);

#endif
