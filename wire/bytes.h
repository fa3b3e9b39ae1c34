/* bytes.h -- private to wire/: loads and stores at any address, and blocks of bytes tested at once.
 * Thread: any. */
#pragma once

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define BYTES_BE16(x) __builtin_bswap16(x)
#define BYTES_BE32(x) __builtin_bswap32(x)
#define BYTES_BE64(x) __builtin_bswap64(x)
#define BYTES_LE32(x) (x)
#define BYTES_LE64(x) (x)
#else
#define BYTES_BE16(x) (x)
#define BYTES_BE32(x) (x)
#define BYTES_BE64(x) (x)
#define BYTES_LE32(x) __builtin_bswap32(x)
#define BYTES_LE64(x) __builtin_bswap64(x)
#endif

#define BYTES_EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

static inline uint64_t bytes_load64(const void *at)
{
	uint64_t x;
	memcpy(&x, at, sizeof(x));
	return x;
}

static inline void bytes_store64(void *at, uint64_t x)
{
	memcpy(at, &x, sizeof(x));
}

static inline uint16_t bytes_load_be16(const void *at)
{
	uint16_t x;
	memcpy(&x, at, sizeof(x));
	return BYTES_BE16(x);
}

static inline uint32_t bytes_load_be32(const void *at)
{
	uint32_t x;
	memcpy(&x, at, sizeof(x));
	return BYTES_BE32(x);
}

static inline uint64_t bytes_load_be64(const void *at)
{
	return BYTES_BE64(bytes_load64(at));
}

static inline uint32_t bytes_load_le32(const void *at)
{
	uint32_t x;
	memcpy(&x, at, sizeof(x));
	return BYTES_LE32(x);
}

static inline void bytes_store_be16(void *at, uint16_t x)
{
	x = BYTES_BE16(x);
	memcpy(at, &x, sizeof(x));
}

static inline void bytes_store_be32(void *at, uint32_t x)
{
	x = BYTES_BE32(x);
	memcpy(at, &x, sizeof(x));
}

static inline void bytes_store_be64(void *at, uint64_t x)
{
	bytes_store64(at, BYTES_BE64(x));
}
