/* decode.c - decoding speed and memory against the position.
 *
 *   bench_decode MODEL_DIR [TOKENS]
 *
 * Feeds TOKENS tokens (default 100000; a teacher stops at its context), each the most likely one, and prints tokens per
 * second and resident memory per stretch: for a student neither may grow with the position. */
#include "train/decode.h"

#include "base/log.h"
#include "models/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static double resident_bytes(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL)
        return 0;
    if (fscanf(file, "%*s %ld", &pages) != 1)
        pages = 0;
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static int32_t most_likely(const float *logits, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

static cab_status measure(cab_decode *decode, const cab_model *model, uint64_t tokens)
{
    const float *logits = NULL;
    int32_t token = 0;
    uint64_t done = 0, stretch = 1000;
    if (model->arch->teacher && tokens > (uint64_t)model->config.max_length)
        tokens = (uint64_t)model->config.max_length;
    printf("%10s %12s %14s\n", "position", "tokens/s", "resident MiB");
    while (done < tokens) {
        uint64_t first = done, end = done + stretch < tokens ? done + stretch : tokens;
        double started = cab_seconds();
        for (; done < end; done++) {
            CAB_TRY(cab_decode_step(decode, token, &logits));
            token = most_likely(logits, model->config.vocab_size);
        }
        printf("%10" PRIu64 " %12.0f %14.1f\n", done, (double)(done - first) / (cab_seconds() - started),
               resident_bytes() / 1048576.0);
        stretch = done < 10000 ? 3000 : 30000;
    }
    return CAB_OK;
}

int main(int argc, char **argv)
{
    cab_model *model = NULL;
    cab_decode *decode = NULL;
    if (argc < 2) {
        fprintf(stderr, "usage: bench_decode MODEL_DIR [TOKENS]\n");
        return CAB_EARG;
    }
    cab_status status = cab_model_load(argv[1], cab_precision_auto("cpu"), &model);
    if (status == CAB_OK)
        status = cab_decode_new(model, &decode);
    if (status == CAB_OK)
        status = measure(decode, model, argc > 2 ? strtoull(argv[2], NULL, 10) : 100000);
    if (status != CAB_OK)
        fprintf(stderr, "bench_decode: %s\n", cab_error_text());
    cab_decode_free(decode);
    cab_model_free(model);
    return (int)status;
}
