/* alignment.cpp - accesses that a GPU refuses: a vector of 8 or 16 bytes at an address that is no multiple of its size. What is
 * declared with more, 32 bytes of eight numbers, a GPU reads in parts of 16.
 *
 * Kernels are compiled with -fsanitize=alignment, which calls the function below, by the name that it has in its library. */
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace
{
struct place {
    const char *file;
    uint32_t line, column;
};

/* As gcc lays it out. */
struct mismatch {
    place at;
    const void *type;
    unsigned char log_alignment, kind;
};
} // namespace

constexpr int LARGEST = 4; /* 2^4 bytes: the largest access */

extern "C" void __ubsan_handle_type_mismatch_v1(const mismatch *m, uintptr_t address)
{
    const int log_alignment = m->log_alignment < LARGEST ? m->log_alignment : LARGEST;
    if (address % ((uintptr_t)1 << log_alignment) == 0)
        return;
    fprintf(stderr, "%s:%u: misaligned address: %#zx is no multiple of %zu\n", m->at.file, m->at.line, (size_t)address,
            (size_t)1 << log_alignment);
    abort();
}
