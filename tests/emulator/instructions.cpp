/* instructions.cpp - what kernels write in assembly: copies to shared memory, and matrix products of a warp. Fragments as the PTX
 * manual has them: lane = 4 g + q. */
#include "emulator.h"

#include <cstdlib>
#include <vector>

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

/* ---- products of four warps ------------------------------------------------------------------------------------------ */

namespace
{
struct product {
    float *d;
    int n;
    uint64_t a, b;
    bool add, a_transposed, b_transposed;
    const void *code;
    bool left;         /* a is in registers */
    float rows[2][16]; /* g and g + 8, if so */
};

/* Of a thread: products in groups, the last of which is not closed, and whether sums may be touched no more. */
struct products {
    std::vector<std::vector<product>> groups{1};
    bool fenced = false;
};

std::vector<products> of_threads;
} // namespace

void emulator_wgmma_reset(size_t threads)
{
    of_threads.assign(threads, products{});
}

/* Address of an element by the PTX manual's matrix descriptor, in bytes: start 0-13, leading offset 16-29 and stride offset 32-45, all of them
 * divided by 16, swizzle 62-63. With 128-byte swizzle eight rows of 128 bytes are a unit, in which the address's bits 4-6 are exchanged by
 * bits 7-9; the next unit is one stride on and, where k counts rows, the one of the next 64 columns one leading offset on. */
static const char *element_at(uint64_t descriptor, bool transposed, int mn, int k)
{
    const auto field = [descriptor](int first) { return (uint32_t)(descriptor >> first & 0x3fff) << 4; };
    const uint32_t leading = field(16), stride = field(32);
    const uint32_t swizzle = (uint32_t)(descriptor >> 62), base = (uint32_t)(descriptor >> 49 & 7);
    if (swizzle != 1 || base != 0)
        abort(); /* no other is emulated */
    /* Addresses of shared memory have 18 bits there, and 32 here. */
    const uint32_t dynamic = (uint32_t)(uintptr_t)emulator_dynamic_shared();
    uint32_t at = dynamic + ((field(0) - dynamic) & 0x3ffff);
    if (transposed)
        at += (uint32_t)(mn % 64 * 2) + (uint32_t)(mn / 64) * leading + (uint32_t)(k % 8 * 128) +
              (uint32_t)(k / 8) * stride;
    else
        at += (uint32_t)(mn % 8 * 128) + (uint32_t)(mn / 8) * stride + (uint32_t)(k * 2);
    return shared_at(at ^ (at >> 7 & 7) << 4);
}

static float element(uint64_t descriptor, bool transposed, int mn, int k)
{
    uint16_t half;
    memcpy(&half, element_at(descriptor, transposed, mn, k), sizeof half);
    return emulator_float((uint32_t)half << 16);
}

/* The warp of the four. */
static int warp_of_four()
{
    return (int)threadIdx.x / EMULATOR_LANES % 4;
}

/* A warp reads its 16 rows of a, and all of b; a lane looks at its share. */
static void look(const product &p)
{
    const int lane = emulator_lane();
    for (int i = lane; i < 16 * 16 && !p.left; i += EMULATOR_LANES)
        emulator_reads_asynchronously(element_at(p.a, p.a_transposed, 16 * warp_of_four() + i / 16, i % 16), 2, p.code);
    for (int i = lane; i < p.n * 16; i += EMULATOR_LANES)
        emulator_reads_asynchronously(element_at(p.b, p.b_transposed, i / 16, i % 16), 2, p.code);
}

/* A thread has rows g and g + 8 of its warp's, and of each 8 columns 2 q and 2 q + 1. */
static void multiply(const product &p)
{
    const int g = emulator_lane() / 4, q = emulator_lane() % 4;
    float rows[2][16];
    for (int i = 0; i < 2; i++)
        for (int k = 0; k < 16; k++)
            rows[i][k] =
                p.left ? p.rows[i][k] : element(p.a, p.a_transposed, 16 * warp_of_four() + g + 8 * i, k);
    for (int i = 0; i < p.n / 2; i++) {
        const float *row = rows[i % 4 / 2];
        float sum = 0.0f;
        for (int k = 0; k < 16; k++)
            sum += row[k] * element(p.b, p.b_transposed, i / 4 * 8 + 2 * q + i % 2, k);
        p.d[i] = p.add ? p.d[i] + sum : sum;
    }
}

void emulator_wgmma_bf16(float *d, int n, uint64_t a, uint64_t b, bool add, bool a_transposed, bool b_transposed)
{
    products &mine = of_threads[(size_t)emulator_now.thread];
    const product p = {d, n, a, b, add, a_transposed, b_transposed, __builtin_return_address(0), false, {}};
    const uint64_t both[2] = {a, b};
    emulator_gifts &gifts = emulator_exchange(0xffffffffu, both, sizeof both, EMULATOR_WGMMA);
    if (!mine.fenced || memcmp(gifts[0], both, sizeof both) != 0)
        abort(); /* no wgmma.fence, or lanes that want different products */
    look(p);
    mine.groups.back().push_back(p);
}

void emulator_wgmma_bf16_left(float *d, int n, const uint32_t (&a)[4], uint64_t b, bool add, bool b_transposed)
{
    products &mine = of_threads[(size_t)emulator_now.thread];
    product p = {d, n, 0, b, add, false, b_transposed, __builtin_return_address(0), true, {}};
    const uint32_t given[6] = {a[0], a[1], a[2], a[3], (uint32_t)b, (uint32_t)(b >> 32)};
    emulator_gifts &gifts = emulator_exchange(0xffffffffu, given, sizeof given, EMULATOR_WGMMA);
    if (!mine.fenced || memcmp(gifts[0] + 16, given + 4, sizeof b) != 0)
        abort();
    for (int i = 0; i < 2; i++)
        line(gifts, emulator_lane() / 4 * 4, i, i + 2, p.rows[i]);
    look(p);
    mine.groups.back().push_back(p);
}

void emulator_wgmma_fence()
{
    of_threads[(size_t)emulator_now.thread].fenced = true;
}

void emulator_wgmma_commit()
{
    of_threads[(size_t)emulator_now.thread].groups.emplace_back();
}

/* Sums are as they were until here, operands as they are now. */
void emulator_wgmma_wait(int groups)
{
    products &mine = of_threads[(size_t)emulator_now.thread];
    mine.fenced = false;
    emulator_exchange(0xffffffffu, "", 1, EMULATOR_WGMMA);
    while ((int)mine.groups.size() > groups + 1) {
        for (const product &p : mine.groups.front()) {
            look(p);
            multiply(p);
        }
        mine.groups.erase(mine.groups.begin());
    }
    emulator_exchange(0xffffffffu, "", 1, EMULATOR_WGMMA); /* so that nobody overwrites what others still read */
}
