/* config_keys.c -- see config_keys.h. */
#include "service/config_keys.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "service/config.h"
#include "store/seal.h"

int config_seal_keys(const struct config *cfg, bool make, struct seal_keys **ret, struct error *err)
{
	if (cfg->private_key != NULL)
		return seal_keys_from_hex(cfg->public_key, cfg->private_key, ret, err);
	char path[4096];
	const char *location = cfg->store + strcspn(cfg->store, ":") +
			       1; /* config_check() saw it */
	int n = snprintf(path, sizeof(path), "%s.keys", location);
	if (n < 0 || (size_t)n >= sizeof(path))
		return error_set(err, -ENAMETOOLONG, "--store: the path is too long");
	if (!make && access(path, F_OK) != 0)
		return error_set(err, -ENOENT, "there is no --private-key, and no file %.100s",
				 path);
	return seal_keys_from_file(path, ret, err);
}
