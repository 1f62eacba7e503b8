/* version.c - which version this is and what was built into it. */
#include "base/communicator.h"
#include "cli/command.h"
#include "ops/backends.h"
#include "report/report.h"

#include <archive.h>
#include <cyaml/cyaml.h>
#include <json-c/json.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utf8proc.h>
#ifdef CAB_WITH_ONEDNN
#include <dnnl.h>
#endif
/* after stdio.h */
#include <jpeglib.h>

#define QUOTE(text) #text
#define QUOTE_VALUE(macro) QUOTE(macro)

#define VERSION_OPTIONS(INT, REAL, BOOL, TEXT, ENUM, LIST, INTS) BOOL(quiet, 'q', "the version number alone")

struct version_options {
    CAB_FIELDS(VERSION_OPTIONS)
};
CAB_FLAG_TABLE(version_table, struct version_options, VERSION_OPTIONS)

static const char *instruction_set(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return "x86-64-v4";
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? "x86-64-v3" : "x86-64";
}

static cab_status run_version(const void *given, const cab_list *operands)
{
    const struct version_options *options = given;
    char accelerators[512], ranks[128];
    (void)operands;
    if (options->quiet) {
        printf("%s\n", CAB_VERSION);
        return CAB_OK;
    }
    printf("cab %s\n", CAB_VERSION);
#ifdef CAB_WITH_ONEDNN
    const dnnl_version_t *dnnl = dnnl_version();
    printf("matrix products  oneDNN %d.%d.%d\n", dnnl->major, dnnl->minor, dnnl->patch);
#else
    printf("matrix products  own (built without oneDNN)\n");
#endif
    printf("processor        %s\n", instruction_set());
    printf("accelerators     %s\n", cab_accelerators(accelerators, sizeof accelerators));
    printf("ranks            %s\n", cab_communicator_describe(ranks, sizeof ranks));
    printf("libraries        json-c %s, libcyaml %s, utf8proc %s, %s, libjpeg-turbo %s, libpng %s\n", json_c_version(),
           cyaml_version_str, utf8proc_version(), archive_version_string(), QUOTE_VALUE(LIBJPEG_TURBO_VERSION),
           png_get_libpng_ver(NULL));
    printf("charts           %s\n", cab_report_charts());
    return CAB_OK;
}

static const cli_example examples[] = {{"cab version", "version, libraries and what this machine offers"}, {0}};

const cli_command cli_version = {
    .name = "version",
    .summary = "show the version and what is built in",
    .synopsis = "",
    .description = "Prints the version, the libraries behind it, and what was found or left out.",
    .examples = examples,
    .options = version_table,
    .options_size = sizeof(struct version_options),
    .run = run_version,
};
