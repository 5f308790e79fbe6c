/* hash_set.h - a set of 64-bit hashes. What cannot be allocated ends the program. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

struct hash_set;

struct hash_set *hash_set_new(void);
void hash_set_free(struct hash_set *set); /* NULL is fine */
/* True where it was not there yet. */
bool hash_set_add(struct hash_set *set, uint64_t hash);
