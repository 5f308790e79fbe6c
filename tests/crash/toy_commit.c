/* toy_commit.c - see toy_impl.h: what a commit writes, and how the newest is found. */
#include "tests/crash/toy_impl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "common/crc32c.h"

#define PLACE_OFFSET 16384u

/* The two places for commits share the first member. */
static uint64_t place_bytes(const struct member *member)
{
        return (member->size_bytes - PLACE_OFFSET) / 2 / POOL_BLOCK * POOL_BLOCK;
}

struct root_disk {
        char name[2 * POOL_NAME_MAX];
        uint64_t id, size_bytes, n_entries;
};

struct entry_disk {
        uint64_t block, page;
};

struct buffer {
        uint8_t *bytes;
        size_t length, capacity;
};

static void append(struct buffer *buffer, const void *bytes, size_t length)
{
        if (buffer->length + length > buffer->capacity) {
                uint8_t *larger;

                buffer->capacity =
                    (2 * (buffer->length + length) + POOL_BLOCK) / POOL_BLOCK * POOL_BLOCK;
                larger = toy_must(aligned_alloc(POOL_BLOCK, buffer->capacity));
                memset(larger, 0, buffer->capacity);
                if (buffer->length > 0)
                        memcpy(larger, buffer->bytes, buffer->length);
                free(buffer->bytes);
                buffer->bytes = larger;
        }
        memcpy(buffer->bytes + buffer->length, bytes, length);
        buffer->length += length;
}

/* All roots, then each page once. */
static void serialise(struct pool *pool, struct buffer *buffer)
{
        uint64_t n_pages = 0, n_roots = pool->n_roots;

        append(buffer, &n_roots, sizeof(n_roots));
        for (size_t i = 0; i < pool->n_roots; i++)
                for (size_t k = 0; k < pool->roots[i].n_entries; k++)
                        pool->roots[i].entries[k].page->number = UINT64_MAX;
        for (size_t i = 0; i < pool->n_roots; i++) {
                const struct root *root = &pool->roots[i];
                struct root_disk disk = {
                    .id = root->id, .size_bytes = root->size_bytes, .n_entries = root->n_entries};

                memcpy(disk.name, root->name, sizeof(disk.name));
                append(buffer, &disk, sizeof(disk));
                for (size_t k = 0; k < root->n_entries; k++) {
                        struct page *page = root->entries[k].page;
                        bool first = page->number == UINT64_MAX;
                        struct entry_disk entry = {.block = root->entries[k].block};

                        if (first)
                                page->number = n_pages++;
                        entry.page = page->number;
                        append(buffer, &entry, sizeof(entry));
                        if (first)
                                append(buffer, page->bytes, POOL_BLOCK);
                }
        }
}

void toy_load(struct pool *pool, const uint8_t *bytes)
{
        struct page **pages = NULL;
        uint64_t n_roots, n_pages = 0;

        memcpy(&n_roots, bytes, sizeof(n_roots));
        bytes += sizeof(n_roots);
        if (n_roots > ROOTS_MAX) /* only without CRC */
                n_roots = 0;
        for (uint64_t i = 0; i < n_roots; i++) {
                struct root_disk disk;
                struct root *root;

                memcpy(&disk, bytes, sizeof(disk));
                bytes += sizeof(disk);
                disk.name[sizeof(disk.name) - 1] = '\0';
                root = root_add(pool, disk.name);
                root->id = disk.id;
                root->size_bytes = disk.size_bytes;
                for (uint64_t k = 0; k < disk.n_entries; k++) {
                        struct entry_disk entry;

                        memcpy(&entry, bytes, sizeof(entry));
                        bytes += sizeof(entry);
                        if (entry.page >= n_pages) {
                                pages = toy_must(realloc(pages, (n_pages + 1) * sizeof(*pages)));
                                pages[n_pages] = toy_must(calloc(1, sizeof(**pages)));
                                memcpy(pages[n_pages++]->bytes, bytes, POOL_BLOCK);
                                bytes += POOL_BLOCK;
                                entry.page = n_pages - 1;
                        }
                        pages[entry.page]->references++;
                        root_put(root, entry.block, pages[entry.page]);
                }
        }
        free(pages);
}

static int co_flush_members(struct pool *pool)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < pool->n_members; i++)
                r = co_member_flush(pool->members[i]);
        return r;
}

int co_toy_commit(struct pool *pool, bool clean)
{
        struct buffer buffer = {.length = 0};
        struct commit_disk *commit = toy_must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        uint64_t place;
        int r;

        serialise(pool, &buffer);
        pool->sequence++;
        place = PLACE_OFFSET + pool->sequence % 2 * place_bytes(pool->members[0]);
        memset(commit, 0, POOL_BLOCK);
        *commit = (struct commit_disk){
            .magic = TOY_MAGIC,
            .sequence = pool->sequence,
            .length = buffer.length,
            .n_members = pool->n_members,
            .next_id = pool->next_id,
            .crc_body = crc32c(0, buffer.bytes, buffer.length),
            .clean = clean,
        };
        commit->crc = crc32c(0, commit, offsetof(struct commit_disk, crc));
        r = buffer.length > place_bytes(pool->members[0])
                ? -ENOSPC
                : co_member_write(pool->members[0], buffer.bytes,
                                  (buffer.length + POOL_BLOCK - 1) / POOL_BLOCK * POOL_BLOCK,
                                  place);
        free(buffer.bytes);
        if (r == 0 && toy_defect() != DEFECT_NO_CRC)
                r = co_flush_members(pool);
        for (size_t i = 0; r == 0 && i < pool->n_members; i++)
                r = co_member_write(pool->members[i], commit, POOL_BLOCK,
                                    POOL_BLOCK * (1 + pool->sequence % 2));
        if (r == 0 && toy_defect() != DEFECT_NO_FLUSH)
                r = co_flush_members(pool);
        free(commit);
        return r;
}

int co_toy_commit_locked(struct pool *pool, bool clean)
{
        int r;

        co_lock(&pool->lock);
        r = co_toy_commit(pool, clean);
        co_unlock(&pool->lock);
        return r;
}

int co_toy_newest(struct member *member, struct member *body, struct commit_disk *ret,
                  uint8_t **ret_bytes)
{
        struct commit_disk *commit = toy_must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        int r = 0;

        ret->sequence = 0;
        for (unsigned i = 0; r == 0 && i < 2; i++) {
                uint8_t *bytes;
                uint64_t length;

                r = co_member_read(member, commit, POOL_BLOCK, POOL_BLOCK * (1 + i));
                if (r < 0 || commit->magic != TOY_MAGIC || commit->sequence <= ret->sequence ||
                    commit->length > place_bytes(body) ||
                    commit->crc != crc32c(0, commit, offsetof(struct commit_disk, crc)))
                        continue;
                length = (commit->length + POOL_BLOCK - 1) / POOL_BLOCK * POOL_BLOCK;
                bytes = toy_must(aligned_alloc(POOL_BLOCK, length));
                r = co_member_read(body, bytes, length, PLACE_OFFSET + i * place_bytes(body));
                if (r < 0 || (toy_defect() != DEFECT_NO_CRC &&
                              crc32c(0, bytes, commit->length) != commit->crc_body)) {
                        free(bytes);
                        continue;
                }
                *ret = *commit;
                if (ret_bytes != NULL) {
                        free(*ret_bytes);
                        *ret_bytes = bytes;
                } else {
                        free(bytes);
                }
        }
        free(commit);
        return r;
}
