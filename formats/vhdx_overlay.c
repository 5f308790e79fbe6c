/* vhdx_overlay.c - what a log says lies over the file for all who read. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vhdx_internal.h"

/* Records under way at one place; the latest one, which is what counts, first. */
struct heap {
        const struct vhdx_replayed **at;
        size_t n;
};

static void sift_down(struct heap *h, size_t i)
{
        for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
                const struct vhdx_replayed *moved = h->at[i];

                if (child + 1 < h->n && h->at[child + 1] > h->at[child])
                        child++;
                if (moved > h->at[child])
                        return;
                h->at[i] = h->at[child];
                h->at[child] = moved;
        }
}

static void heap_add(struct heap *h, const struct vhdx_replayed *record)
{
        size_t i = h->n++;

        while (i > 0 && h->at[(i - 1) / 2] < record) {
                h->at[i] = h->at[(i - 1) / 2];
                i = (i - 1) / 2;
        }
        h->at[i] = record;
}

static void heap_drop(struct heap *h)
{
        h->at[0] = h->at[--h->n];
        sift_down(h, 0);
}

static int by_begin(const void *a, const void *b)
{
        const struct vhdx_replayed *x = *(const struct vhdx_replayed *const *)a;
        const struct vhdx_replayed *y = *(const struct vhdx_replayed *const *)b;

        return x->begin < y->begin ? -1 : x->begin > y->begin;
}

/* One more range of what is seen; one that goes on as the last one is joined to it. */
static void emit(struct vhdx *v, const struct vhdx_replayed *record, uint64_t begin, uint64_t end)
{
        const uint8_t *data = record->data ? record->data + (begin - record->begin) : NULL;
        struct vhdx_replayed *last = v->n_replayed > 0 ? &v->replayed[v->n_replayed - 1] : NULL;

        if (last && last->end == begin &&
            (last->data ? data == last->data + (last->end - last->begin) : !data))
                last->end = end;
        else
                v->replayed[v->n_replayed++] = (struct vhdx_replayed){begin, end, data};
}

/* Go over all places where a record begins or ends. A record's address tells its order. At most
 * two ranges a record come out: one where it begins, one where a later one ends. */
static void sweep(struct vhdx *v, const struct vhdx_replayed **sorted, size_t n, struct heap *heap)
{
        uint64_t at = 0;
        size_t next = 0;

        while (next < n || heap->n > 0) {
                uint64_t until;

                if (heap->n == 0)
                        at = sorted[next]->begin;
                while (next < n && sorted[next]->begin <= at)
                        heap_add(heap, sorted[next++]);
                while (heap->n > 0 && heap->at[0]->end <= at)
                        heap_drop(heap);
                if (heap->n == 0)
                        continue;
                until = heap->at[0]->end;
                if (next < n && sorted[next]->begin < until)
                        until = sorted[next]->begin;
                emit(v, heap->at[0], at, until);
                at = until;
        }
}

int vhdx_overlay(struct vhdx *v, struct vhdx_replayed *records, size_t n, struct error *err)
{
        const struct vhdx_replayed **sorted = calloc(n + 1, sizeof(*sorted));
        struct heap heap = {.at = calloc(n + 1, sizeof(*heap.at))};
        int r = 0;

        v->replayed = calloc(2 * n + 1, sizeof(v->replayed[0]));
        if (sorted && heap.at && v->replayed) {
                for (size_t i = 0; i < n; i++)
                        sorted[i] = &records[i];
                qsort(sorted, n, sizeof(*sorted), by_begin);
                sweep(v, sorted, n, &heap);
        } else {
                r = error_set(err, -ENOMEM, "out of memory");
        }
        free(sorted);
        free(heap.at);
        free(records);
        return r;
}

size_t vhdx_overlay_find(const struct vhdx *v, uint64_t offset)
{
        size_t low = 0, high = v->n_replayed;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (v->replayed[middle].end <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

int co_vhdx_pread(struct image *image, void *buffer, size_t length, uint64_t offset,
                  struct error *err)
{
        const struct vhdx *v = image->state;
        uint64_t end = offset + length;
        int r;

        if (offset > v->file_end || length > v->file_end - offset)
                return error_set(err, -EBADMSG,
                                 "'%s' ends at %llu, and %zu bytes at %llu are needed", image->path,
                                 (unsigned long long)v->file_end, length,
                                 (unsigned long long)offset);
        r = co_image_pread_padded(image, buffer, length, offset, err);
        for (size_t i = vhdx_overlay_find(v, offset);
             r == 0 && i < v->n_replayed && v->replayed[i].begin < end; i++) {
                const struct vhdx_replayed *p = &v->replayed[i];
                uint64_t from = p->begin > offset ? p->begin : offset;
                uint64_t to = p->end < end ? p->end : end;
                uint8_t *at = (uint8_t *)buffer + (from - offset);

                if (p->data)
                        memcpy(at, p->data + (from - p->begin), to - from);
                else
                        memset(at, 0, to - from);
        }
        return r;
}
