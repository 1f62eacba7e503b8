/* ranks.h - commands that several ranks carry out. */
#ifndef CAB_CLI_RANKS_H
#define CAB_CLI_RANKS_H

#include "base/communicator.h"

/* Ends a command's part in what ranks do together, where `status` came of it. A rank that fails takes the others with it and does not
 * return; an interruption they have agreed on, and rank 0 alone has a text for it. */
void cli_leave_ranks(cab_communicator *ranks, cab_status status);

#endif
