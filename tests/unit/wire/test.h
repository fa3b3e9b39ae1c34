/* test.h -- what every unit test of wire/ needs: cmocka, and the corpus of its fuzz target. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Runs the fuzz target over every file of tests/fuzz/corpus/NAME/, found below PTYCAST_SOURCE_DIR
 * or the working directory. */
static inline void replay_corpus(const char *name, int (*target)(const uint8_t *data, size_t size))
{
	const char *root = getenv("PTYCAST_SOURCE_DIR");
	char path[4096];
	snprintf(path, sizeof(path), "%s/tests/fuzz/corpus/%s", root != NULL ? root : ".", name);
	DIR *dir = opendir(path);
	if (dir == NULL)
		fail_msg("cannot open %s", path);

	unsigned files = 0;
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		char file_path[sizeof(path) + sizeof(entry->d_name) + 1];
		snprintf(file_path, sizeof(file_path), "%s/%s", path, entry->d_name);
		FILE *file = fopen(file_path, "rb");
		assert_non_null(file);
		static uint8_t data[1 << 16];
		size_t size = fread(data, 1, sizeof(data), file);
		assert_true(feof(file));
		fclose(file);
		target(data, size);
		files++;
	}
	closedir(dir);
	assert_true(files > 0);
}
