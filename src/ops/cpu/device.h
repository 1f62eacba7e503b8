/* device.h - the CPU as a backend, and what its kernels may ask of it. */
#ifndef CAB_OPS_CPU_DEVICE_H
#define CAB_OPS_CPU_DEVICE_H

#include "tensor/backend.h"

cab_status cab_cpu_open(const char *name, cab_backend **backend);

/* The instruction sets kernels are compiled for: baseline x86-64, AVX2 with FMA, AVX-512 (F, BW, CD, DQ, VL). */
typedef enum cab_isa { CAB_ISA_V1, CAB_ISA_V3, CAB_ISA_V4, CAB_ISAS } cab_isa;

/* The best one this processor has, found when the backend was opened. CAB_CPU_ISA=v1|v3|v4 in the environment at that
 * time lowers it. */
cab_isa cab_cpu_isa(const cab_backend *backend);

/* backend->library of the CPU points to this: a place for what kernels keep between runs. They fill it on first use;
 * closing the backend calls `free` if it is set. */
typedef struct cab_library {
    void *state;
    void (*free)(void *state);
} cab_library;

#endif
