/* engine_play.h - what a fuzzer has the engine in memory (tests/protocol/fake_pool.h) do: fail, wait,
 * shrink.
 *
 * Threads    one.
 * Errors     none.
 */
#pragma once
#include "tests/fuzz/input.h"
#include "tests/protocol/fake_pool.h"

/* Do to @volume, made with @size bytes, what @kind says: its upper bit is not looked at. */
void engine_play(struct volume *volume, uint64_t size, uint8_t kind, struct input *in);
