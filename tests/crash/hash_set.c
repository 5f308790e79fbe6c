/* hash_set.c - open addressing, at most half full; 0 marks what is empty. */
#include <stdio.h>
#include <stdlib.h>
#include "tests/crash/hash_set.h"

struct hash_set {
        uint64_t *slots;
        uint64_t n_slots, n_used; /* n_slots is a power of two */
};

static void *allocate(size_t n, size_t size)
{
        void *memory = calloc(n, size);

        if (memory == NULL) {
                fputs("out of memory\n", stderr);
                exit(1);
        }
        return memory;
}

struct hash_set *hash_set_new(void)
{
        struct hash_set *set = allocate(1, sizeof(*set));

        set->n_slots = 64;
        set->slots = allocate(set->n_slots, sizeof(*set->slots));
        return set;
}

void hash_set_free(struct hash_set *set)
{
        if (set == NULL)
                return;
        free(set->slots);
        free(set);
}

static bool insert(struct hash_set *set, uint64_t hash)
{
        uint64_t at = hash & (set->n_slots - 1);

        while (set->slots[at] != 0) {
                if (set->slots[at] == hash)
                        return false;
                at = (at + 1) & (set->n_slots - 1);
        }
        set->slots[at] = hash;
        set->n_used++;
        return true;
}

bool hash_set_add(struct hash_set *set, uint64_t hash)
{
        struct hash_set old = *set;

        if (set->n_used * 2 >= set->n_slots) {
                set->n_slots *= 2;
                set->n_used = 0;
                set->slots = allocate(set->n_slots, sizeof(*set->slots));
                for (uint64_t i = 0; i < old.n_slots; i++)
                        if (old.slots[i] != 0)
                                insert(set, old.slots[i]);
                free(old.slots);
        }
        return insert(set, hash == 0 ? 1 : hash);
}
