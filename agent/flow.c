/* flow.c -- see flow.h. */
#include "agent/flow.h"

void flow_guard(struct flow *f, enum flow_guard guard, uint64_t kept)
{
	*f = (struct flow){ .guard = guard, .kept = kept };
}

bool flow_progress(struct flow *f, uint64_t kept)
{
	if (kept <= f->kept)
		return false;
	f->kept = kept;
	f->overwriting = false;
	return true;
}

size_t flow_room(const struct flow *f, uint64_t head, size_t capacity)
{
	if (f->guard == FLOW_FREE || f->overwriting)
		return capacity;
	uint64_t held = head - f->kept;
	return held < capacity ? capacity - (size_t)held : 0;
}
