/* toy_content.c - see toy_impl.h: pages, and the roots that hold them. */
#include "tests/crash/toy_impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum defect toy_defect(void)
{
        const char *text = getenv("TOY_DEFECT");

        return text != NULL ? (enum defect)atoi(text) : DEFECT_NONE;
}

void *toy_must(void *memory)
{
        if (memory == NULL)
                abort();
        return memory;
}

void page_drop(struct page *page)
{
        if (--page->references == 0)
                free(page);
}

void root_clear(struct root *root)
{
        for (size_t i = 0; i < root->n_entries; i++)
                page_drop(root->entries[i].page);
        free(root->entries);
        root->entries = NULL;
        root->n_entries = 0;
}

void root_copy(struct root *to, const struct root *from)
{
        to->size_bytes = from->size_bytes;
        to->n_entries = from->n_entries;
        to->entries = toy_must(calloc(from->n_entries + 1, sizeof(*to->entries)));
        for (size_t i = 0; i < from->n_entries; i++) {
                to->entries[i] = from->entries[i];
                to->entries[i].page->references++;
        }
}

size_t root_position(const struct root *root, uint64_t block)
{
        size_t at = 0;

        while (at < root->n_entries && root->entries[at].block < block)
                at++;
        return at;
}

void root_put(struct root *root, uint64_t block, struct page *page)
{
        size_t at = root_position(root, block);

        if (at < root->n_entries && root->entries[at].block == block) {
                page_drop(root->entries[at].page);
                root->entries[at].page = page;
                return;
        }
        root->entries =
            toy_must(realloc(root->entries, (root->n_entries + 1) * sizeof(*root->entries)));
        memmove(&root->entries[at + 1], &root->entries[at],
                (root->n_entries - at) * sizeof(*root->entries));
        root->entries[at] = (struct entry){block, page};
        root->n_entries++;
}

/* A page of its own, to change. */
static struct page *root_change(struct root *root, uint64_t block)
{
        size_t at = root_position(root, block);
        struct page *page = toy_must(calloc(1, sizeof(*page)));

        page->references = 1;
        if (at < root->n_entries && root->entries[at].block == block)
                memcpy(page->bytes, root->entries[at].page->bytes, POOL_BLOCK);
        root_put(root, block, page);
        return page;
}

void root_write(struct root *root, const uint8_t *data, uint64_t offset, uint64_t length)
{
        while (length > 0) {
                uint64_t block = offset / POOL_BLOCK, in_block = offset % POOL_BLOCK;
                uint64_t part = POOL_BLOCK - in_block < length ? POOL_BLOCK - in_block : length;
                size_t at = root_position(root, block);

                if (data != NULL) {
                        memcpy(root_change(root, block)->bytes + in_block, data, part);
                        data += part;
                } else if (at == root->n_entries) {
                        return;
                } else if (root->entries[at].block == block) {
                        memset(root_change(root, block)->bytes + in_block, 0, part);
                } else { /* on to the next that is there */
                        uint64_t next = root->entries[at].block * POOL_BLOCK - offset;

                        part = next < length ? next : length;
                }
                offset += part;
                length -= part;
        }
}

struct root *root_find(struct pool *pool, const char *name)
{
        for (size_t i = 0; i < pool->n_roots; i++)
                if (strcmp(pool->roots[i].name, name) == 0)
                        return &pool->roots[i];
        return NULL;
}

struct root *root_find_id(struct pool *pool, uint64_t id)
{
        for (size_t i = 0; i < pool->n_roots; i++)
                if (pool->roots[i].id == id)
                        return &pool->roots[i];
        return NULL;
}

struct root *root_add(struct pool *pool, const char *name)
{
        struct root *root = &pool->roots[pool->n_roots++];

        if (pool->n_roots > ROOTS_MAX)
                abort();
        memset(root, 0, sizeof(*root));
        snprintf(root->name, sizeof(root->name), "%s", name);
        root->id = ++pool->next_id;
        return root;
}

void root_remove(struct pool *pool, struct root *root)
{
        root_clear(root);
        *root = pool->roots[--pool->n_roots];
}
