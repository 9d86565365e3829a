/*
 * libFuzzer on the whole core. The input is a script: each step is one byte that says how long to wait, one byte of
 * length and as many bytes. With the length's top bit the bytes go onto the line as they are; without it they become
 * the payload of a good frame whose type is the first of them, so that the fuzzer gets past the CRC.
 */
#include <stdint.h>

#include "../test/bench.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bench chip;

static void feed_frame(const uint8_t *bytes, size_t length, uint32_t sequence) {
  static uint8_t frame[OMCU_FRAME_BYTES_MAX];
  static uint8_t line[OMCU_LINE_BYTES_MAX];
  memcpy(frame + OMCU_HEADER_BYTES, bytes + 1, length - 1);
  /* The nonce cannot be guessed by fuzzing; without it no ARM would ever be reached. */
  if ((bytes[0] == OMCU_ARM || bytes[0] == OMCU_RELEASE) && length == 17 && bytes[5] == 'N') {
    for (size_t i = 0; i < 4; i += 1) frame[OMCU_HEADER_BYTES + 4 + i] = (uint8_t)(chip.core.boot_nonce >> (8 * i));
  }
  omcu_rx(&chip.core, line, omcu_frame_finish(frame, bytes[0], sequence, length - 1, line));
}

static void check(void) {
  const bool may_move = chip.core.state == OMCU_ARMED && chip.core.is_gate_open && !chip.is_estop_pressed &&
                        omcu_is_lease_fresh(&chip.core, chip.now_us) && chip.core.session != 0 &&
                        chip.core.host_epoch == chip.core.armed_epoch;
  CHECK(!chip.is_motion_enabled || may_move);
  CHECK(chip.output_state == chip.core.state);
  CHECK(chip.core.receiver.pending_length <= OMCU_ENCODED_BYTES_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bench_boot(&chip, &BENCH_CONFIG);
  uint32_t sequence = 0;
  size_t at = 0;
  while (at + 2 < size) {
    chip.now_us += (uint64_t)data[at] * 2000u;
    chip.is_estop_pressed = data[at] == 0xff;
    const bool is_raw = (data[at + 1] & 0x80u) != 0;
    size_t length = data[at + 1] & 0x7fu;
    at += 2;
    if (length > size - at) length = size - at;
    if (is_raw) omcu_rx(&chip.core, data + at, length);
    else if (length > 0) feed_frame(data + at, length, sequence++);
    at += length;
    omcu_poll(&chip.core);
    check();
    chip.tx_length = 0;
  }
  return 0;
}
