/* gguf_internal.h - what reader and writer share: the numbers of the format; gguf.c opens with its layout. */
#ifndef CAB_IO_GGUF_INTERNAL_H
#define CAB_IO_GGUF_INTERNAL_H

#include "io/gguf.h"

enum {
    CAB_GGUF_ALIGNMENT = 32, /* of tensors, unless general.alignment says otherwise */
    CAB_GGUF_DIMS = 4
};

/* Types of metadata. */
enum {
    CAB_GGUF_U8,
    CAB_GGUF_I8,
    CAB_GGUF_U16,
    CAB_GGUF_I16,
    CAB_GGUF_U32,
    CAB_GGUF_I32,
    CAB_GGUF_F32,
    CAB_GGUF_BOOL,
    CAB_GGUF_STRING,
    CAB_GGUF_ARRAY,
    CAB_GGUF_U64,
    CAB_GGUF_I64,
    CAB_GGUF_F64,
    CAB_GGUF_TYPES
};

/* ggml's number of a type that the reader knows. */
uint32_t cab_gguf_tensor_type(cab_dtype dtype);

#endif
