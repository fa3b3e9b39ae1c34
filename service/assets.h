/* assets.h -- files that are inside the program: the page and openapi.yaml. The table is generated
 * at build time. */
#pragma once

#include <stddef.h>

struct asset {
	const char *path; /* "/index.html" */
	const char *type; /* Content-Type */
	const unsigned char *data;
	size_t size;
	const char *etag; /* quoted, of the content */
};

extern const struct asset assets[];
extern const size_t assets_count;
