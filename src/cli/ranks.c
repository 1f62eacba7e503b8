#include "cli/ranks.h"

void cli_leave_ranks(cab_communicator *ranks, cab_status status)
{
    if (status != CAB_OK && status != CAB_EINTERRUPTED)
        cab_communicator_abort(ranks, status);
    if (cab_communicator_rank(ranks) > 0)
        cab_error_set_text("");
    cab_communicator_close(ranks);
}
