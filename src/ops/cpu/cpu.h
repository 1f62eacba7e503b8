/* cpu.h - the CPU kernels, compiled three times (baseline x86-64, AVX2, AVX-512).
 *
 * Every kernel is listed in kernels.h. A kernel file defines  cab_status CAB_ISA(cab_linear_forward)(const cab_node *node,
 * cab_backend *backend); CAB_ISA appends _v1, _v3 or _v4. A node gets the best one that the processor has (CAB_CPU_ISA=v1|v3|v4 in
 * the environment lowers the choice, for tests). */
#ifndef CAB_OPS_CPU_CPU_H
#define CAB_OPS_CPU_CPU_H

#include "ops/cpu/kernels.h"

#ifdef CAB_ISA_SUFFIX
#define CAB_ISA_PASTE2(name, suffix) name##_##suffix
#define CAB_ISA_PASTE(name, suffix) CAB_ISA_PASTE2(name, suffix)
#define CAB_ISA(name) CAB_ISA_PASTE(name, CAB_ISA_SUFFIX)
#define CAB_DECLARE_KERNEL(op, direction, kernel, scratch)                                                             \
    cab_status CAB_ISA(kernel)(const cab_node *node, cab_backend *backend);
CAB_CPU_KERNELS(CAB_DECLARE_KERNEL)
#undef CAB_DECLARE_KERNEL
#endif

#endif
