/* image_paths.h - words of the command line to image files. */
#ifndef CAB_CLI_IMAGE_PATHS_H
#define CAB_CLI_IMAGE_PATHS_H

#include "base/error.h"

#include <stddef.h>

/* Zero-initialise, free. */
typedef struct cli_image_paths {
    char **items;
    size_t count, capacity;
} cli_image_paths;

/* Adds what `word` stands for: a file, whatever its name; a folder: every .jpg, .jpeg and .png file in it and below it, by
 * name; else a pattern as the shell has them (* ? [...]), which a file of exactly that name comes before. Hidden files are
 * left out of folders. CAB_EIO when there is nothing of that name, CAB_EFORMAT when a folder holds no image. */
cab_status cli_image_paths_add(cli_image_paths *paths, const char *word);
void cli_image_paths_free(cli_image_paths *paths);

#endif
