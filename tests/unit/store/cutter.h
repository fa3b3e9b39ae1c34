/* cutter.h -- a proxy on loopback that can lose an answer: the server has done what it was asked, and who asked
 * does not hear of it. */
#pragma once

#include <stdint.h>

struct cutter;

struct cutter *cutter_start(uint16_t to_port);
void cutter_stop(struct cutter *c);
uint16_t cutter_port(const struct cutter *c);

/* After skip more, an answer of the server is thrown away, on whatever connection, and that connection is cut; once. */
void cutter_cut(struct cutter *c, int skip);
/* How many were. */
unsigned cutter_cuts(const struct cutter *c);
