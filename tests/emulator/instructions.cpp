/* instructions.cpp - what kernels write in assembly: copies to shared memory, and matrix products of a warp. Fragments as the PTX
 * manual has them: lane = 4 g + q. */
#include "emulator.h"

#include <cstdlib>

uint32_t emulator_shared_address(const void *p)
{
    if ((uintptr_t)p > UINT32_MAX) /* on the heap or a stack */
        abort();
    return (uint32_t)(uintptr_t)p;
}

static char *shared_at(uint32_t address)
{
    return (char *)(uintptr_t)address;
}

void emulator_copy(uint32_t to, const void *from, int all, int bytes)
{
    if (to % (unsigned)all != 0 || (bytes > 0 && (uintptr_t)from % (unsigned)all != 0))
        abort(); /* a misaligned address */
    emulator_copies(shared_at(to), (size_t)all, __builtin_return_address(0));
    memcpy(shared_at(to), from, (size_t)bytes);
    memset(shared_at(to) + bytes, 0, (size_t)(all - bytes));
}

/* Matrix m of four has the rows that lanes 8 m .. point at; a lane gets row g, columns 2 q and 2 q + 1, or of the transpose. */
void emulator_load_matrices(uint32_t (&r)[4], uint32_t from, bool transposed)
{
    if (from % 16 != 0)
        abort();
    emulator_gifts &rows = emulator_exchange(0xffffffffu, &from, sizeof from, EMULATOR_LOAD);
    const int g = emulator_lane() / 4, q = emulator_lane() % 4;
    const void *code = __builtin_return_address(0);
    for (int m = 0; m < 4; m++) {
        uint16_t pair[2];
        for (int i = 0; i < 2; i++) {
            const int row = transposed ? 2 * q + i : g, column = transposed ? g : 2 * q + i;
            const char *at = shared_at(emulator_gift<uint32_t>(rows, 8 * m + row)) + 2 * column;
            emulator_reads(at, sizeof pair[i], code);
            memcpy(&pair[i], at, sizeof pair[i]);
        }
        memcpy(&r[m], pair, sizeof pair);
    }
    emulator_exchange(0xffffffffu, "", 1, EMULATOR_LOAD); /* so that nobody overwrites what others still read */
}

/* A lane has row g, columns 2 q and 2 q + 1, and gets them of the transpose. */
uint32_t emulator_transpose(uint32_t mine)
{
    emulator_gifts &rows = emulator_exchange(0xffffffffu, &mine, sizeof mine, EMULATOR_TRANSPOSE);
    const int g = emulator_lane() / 4, q = emulator_lane() % 4;
    uint32_t pair = 0;
    for (int i = 0; i < 2; i++)
        pair |= (emulator_gift<uint32_t>(rows, 4 * (2 * q + i) + g / 2) >> 16 * (g % 2) & 0xffffu) << 16 * i;
    return pair;
}

/* Register `which` of a lane's operands: four of the left matrix, two of the right. */
static uint32_t operand(emulator_gifts &all, int lane, int which)
{
    uint32_t value;
    memcpy(&value, all[lane] + 4 * which, sizeof value);
    return value;
}

/* 16 values along k: columns 2 l and 2 l + 1, and 8 further, of lanes `first` + l, in registers `which` and `further`. */
static void line(emulator_gifts &all, int first, int which, int further, float (&values)[16])
{
    for (int l = 0; l < 4; l++)
        for (int i = 0; i < 2; i++) {
            const uint32_t pair = operand(all, first + l, i == 0 ? which : further);
            values[8 * i + 2 * l] = emulator_float(pair << 16);
            values[8 * i + 2 * l + 1] = emulator_float(pair & 0xffff0000u);
        }
}

void emulator_mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    emulator_gifts &all = emulator_exchange(0xffffffffu, mine, sizeof mine, EMULATOR_MMA);
    const int g = emulator_lane() / 4, q = emulator_lane() % 4;
    float rows[2][16], columns[2][16];
    for (int i = 0; i < 2; i++) {
        line(all, 4 * g, i, i + 2, rows[i]);
        line(all, 4 * (2 * q + i), 4, 5, columns[i]);
    }
    for (int i = 0; i < 4; i++) {
        float sum = 0.0f;
        for (int k = 0; k < 16; k++)
            sum += rows[i / 2][k] * columns[i % 2][k];
        d[i] += sum;
    }
}

void emulator_mma_tf32(float (&d)[4], const float (&a)[4], const float (&b)[2])
{
    const float mine[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
    emulator_gifts &all = emulator_exchange(0xffffffffu, mine, sizeof mine, EMULATOR_MMA);
    const int g = emulator_lane() / 4, q = emulator_lane() % 4;
    for (int i = 0; i < 4; i++) {
        float sum = 0.0f;
        for (int k = 0; k < 8; k++)
            sum += emulator_float(operand(all, 4 * g + k % 4, i / 2 + k / 4 * 2) & 0xffffe000u) *
                   emulator_float(operand(all, 4 * (2 * q + i % 2) + k % 4, 4 + k / 4) & 0xffffe000u);
        d[i] += sum;
    }
}
