/* config_keys.h -- the sealing keys that the configuration tells of. */
#pragma once

#include <stdbool.h>

#include "service/error.h"

struct config;
struct seal_keys;

/* Those of --private-key, else those in the file beside the SQLite file. make: that is made when it is not there;
 * else that is -ENOENT. */
int config_seal_keys(const struct config *cfg, bool make, struct seal_keys **ret,
		     struct error *err);
