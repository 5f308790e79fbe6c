/* image_play.h - what fuzzers of image formats do with an image, whatever its format.
 *
 * Units      bytes.
 * Threads    one; co_* from a coroutine of fuzz_loop.h.
 * Errors     none: what must not happen aborts.
 * Ownership  a process has its files for good.
 */
#pragma once
#include "formats/image.h"
#include "tests/fuzz/input.h"

#define PLAY_FILES 3u

/* Files of an input: the image, and what it may name. */
struct image_play {
        struct image_opener opener;
        struct input *in;
        int fd[PLAY_FILES];
        const char *name[PLAY_FILES]; /* how the opener knows each; NULL: not at all */
};

/* A fuzzer's one input: @co_play runs as a coroutine on what is left of it (a struct input). 0 */
int image_play_run(struct image_play *play, void (*co_play)(void *input), const uint8_t *data,
                   size_t size);

/* Change bytes of a file, up to @head from its beginning or its end, as the input says. */
void image_play_poke(struct image_play *play, unsigned file, uint64_t head);
/* As long as the input says, where it says something. */
void image_play_resize(struct image_play *play, unsigned file);

/* Open file 0 as @format, by options of the input; look at extents, read, check, close. Extents cover the image; what is
 * told to be zero is; a failure has a sentence. */
void co_image_play_read(struct image_play *play, const char *format);
/* Make file 0 an image by options and pieces of the input, and read it back: the same. */
void co_image_play_write(struct image_play *play, const char *format);
