/* config_check.h -- config.c's second half: the options whose values have a form of their own. */
#pragma once

#include "service/config.h"
#include "service/error.h"

/* Adds the keys of text, "KEY=SUBJECT[:ROLE],...", NULL: none. Returns 0, -EINVAL or -ENOMEM. */
int config_add_api_keys(struct config *c, const char *text, struct error *err);

/* Checks each option's form, and what they mean together. Returns 0 or -EINVAL. */
int config_check(const struct config *c, struct error *err);
