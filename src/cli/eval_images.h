/* eval_images.h - what cab eval prints about a model of images. */
#ifndef CAB_CLI_EVAL_IMAGES_H
#define CAB_CLI_EVAL_IMAGES_H

#include "cli/results.h"
#include "train/evaluate_images.h"

typedef struct cli_image_table {
    bool json, per_class;
    size_t confusions; /* how many of the most frequent ones */
    const cli_results *results;
} cli_image_table;

/* Prints the evaluation to table->results. */
cab_status cli_print_images(const cab_image_evaluation *evaluation, const cab_classes *classes,
                            const cli_image_table *table);

#endif
