/* pixels.cu - bytes to normalised, erased and mixed images on the GPU; src/ops/pixels.c has the formulas.
 *
 * Layout: a thread takes a packet of neighbouring pixels of one line (each.cuh), all three channels of them: it reads 3 N
 * neighbouring bytes, of its own picture and of the partner, and writes N floats to each of the three planes.
 *
 * Arithmetic: fp32, every product and sum rounded by itself, so that what is not noise has the processor's bits. Noise is made
 * where it is written, from the counter of its place; its logarithm and cosine are those of fp32. A byte is read
 * twice where pictures are mixed, a float written once. Memory is the limit. */
#include "ops/cuda/each.cuh"
#include "ops/cuda/philox.cuh"

extern "C" {
#include "ops/pixels.h"
}

/* Number 0 or 1 of a pair (Box-Muller). Near 1 the logarithm is taken of what is missing, which fp32 can hold. */
__device__ __forceinline__ float normal(uint32_t first, uint32_t second, int number)
{
    const float unit = 0x1p-32f, two_pi = 6.28318531f;
    const float logarithm =
        first < 0x80000000u ? logf(((float)first + 1.0f) * unit) : log1pf((float)(0xffffffffu - first) * -unit);
    const float angle = two_pi * ((float)second * unit);
    return sqrtf(-2.0f * logarithm) * (number ? sinf(angle) : cosf(angle));
}

__device__ __forceinline__ float noise_at(const cab_erasure &e, int c, int y, int x)
{
    if (e.fill == CAB_ERASE_CONST)
        return 0.0f;
    const int column = e.fill == CAB_ERASE_PIXEL ? x - e.x : 0;
    const uint64_t row = e.fill == CAB_ERASE_PIXEL ? (uint64_t)c * (uint64_t)e.height + (uint64_t)(y - e.y) : (uint64_t)c;
    const uint64_t steps = e.fill == CAB_ERASE_PIXEL ? ((uint64_t)e.width + 3) / 4 : 1;
    const philox_words w =
        philox(e.random.seed, e.random.stream, e.random.sub, e.random.index + row * steps + (uint64_t)(column / 4));
    const bool late = column % 4 >= 2;
    return normal(late ? w.at[2] : w.at[0], late ? w.at[3] : w.at[1], column % 2);
}

/* A batch of pictures and their erased rectangles. */
struct pictures {
    const uint8_t *bytes;
    const cab_erasure *erasures;
    int n_erasure;
};

struct make_pixels {
    pictures own, partners;
    const cab_blend *blend; /* NULL: nothing is mixed */
    cab_pixels_scale scale;
    float *image;
    int64_t batch, plane;
    int width;

    template <int N> __device__ __forceinline__ void read(const pictures &p, int64_t b, int y, int x, float (&v)[3][N]) const
    {
        const uint8_t *from = p.bytes + (b * plane + (int64_t)y * width + x) * 3;
        uint8_t bytes[3 * N];
#pragma unroll
        for (int k = 0; k < 3; k++) {
            const vec<uint8_t, N> part = load_vec<uint8_t, N>(from + k * N);
#pragma unroll
            for (int i = 0; i < N; i++)
                bytes[k * N + i] = part.at[i];
        }
#pragma unroll
        for (int c = 0; c < 3; c++)
#pragma unroll
            for (int i = 0; i < N; i++)
                v[c][i] = __fdiv_rn(__fadd_rn(__fdiv_rn((float)bytes[3 * i + c], scale.divisor), -scale.mean[c]), scale.std[c]);
        for (int k = 0; k < p.n_erasure; k++) {
            const cab_erasure &e = p.erasures[b * p.n_erasure + k];
            if (y < e.y || y >= e.y + e.height || x >= e.x + e.width || x + N <= e.x)
                continue;
#pragma unroll
            for (int c = 0; c < 3; c++)
#pragma unroll
                for (int i = 0; i < N; i++)
                    if (x + i >= e.x && x + i < e.x + e.width)
                        v[c][i] = noise_at(e, c, y, x + i);
        }
    }

    template <int N> __device__ __forceinline__ void mix(int64_t b, int y, int x, float (&v)[3][N]) const
    {
        const cab_blend m = *blend;
        if (m.share == 1.0f || m.alone == b)
            return;
        if (m.cut && (y < m.y || y >= m.y + m.height || x >= m.x + m.width || x + N <= m.x))
            return;
        float other[3][N];
        read<N>(partners, batch - 1 - b, y, x, other);
        const float rest = __fadd_rn(1.0f, -m.share);
#pragma unroll
        for (int c = 0; c < 3; c++)
#pragma unroll
            for (int i = 0; i < N; i++)
                if (!m.cut)
                    v[c][i] = __fadd_rn(__fmul_rn(v[c][i], m.share), __fmul_rn(other[c][i], rest));
                else if (x + i >= m.x && x + i < m.x + m.width)
                    v[c][i] = other[c][i];
    }

    template <int N> __device__ __forceinline__ void at(int64_t b, int64_t place) const
    {
        const int y = (int)((uint32_t)place / (uint32_t)width), x = (int)((uint32_t)place % (uint32_t)width);
        float v[3][N];
        read<N>(own, b, y, x, v);
        if (blend)
            mix<N>(b, y, x, v);
#pragma unroll
        for (int c = 0; c < 3; c++)
            store_floats(image + (b * 3 + c) * plane + place, v[c]);
    }
};

static pictures pictures_of(const cab_tensor *bytes, const cab_tensor *erasures)
{
    pictures p = {};
    p.bytes = bytes ? (const uint8_t *)bytes->data : NULL;
    p.erasures = erasures ? (const cab_erasure *)erasures->data : NULL;
    p.n_erasure = erasures ? (int)erasures->shape[1] : 0;
    return p;
}

extern "C" cab_status cab_pixels_forward_cuda(const cab_node *node, cab_backend *backend)
{
    const cab_tensor *image = node->out[0];
    make_pixels f = {};
    f.own = pictures_of(node->in[CAB_PIXELS_BYTES], node->in[CAB_PIXELS_ERASURES]);
    f.partners = pictures_of(node->in[CAB_PIXELS_PARTNERS], node->in[CAB_PIXELS_PARTNER_ERASURES]);
    f.blend = node->in[CAB_PIXELS_BLEND] ? (const cab_blend *)node->in[CAB_PIXELS_BLEND]->data : NULL;
    f.scale = *(const cab_pixels_scale *)node->attributes;
    f.image = (float *)image->data;
    f.batch = image->shape[0];
    f.width = (int)image->shape[3];
    f.plane = image->shape[2] * image->shape[3];
    const extent e = {f.batch, f.plane, packet_of(f.width)};
    return each(f, e, backend, "pixels");
}
