/* csv.h - fields of comma-separated values (RFC 4180): a field may stand in double quotes, and a quote in it is written
 * twice. */
#ifndef CAB_DATA_CSV_H
#define CAB_DATA_CSV_H

#include <stdbool.h>
#include <stddef.h>

/* Cuts the next field out of a record [*at, end), in place: *field[0..*size), without its quotes. *at goes to what follows
 * the separator, or to NULL after the last field. False: a quote that does not end as it should. The byte after the field
 * may be overwritten. */
bool cab_csv_field(char **at, char *end, char separator, char **field, size_t *size);

#endif
