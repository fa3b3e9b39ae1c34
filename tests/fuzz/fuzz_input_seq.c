/* fuzz_input_seq.c -- the table against a plain model of it. The input is a list of 4-byte steps:
 * what to do, a client (2 bytes, 12 bits count) and a number. */
#include "tests/fuzz/fuzz.h"

#include "wire/input_seq.h"

enum { MODEL_CLIENTS = 1 << 12 };

struct model {
	uint64_t last[MODEL_CLIENTS];  /* 0: not known */
	uint64_t typed[MODEL_CLIENTS]; /* when it last typed */
	size_t known;
	uint64_t clock;
};

static void key_of(uint16_t client, uint8_t key[INPUT_CLIENT_BYTES])
{
	memset(key, 0x5a, INPUT_CLIENT_BYTES);
	memcpy(key + INPUT_CLIENT_BYTES - sizeof(client), &client, sizeof(client));
}

static void model_accept(struct model *m, uint16_t client, uint64_t seq)
{
	if (m->last[client] == 0 && m->known++ == INPUT_SEQ_CLIENTS_MAX) {
		size_t oldest = MODEL_CLIENTS;
		for (size_t i = 0; i < MODEL_CLIENTS; i++) {
			if (m->last[i] > 0 &&
			    (oldest == MODEL_CLIENTS || m->typed[i] < m->typed[oldest]))
				oldest = i;
		}
		m->last[oldest] = 0;
		m->known--;
	}
	if (seq > m->last[client])
		m->last[client] = seq;
	m->typed[client] = ++m->clock;
}

static void step(struct input_seq *t, struct model *m, uint16_t client, uint64_t seq, bool accept)
{
	uint8_t key[INPUT_CLIENT_BYTES];
	client %= MODEL_CLIENTS;
	key_of(client, key);
	uint64_t last = m->last[client];
	uint64_t expected;
	enum input_seq_verdict verdict = input_seq_check(t, key, seq, &expected);
	require(expected == (last < UINT64_MAX ? last + 1 : last));
	if (seq <= last)
		require(verdict == INPUT_SEQ_REPEAT);
	else
		require(verdict == (seq == last + 1 ? INPUT_SEQ_NEXT : INPUT_SEQ_GAP));
	if (accept) {
		require(input_seq_accept(t, key, seq) == 0);
		model_accept(m, client, seq);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input_seq *t = input_seq_create();
	struct model *m = calloc(1, sizeof(*m));
	require(t != NULL && m != NULL);
	unsigned crowd_left = INPUT_SEQ_CLIENTS_MAX + 100; /* more only takes time */
	for (; size >= 4; data += 4, size -= 4) {
		uint16_t client = (uint16_t)((data[1] << 8 | data[2]) % MODEL_CLIENTS);
		uint64_t seq = data[3] == 0xff ? UINT64_MAX : (uint64_t)data[3] + 1;
		switch (data[0] % 4) {
		case 0:
			step(t, m, client, seq, false);
			break;
		case 1: /* the next number of this client */
			if (m->last[client] < UINT64_MAX)
				step(t, m, client, m->last[client] + 1, true);
			break;
		case 2:
			step(t, m, client, seq, true);
			break;
		case 3: /* a crowd of clients, which may push out others */
			for (unsigned i = 0; i < data[3] && crowd_left > 0; i++, crowd_left--)
				step(t, m, (uint16_t)(client + i), 1, true);
			break;
		}
	}
	free(m);
	input_seq_destroy(t);
	return 0;
}
