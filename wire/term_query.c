/* term_query.c -- see term_query.h. A sequence is looked at as a whole or not at all: between two calls nothing
 * is kept, so that viewers at one place can share one result. */
#include "wire/term_query.h"

#include <string.h>

#define ENQ 0x05
#define BEL 0x07
#define CAN 0x18
#define SUB 0x1a
#define ESC 0x1b
#define C1_LEAD 0xc2 /* of U+0080 to U+00BF in UTF-8 */

enum kind {
	KIND_NONE, /* nothing that could ask */
	KIND_CUT,  /* the data ends within the introducer */
	KIND_CSI,
	KIND_OSC,
	KIND_DCS,
	KIND_APC,
	KIND_DECID, /* is a question by itself */
};

/* A sequence that begins with two bytes, ESC and a letter or a C1 character. */
static enum kind kind_at(const uint8_t *data, size_t size)
{
	if (size < 2)
		return KIND_CUT;
	/* ESC and '[' are CSI, as is U+009B: their last bytes differ by 0x40. */
	uint8_t letter = data[0] == ESC ? data[1] : (uint8_t)(data[1] - 0x40);
	if (letter >= 0x60 || (data[0] != ESC && data[1] < 0x80))
		return KIND_NONE;
	switch (letter) {
	case '[':
		return KIND_CSI;
	case ']':
		return KIND_OSC;
	case 'P':
		return KIND_DCS;
	case '_':
		return KIND_APC;
	case 'Z':
		return KIND_DECID;
	default:
		return KIND_NONE;
	}
}

static bool is_control(uint8_t byte)
{
	return byte < 0x20 || byte == 0x7f;
}

/* What a control sequence says, control characters inside it left out. */
struct csi {
	uint8_t prefix;       /* one of < = > ?, else 0 */
	uint8_t intermediate; /* the last one, else 0 */
	uint8_t final;
	unsigned first; /* first parameter */
	bool one;       /* it is the only one */
};

/* Reads the control sequence at data behind its introducer. Returns its length, 0 when the data ends inside
 * it, or -1 when it is broken off. */
static int csi_read(const uint8_t *data, size_t size, struct csi *ret)
{
	*ret = (struct csi){ .one = true };
	bool began = false;
	for (size_t i = 0; i < size; i++) {
		uint8_t byte = data[i];
		if (byte == CAN || byte == SUB || byte == ESC || byte >= 0x80)
			return -1;
		if (is_control(byte))
			continue;
		if (byte >= 0x40) {
			ret->final = byte;
			return (int)i + 1;
		}
		if (byte < 0x30)
			ret->intermediate = byte;
		else if (byte >= '<' && !began)
			ret->prefix = byte;
		else if (byte >= '0' && byte <= '9' && ret->one)
			ret->first = ret->first > 9999 ? 9999 : ret->first * 10 + (byte - '0');
		else
			ret->one = false;
		began = true;
	}
	return 0;
}

static bool csi_asks(const struct csi *c)
{
	static const struct {
		uint8_t prefix, intermediate, final;
	} all[] = {
		{ 0, 0, 'n' },   { '?', 0, 'n' },   { 0, 0, 'c' },   { '>', 0, 'c' },
		{ '=', 0, 'c' }, { '>', 0, 'q' },   { 0, 0, 'x' },   { '?', 0, 'u' },
		{ 0, '$', 'p' }, { '?', '$', 'p' }, { 0, '$', 'u' }, { 0, '$', 'w' },
		{ 0, '&', 'u' }, { 0, '"', 'v' },   { 0, '*', 'y' }, { 0, '\'', '|' },
		{ 0, '#', 'R' }, { 0, '#', '|' },   { '?', 0, 'S' }, { '?', 0, 'm' },
	};
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (c->prefix == all[i].prefix && c->intermediate == all[i].intermediate &&
		    c->final == all[i].final)
			return true;
	if (c->intermediate != 0)
		return false;
	if (c->prefix == '?' && c->final == 'h')
		return c->one && c->first == 1004;
	bool reports = c->first == 11 || (c->first >= 13 && c->first <= 16) ||
		       (c->first >= 18 && c->first <= 21);
	return c->prefix == 0 && c->final == 't' && reports;
}

/* The length of the text at data up to its terminator, or -1 when there is none in size bytes. *end: the
 * length with the terminator. An ESC ends it whatever follows. *broken: it ends, and does nothing. */
static int text_length(const uint8_t *data, size_t size, bool last, size_t *end, bool *broken)
{
	for (size_t i = 0; i < size; i++) {
		size_t left = size - i;
		bool st = left >= 2 && ((data[i] == ESC && data[i + 1] == '\\') ||
					(data[i] == C1_LEAD && data[i + 1] == 0x9c));
		*end = i + (st ? 2 : data[i] == BEL ? 1 : 0);
		*broken = data[i] == CAN || data[i] == SUB;
		if (st || *broken || data[i] == BEL || (data[i] == ESC && (left >= 2 || last)))
			return (int)i;
		if (left == 1 && (data[i] == ESC || data[i] == C1_LEAD))
			return -1;
	}
	return -1;
}

static bool has_prefix(const uint8_t *text, size_t size, const char *prefix)
{
	size_t length = strlen(prefix);
	return size >= length && memcmp(text, prefix, length) == 0;
}

static bool osc_asks(const uint8_t *text, size_t size)
{
	unsigned number = 0;
	size_t at = 0;
	for (; at < size && at < 5 && text[at] >= '0' && text[at] <= '9'; at++)
		number = number * 10 + (text[at] - '0');
	if (at == 0 || at == size || text[at] != ';')
		return false;
	if (number == 1337)
		return has_prefix(text + at, size - at, ";Report");
	bool may = number == 4 || number == 5 || (number >= 10 && number <= 19) || number == 21 ||
		   number == 22 || number == 52;
	return may && memchr(text + at, '?', size - at) != NULL;
}

static bool dcs_asks(const uint8_t *text, size_t size)
{
	size_t at = 0;
	while (at < size && text[at] >= 0x30 && text[at] <= 0x3f)
		at++;
	return has_prefix(text + at, size - at, "$q") || has_prefix(text + at, size - at, "+q") ||
	       has_prefix(text + at, size - at, "+Q");
}

static bool apc_asks(const uint8_t *text, size_t size)
{
	if (!has_prefix(text, size, "G"))
		return false;
	const uint8_t *end = memchr(text, ';', size);
	return memmem(text, end == NULL ? size : (size_t)(end - text), "a=q", 3) != NULL;
}

enum verdict {
	VERDICT_KEEP,
	VERDICT_OPEN, /* kept, and what follows could go on with it if what breaks it off were removed */
	VERDICT_REMOVE,
	VERDICT_CUT,
};

/* Judges the sequence at data; *length: of what that holds for. */
static enum verdict judge(const uint8_t *data, size_t size, bool last, size_t *length)
{
	enum kind kind = kind_at(data, size);
	*length = 1; /* what follows is looked at as text */
	if (kind == KIND_DECID) {
		*length = 2;
		return VERDICT_REMOVE;
	}
	if (kind == KIND_CUT)
		return VERDICT_CUT;
	if (kind == KIND_NONE) {
		bool whole = data[0] == ESC ? !is_control(data[1]) && data[1] < 0x80
					    : (data[1] & 0xc0) == 0x80;
		return whole ? VERDICT_KEEP : VERDICT_OPEN;
	}
	const uint8_t *body = data + 2;
	size_t left = size - 2;
	bool is_long = left > TERM_QUERY_BYTES_MAX - 3;
	if (is_long)
		left = TERM_QUERY_BYTES_MAX - 3;
	if (kind == KIND_CSI) {
		struct csi csi;
		int n = csi_read(body, left, &csi);
		if (n <= 0)
			return n == 0 && !is_long ? VERDICT_CUT : VERDICT_OPEN;
		if (!csi_asks(&csi))
			return VERDICT_KEEP;
		*length = 2 + (size_t)n;
		return VERDICT_REMOVE;
	}
	size_t end;
	bool broken;
	int n = text_length(body, left, last || is_long, &end, &broken);
	if (n < 0)
		return is_long ? VERDICT_OPEN : VERDICT_CUT;
	*length = 2 + end;
	bool asks = kind == KIND_OSC   ? osc_asks(body, (size_t)n)
		    : kind == KIND_DCS ? dcs_asks(body, (size_t)n)
				       : apc_asks(body, (size_t)n);
	if (asks && !broken)
		return VERDICT_REMOVE;
	bool by_escape = !broken && end == (size_t)n; /* of the next sequence */
	return by_escape ? VERDICT_OPEN : VERDICT_KEEP;
}

size_t term_query_remove(uint8_t *out, const uint8_t *data, size_t size, bool last, size_t *taken)
{
	uint8_t *start = out;
	size_t at = 0;
	bool open = false;
	while (at < size) {
		uint8_t byte = data[at];
		size_t length = 1;
		enum verdict verdict = VERDICT_KEEP;
		if (byte == ESC || byte == C1_LEAD) {
			verdict = judge(data + at, size - at, last, &length);
			if (verdict == VERDICT_CUT && !last)
				break;
		}
		if (byte == ENQ)
			verdict = VERDICT_REMOVE;
		if (verdict != VERDICT_REMOVE) {
			if (byte == ESC || byte == CAN || byte == SUB)
				open = false;
			if (verdict == VERDICT_OPEN)
				open = true;
			memcpy(out, data + at, length);
			out += length;
			at += length;
			continue;
		}
		if (open) /* what is in front of it must not go on behind it */
			*out++ = CAN;
		open = false;
		/* Control characters inside a control sequence are carried out all the same. */
		bool is_csi = length > 2 && kind_at(data + at, size - at) == KIND_CSI;
		for (size_t i = 2; is_csi && i < length; i++)
			if (is_control(data[at + i]) && data[at + i] != ENQ)
				*out++ = data[at + i];
		at += length;
	}
	*taken = at;
	return (size_t)(out - start);
}
