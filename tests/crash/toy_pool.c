/* toy_pool.c - pool.h in the simplest way that keeps its promises: to test the crash explorer
 * itself.
 *
 * All of the pool is in memory, and every commit writes all of it to one of two places in turn,
 * then a page that names it with its CRC. Slow, small, and easy to see through. The environment
 * variable TOY_DEFECT breaks it in one of the ways listed below; the explorer must notice each
 * (meson.build). */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "common/coroutine.h"
#include "common/crc32c.h"
#include "pool/pool.h"

enum defect {
        DEFECT_NONE,
        DEFECT_FLUSH_ANSWERS_EARLY, /* without a commit */
        DEFECT_NO_FLUSH,            /* a commit that is only written */
        DEFECT_NO_CRC,          /* a commit believed unseen, and not flushed before it is named */
        DEFECT_GROUP_IN_PARTS,  /* a group snapshot as one commit a volume */
        DEFECT_BLOCK_IN_PARTS,  /* half a block, a commit, the other half */
        DEFECT_SHRINK_IN_PARTS, /* data, then size */
        DEFECT_NO_CUT,          /* a group snapshot goes from volume to volume while writes go on */
        DEFECT_SECOND_RECOVERY, /* the second recovery loses something */
        DEFECT_RECOVERY_NOT_RESTARTED, /* a crash during recovery loses something */
        DEFECT_HANG,
        DEFECT_ABORT,
        DEFECT_ANOTHER_VOLUME, /* a new volume shows what a deleted one held */
        DEFECT_FUA,            /* taken for a plain write */

};

#define ROOTS_MAX    64u
#define MAGIC        UINT64_C(0x796f74206e726174)
#define PLACE_OFFSET 16384u

/* The two places for commits share the first member. */
static uint64_t place_bytes(const struct member *member)
{
        return (member->size_bytes - PLACE_OFFSET) / 2 / POOL_BLOCK * POOL_BLOCK;
}

struct page {
        unsigned references;
        uint64_t number; /* in the commit being written */
        uint8_t bytes[POOL_BLOCK];
};

struct entry {
        uint64_t block;
        struct page *page;
};

struct root {
        char name[2 * POOL_NAME_MAX];
        uint64_t id, size_bytes;
        struct entry *entries; /* ascending */
        size_t n_entries;
};

struct pool {
        struct loop *loop;
        struct member *members[16];
        size_t n_members;
        struct root roots[ROOTS_MAX];
        size_t n_roots;
        uint64_t next_id, sequence;
        bool recovered; /* by this open, after a crash */
        struct co_mutex lock;
        struct entry *remains; /* of a deleted volume, for DEFECT_ANOTHER_VOLUME */
        size_t n_remains;
};

struct volume {
        struct pool *pool;
        uint64_t id;
};

/* Page at 4096 * (1 + sequence % 2) of every member. */
struct commit_disk {
        uint64_t magic, sequence, length, n_members, next_id;
        uint32_t crc_body, clean, crc;
};

struct root_disk {
        char name[2 * POOL_NAME_MAX];
        uint64_t id, size_bytes, n_entries;
};

struct entry_disk {
        uint64_t block, page;
};

struct label_disk {
        uint64_t magic, index;
        uint8_t pool_uuid[16];
};

static enum defect defect(void)
{
        const char *text = getenv("TOY_DEFECT");

        return text != NULL ? (enum defect)atoi(text) : DEFECT_NONE;
}

static void *must(void *memory)
{
        if (memory == NULL)
                abort();
        return memory;
}

/* ---- contents ---- */

static void page_drop(struct page *page)
{
        if (--page->references == 0)
                free(page);
}

static void root_clear(struct root *root)
{
        for (size_t i = 0; i < root->n_entries; i++)
                page_drop(root->entries[i].page);
        free(root->entries);
        root->entries = NULL;
        root->n_entries = 0;
}

static void root_copy(struct root *to, const struct root *from)
{
        to->size_bytes = from->size_bytes;
        to->n_entries = from->n_entries;
        to->entries = must(calloc(from->n_entries + 1, sizeof(*to->entries)));
        for (size_t i = 0; i < from->n_entries; i++) {
                to->entries[i] = from->entries[i];
                to->entries[i].page->references++;
        }
}

static size_t root_position(const struct root *root, uint64_t block)
{
        size_t at = 0;

        while (at < root->n_entries && root->entries[at].block < block)
                at++;
        return at;
}

static void root_put(struct root *root, uint64_t block, struct page *page)
{
        size_t at = root_position(root, block);

        if (at < root->n_entries && root->entries[at].block == block) {
                page_drop(root->entries[at].page);
                root->entries[at].page = page;
                return;
        }
        root->entries =
            must(realloc(root->entries, (root->n_entries + 1) * sizeof(*root->entries)));
        memmove(&root->entries[at + 1], &root->entries[at],
                (root->n_entries - at) * sizeof(*root->entries));
        root->entries[at] = (struct entry){block, page};
        root->n_entries++;
}

/* A page of its own, to change. */
static struct page *root_change(struct root *root, uint64_t block)
{
        size_t at = root_position(root, block);
        struct page *page = must(calloc(1, sizeof(*page)));

        page->references = 1;
        if (at < root->n_entries && root->entries[at].block == block)
                memcpy(page->bytes, root->entries[at].page->bytes, POOL_BLOCK);
        root_put(root, block, page);
        return page;
}

/* Data NULL: zeroes, of blocks that are there. */
static void root_write(struct root *root, const uint8_t *data, uint64_t offset, uint64_t length)
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

static struct root *find(struct pool *pool, const char *name)
{
        for (size_t i = 0; i < pool->n_roots; i++)
                if (strcmp(pool->roots[i].name, name) == 0)
                        return &pool->roots[i];
        return NULL;
}

static struct root *find_id(struct pool *pool, uint64_t id)
{
        for (size_t i = 0; i < pool->n_roots; i++)
                if (pool->roots[i].id == id)
                        return &pool->roots[i];
        return NULL;
}

static struct root *add_root(struct pool *pool, const char *name)
{
        struct root *root = &pool->roots[pool->n_roots++];

        if (pool->n_roots > ROOTS_MAX)
                abort();
        memset(root, 0, sizeof(*root));
        snprintf(root->name, sizeof(root->name), "%s", name);
        root->id = ++pool->next_id;
        return root;
}

static void remove_root(struct pool *pool, struct root *root)
{
        root_clear(root);
        *root = pool->roots[--pool->n_roots];
}

/* ---- commits ---- */

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
                larger = must(aligned_alloc(POOL_BLOCK, buffer->capacity));
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

static void deserialise(struct pool *pool, const uint8_t *bytes)
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
                root = add_root(pool, disk.name);
                root->id = disk.id;
                root->size_bytes = disk.size_bytes;
                for (uint64_t k = 0; k < disk.n_entries; k++) {
                        struct entry_disk entry;

                        memcpy(&entry, bytes, sizeof(entry));
                        bytes += sizeof(entry);
                        if (entry.page >= n_pages) {
                                pages = must(realloc(pages, (n_pages + 1) * sizeof(*pages)));
                                pages[n_pages] = must(calloc(1, sizeof(**pages)));
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

static int co_commit(struct pool *pool, bool clean)
{
        struct buffer buffer = {.length = 0};
        struct commit_disk *commit = must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        uint64_t place;
        int r;

        serialise(pool, &buffer);
        pool->sequence++;
        place = PLACE_OFFSET + pool->sequence % 2 * place_bytes(pool->members[0]);
        memset(commit, 0, POOL_BLOCK);
        *commit = (struct commit_disk){
            .magic = MAGIC,
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
        if (r == 0 && defect() != DEFECT_NO_CRC)
                r = co_flush_members(pool);
        for (size_t i = 0; r == 0 && i < pool->n_members; i++)
                r = co_member_write(pool->members[i], commit, POOL_BLOCK,
                                    POOL_BLOCK * (1 + pool->sequence % 2));
        if (r == 0 && defect() != DEFECT_NO_FLUSH)
                r = co_flush_members(pool);
        free(commit);
        return r;
}

static int co_commit_locked(struct pool *pool, bool clean)
{
        int r;

        co_lock(&pool->lock);
        r = co_commit(pool, clean);
        co_unlock(&pool->lock);
        return r;
}

/* The newest commit that is whole on this member; sequence 0: none. */
static int co_newest(struct member *member, struct member *body, struct commit_disk *ret,
                     uint8_t **ret_bytes)
{
        struct commit_disk *commit = must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        int r = 0;

        ret->sequence = 0;
        for (unsigned i = 0; r == 0 && i < 2; i++) {
                uint8_t *bytes;
                uint64_t length;

                r = co_member_read(member, commit, POOL_BLOCK, POOL_BLOCK * (1 + i));
                if (r < 0 || commit->magic != MAGIC || commit->sequence <= ret->sequence ||
                    commit->length > place_bytes(body) ||
                    commit->crc != crc32c(0, commit, offsetof(struct commit_disk, crc)))
                        continue;
                length = (commit->length + POOL_BLOCK - 1) / POOL_BLOCK * POOL_BLOCK;
                bytes = must(aligned_alloc(POOL_BLOCK, length));
                r = co_member_read(body, bytes, length, PLACE_OFFSET + i * place_bytes(body));
                if (r < 0 || (defect() != DEFECT_NO_CRC &&
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

/* ---- the pool ---- */

static int co_write_label(struct member *member, uint64_t index, const uint8_t *uuid)
{
        struct label_disk *label = must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        int r;

        memset(label, 0, POOL_BLOCK);
        *label = (struct label_disk){.magic = MAGIC, .index = index};
        if (uuid != NULL)
                memcpy(label->pool_uuid, uuid, sizeof(label->pool_uuid));
        r = co_member_write(member, label, POOL_BLOCK, 0);
        free(label);
        return r < 0 ? r : co_member_flush(member);
}

int co_pool_create(struct member *const *members, size_t n_members,
                   const struct pool_create_options *options, struct error *err)
{
        struct pool pool = {.n_members = n_members};
        int r = 0;

        for (size_t i = 0; r == 0 && i < n_members; i++) {
                pool.members[i] = members[i];
                r = co_write_label(members[i], i, options->uuid);
        }
        return r < 0 ? r : co_commit(&pool, true);
}

int co_pool_read_label(struct member *member, struct pool_label *ret_label, struct error *err)
{
        struct label_disk *label = must(aligned_alloc(POOL_BLOCK, POOL_BLOCK));
        struct commit_disk commit;
        int r = co_member_read(member, label, POOL_BLOCK, 0);

        if (r == 0 && label->magic != MAGIC)
                r = error_set(err, -ENODATA, "no label");
        if (r == 0)
                r = co_newest(member, member, &commit, NULL);
        if (r == 0) {
                *ret_label = (struct pool_label){.index = (unsigned)label->index};
                ret_label->generation = commit.sequence;
                ret_label->member_uuid[0] = (uint8_t)label->index;
        }
        free(label);
        return r;
}

int co_pool_read_membership(struct member *member, uint8_t (**ret_uuids)[16], size_t *ret_n,
                            struct error *err)
{
        struct commit_disk commit;
        int r = co_newest(member, member, &commit, NULL);

        if (r < 0)
                return error_set(err, r, "cannot read the membership");
        *ret_n = commit.n_members;
        *ret_uuids = must(calloc(commit.n_members + 1, 16));
        for (size_t i = 0; i < commit.n_members; i++)
                (*ret_uuids)[i][0] = (uint8_t)i;
        return 0;
}

static int co_recover(struct pool *pool, const struct commit_disk *commit)
{
        int r = 0;

        if (commit->clean)
                return 0;
        pool->recovered = true;
        if (defect() == DEFECT_ABORT && commit->sequence % 3 == 0)
                abort();
        if (defect() == DEFECT_RECOVERY_NOT_RESTARTED && pool->n_roots > 0) {
                struct root whole = pool->roots[0];

                pool->roots[0].n_entries = 0;
                r = co_commit(pool, false);
                pool->roots[0] = whole;
        }
        return r < 0 ? r : co_commit(pool, false);
}

int co_pool_open(struct loop *loop, struct member *const *members, size_t n_members,
                 const struct pool_options *options, struct pool **ret_pool, struct error *err)
{
        struct pool *pool = must(calloc(1, sizeof(*pool)));
        struct commit_disk commit;
        uint8_t *bytes = NULL;
        int r;

        pool->loop = loop;
        pool->n_members = n_members;
        memcpy(pool->members, members, n_members * sizeof(*members));
        co_mutex_init(&pool->lock);
        r = co_newest(members[0], members[0], &commit, &bytes);
        if (r == 0 && commit.sequence == 0)
                r = -EUCLEAN;
        if (r == 0) {
                deserialise(pool, bytes);
                pool->next_id = commit.next_id;
                pool->sequence = commit.sequence;
                r = co_recover(pool, &commit);
        }
        free(bytes);
        if (r < 0) {
                free(pool);
                return error_set(err, r, "cannot open the toy pool");
        }
        *ret_pool = pool;
        return 0;
}

void co_pool_abandon(struct pool *pool)
{
        for (size_t i = 0; i < pool->n_members; i++)
                member_close(pool->members[i]);
        while (pool->n_roots > 0)
                remove_root(pool, &pool->roots[0]);
        for (size_t i = 0; i < pool->n_remains; i++)
                page_drop(pool->remains[i].page);
        free(pool->remains);
        free(pool);
}

int co_pool_close(struct pool *pool, struct error *err)
{
        int r;

        if (defect() == DEFECT_SECOND_RECOVERY && pool->recovered && pool->n_roots > 0 &&
            pool->roots[0].n_entries > 0)
                root_write(&pool->roots[0], NULL, pool->roots[0].entries[0].block * POOL_BLOCK,
                           512);
        r = co_commit(pool, true);
        co_pool_abandon(pool);
        return r;
}

int co_pool_add(struct pool *pool, struct member *const *members, size_t n_members,
                struct error *err)
{
        int r;

        co_lock(&pool->lock);
        r = co_write_label(members[0], pool->n_members, NULL);
        if (r == 0) {
                pool->members[pool->n_members++] = members[0];
                r = co_commit(pool, false);
        }
        co_unlock(&pool->lock);
        return r;
}

int co_pool_checkpoint(struct pool *pool, struct error *err)
{
        return co_commit_locked(pool, false);
}

int co_pool_settle(struct pool *pool, struct error *err)
{
        return 0;
}

void pool_get_info(struct pool *pool, struct pool_info *ret_info)
{
        *ret_info = (struct pool_info){.n_members = pool->n_members};
}

int co_pool_check(struct pool *pool, bool read_data, const struct pool_check_callbacks *callbacks,
                  uint64_t *ret_n_findings, struct error *err)
{
        *ret_n_findings = 0;
        return 0;
}

/* ---- the catalog ---- */

int co_pool_list(struct pool *pool, int (*each)(const struct root_info *info, void *arg), void *arg,
                 struct error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < pool->n_roots; i++) {
                struct root *root = &pool->roots[i];
                char volume[sizeof(root->name)], *at;
                struct root_info info = {.size_bytes = root->size_bytes, .id = root->id};

                memcpy(volume, root->name, sizeof(volume));
                at = strchr(volume, '@');
                info.kind = at != NULL ? ROOT_SNAPSHOT : ROOT_VOLUME;
                if (at != NULL) {
                        *at = '\0';
                        info.snapshot = at + 1;
                }
                info.volume = volume;
                r = each(&info, arg);
        }
        return r;
}

int co_volume_create(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        struct root *root;
        int r;

        co_lock(&pool->lock);
        root = add_root(pool, name);
        root->size_bytes = size_bytes;
        for (size_t i = 0; i < pool->n_remains; i++)
                if (pool->remains[i].block * POOL_BLOCK < size_bytes) {
                        pool->remains[i].page->references++;
                        root_put(root, pool->remains[i].block, pool->remains[i].page);
                }
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

static bool is_of(const struct root *root, const char *volume)
{
        size_t length = strlen(volume);

        return strncmp(root->name, volume, length) == 0 && strchr("@", root->name[length]) != NULL;
}

int co_volume_delete(struct pool *pool, const char *name, bool with_snapshots, struct error *err)
{
        struct root *root;
        int r;

        co_lock(&pool->lock);
        root = find(pool, name);
        if (defect() == DEFECT_ANOTHER_VOLUME && pool->remains == NULL) {
                struct root copy = {.n_entries = 0};

                root_copy(&copy, root);
                pool->remains = copy.entries;
                pool->n_remains = copy.n_entries;
        }
        for (size_t i = pool->n_roots; i-- > 0;)
                if (is_of(&pool->roots[i], name))
                        remove_root(pool, &pool->roots[i]);
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_rename(struct pool *pool, const char *name, const char *new_name, struct error *err)
{
        int r;

        co_lock(&pool->lock);
        for (size_t i = 0; i < pool->n_roots; i++)
                if (is_of(&pool->roots[i], name)) {
                        char text[sizeof(pool->roots[i].name) + POOL_NAME_MAX];

                        snprintf(text, sizeof(text), "%s%s", new_name,
                                 pool->roots[i].name + strlen(name));
                        memcpy(pool->roots[i].name, text, sizeof(pool->roots[i].name));
                }
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_resize(struct pool *pool, const char *name, uint64_t size_bytes, struct error *err)
{
        struct root *root;
        int r = 0;

        co_lock(&pool->lock);
        root = find(pool, name);
        if (size_bytes < root->size_bytes)
                root_write(root, NULL, size_bytes, root->size_bytes - size_bytes);
        if (defect() == DEFECT_SHRINK_IN_PARTS)
                r = co_commit(pool, false);
        root->size_bytes = size_bytes;
        if (r == 0)
                r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_create(struct pool *pool, const char *const *names, size_t n_names,
                       struct error *err)
{
        int r = 0;

        co_lock(&pool->lock);
        for (size_t i = 0; r == 0 && i < n_names; i++) {
                char volume[2 * POOL_NAME_MAX];

                snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(names[i], "@"), names[i]);
                root_copy(add_root(pool, names[i]), find(pool, volume));
                if (defect() == DEFECT_GROUP_IN_PARTS)
                        r = co_commit(pool, false);
                if (defect() == DEFECT_NO_CUT) {
                        co_unlock(&pool->lock);
                        co_sleep_ns(1000000);
                        co_lock(&pool->lock);
                }
        }
        if (r == 0)
                r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_delete(struct pool *pool, const char *name, struct error *err)
{
        int r;

        co_lock(&pool->lock);
        remove_root(pool, find(pool, name));
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_restore(struct pool *pool, const char *name, const char *keep_as, struct error *err)
{
        char volume[POOL_NAME_MAX + 1], keep[2 * POOL_NAME_MAX];
        struct root *root;
        int r;

        snprintf(volume, sizeof(volume), "%.*s", (int)strcspn(name, "@"), name);
        co_lock(&pool->lock);
        root = find(pool, volume);
        if (keep_as != NULL) {
                if (snprintf(keep, sizeof(keep), "%s@%s", volume, keep_as) >= (int)sizeof(keep))
                        abort();
                root_copy(add_root(pool, keep), root);
        }
        root_clear(root);
        root_copy(root, find(pool, name));
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_snapshot_clone(struct pool *pool, const char *snapshot, const char *new_volume,
                      struct error *err)
{
        int r;

        co_lock(&pool->lock);
        root_copy(add_root(pool, new_volume), find(pool, snapshot));
        r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

/* ---- I/O ---- */

int co_volume_open(struct pool *pool, const char *name, struct volume **ret_volume,
                   struct error *err)
{
        struct root *root = find(pool, name);
        struct volume *volume;

        if (root == NULL)
                return error_set(err, -ENOENT, "no '%s'", name);
        volume = must(calloc(1, sizeof(*volume)));
        *volume = (struct volume){.pool = pool, .id = root->id};
        *ret_volume = volume;
        return 0;
}

void co_volume_close(struct volume *volume)
{
        free(volume);
}

uint64_t volume_size(const struct volume *volume)
{
        return find_id(volume->pool, volume->id)->size_bytes;
}

int co_volume_read(struct volume *volume, void *buffer, uint64_t length, uint64_t offset)
{
        const struct root *root = find_id(volume->pool, volume->id);
        uint8_t *bytes = buffer;

        memset(bytes, 0, length);
        for (size_t i = 0; i < root->n_entries; i++) {
                uint64_t start = root->entries[i].block * POOL_BLOCK, end = start + POOL_BLOCK;
                uint64_t from = start > offset ? start : offset;
                uint64_t to = end < offset + length ? end : offset + length;

                if (from < to)
                        memcpy(bytes + (from - offset),
                               root->entries[i].page->bytes + (from - start), to - from);
        }
        return 0;
}

static int co_change(struct volume *volume, const uint8_t *data, uint64_t length, uint64_t offset,
                     unsigned flags)
{
        struct pool *pool = volume->pool;
        int r = 0;

        co_lock(&pool->lock);
        if (defect() == DEFECT_BLOCK_IN_PARTS && data != NULL && length > 2048) {
                root_write(find_id(pool, volume->id), data, offset, 2048);
                r = co_commit(pool, false);
        }
        root_write(find_id(pool, volume->id), data, offset, length);
        if (r == 0 && flags & VOLUME_FUA && defect() != DEFECT_FUA)
                r = co_commit(pool, false);
        co_unlock(&pool->lock);
        return r;
}

int co_volume_write(struct volume *volume, const void *buffer, uint64_t length, uint64_t offset,
                    unsigned flags)
{
        return co_change(volume, buffer, length, offset, flags);
}

int co_volume_discard(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_change(volume, NULL, length, offset, flags);
}

int co_volume_zero(struct volume *volume, uint64_t offset, uint64_t length, unsigned flags)
{
        return co_change(volume, NULL, length, offset, flags);
}

int co_volume_flush(struct volume *volume)
{
        if (defect() == DEFECT_FLUSH_ANSWERS_EARLY)
                return 0;
        if (defect() == DEFECT_HANG)
                co_suspend();
        return co_commit_locked(volume->pool, false);
}

int co_volume_status(struct volume *volume, uint64_t offset, uint64_t length,
                     struct volume_extent *extents, size_t n_max, size_t *ret_n)
{
        const struct root *root = find_id(volume->pool, volume->id);
        size_t at = root_position(root, offset / POOL_BLOCK);
        uint64_t end = offset + length, start;

        start = at < root->n_entries ? root->entries[at].block * POOL_BLOCK : end;
        *ret_n = 1;
        if (start > offset)
                extents[0] =
                    (struct volume_extent){(start < end ? start : end) - offset, EXTENT_ZERO};
        else
                extents[0] = (struct volume_extent){
                    start + POOL_BLOCK < end ? start + POOL_BLOCK - offset : length, 0};
        return 0;
}

/* ---- questions ---- */

static const struct page *page_at(const struct root *root, uint64_t block)
{
        size_t at = root_position(root, block);

        return at < root->n_entries && root->entries[at].block == block ? root->entries[at].page
                                                                        : NULL;
}

/* Everything that either holds, but for pages that both share. */
int co_pool_diff(struct pool *pool, const char *a, const char *b,
                 int (*each)(uint64_t offset, uint64_t length, void *arg), void *arg,
                 struct error *err)
{
        const struct root *x = find(pool, a), *y = find(pool, b);
        uint64_t size = x->size_bytes > y->size_bytes ? x->size_bytes : y->size_bytes, from = 0,
                 to = 0;
        size_t i = 0, k = 0;

        while (i < x->n_entries || k < y->n_entries) {
                uint64_t p = i < x->n_entries ? x->entries[i].block : UINT64_MAX;
                uint64_t q = k < y->n_entries ? y->entries[k].block : UINT64_MAX,
                         block = p < q ? p : q;

                i += block == p;
                k += block == q;
                if (page_at(x, block) == page_at(y, block) || block * POOL_BLOCK >= size)
                        continue;
                if (to > from && to != block * POOL_BLOCK)
                        each(from, to - from, arg);
                if (to != block * POOL_BLOCK || to == from)
                        from = block * POOL_BLOCK;
                to = (block + 1) * POOL_BLOCK < size ? (block + 1) * POOL_BLOCK : size;
        }
        if (to > from)
                each(from, to - from, arg);
        return 0;
}

int co_root_get(struct pool *pool, const char *name,
                int (*each)(const struct root_info *info, void *arg), void *arg, struct error *err)
{
        struct root_info info = {.freed_if_deleted_bytes = 0};

        return each(&info, arg);
}
