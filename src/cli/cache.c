/* cache.c - where tokenised text is kept between runs. */
#include "base/file.h"
#include "cli/command.h"

#include <stdlib.h>

cab_status cli_cache_directory(const char *given, char *out)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (given[0])
        return cab_path_join(out, given, ".");
    if (cache && cache[0])
        return cab_path_join(out, cache, "cab");
    if (home && home[0])
        return cab_path_join(out, home, ".cache/cab");
    return cab_fail(CAB_EARG, "neither XDG_CACHE_HOME nor HOME is set: give --cache=DIR");
}
