/* Tests of the core on a bench. Built twice: as it ships, and with OUTRIDER_FAULTS. */
#include "bench.h"

static bench chip;
static uint32_t host_sequence;

/* ---- A host ---- */

static void host_sends(uint8_t type, const omcu_writer *payload, uint8_t *frame) {
  uint8_t line[OMCU_LINE_BYTES_MAX];
  const size_t length = omcu_frame_finish(frame, type, host_sequence, payload->length, line);
  host_sequence += 1;
  CHECK(length > 0);
  omcu_rx(&chip.core, line, length);
}

static void host_hello(uint32_t session, uint32_t baud) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, session);
  omcu_put_u64(&payload, 777);
  omcu_put_u32(&payload, baud);
  omcu_put_u16(&payload, OMCU_FRAME_BYTES_MAX);
  host_sends(OMCU_HOST_HELLO, &payload, frame);
}

static void host_beat(uint32_t counter, bool is_gate_open, uint64_t epoch) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, counter);
  omcu_put_u8(&payload, is_gate_open ? 1 : 0);
  omcu_put_u64(&payload, epoch);
  omcu_put_u64(&payload, 888);
  host_sends(OMCU_HEARTBEAT, &payload, frame);
}

static void host_plain(uint8_t type, uint32_t id) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, id);
  host_sends(type, &payload, frame);
}

static void host_arms(uint8_t type, uint32_t id, uint32_t nonce, uint64_t epoch) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, id);
  omcu_put_u32(&payload, nonce);
  omcu_put_u64(&payload, epoch);
  host_sends(type, &payload, frame);
}

static void host_setpoints(uint32_t id, uint64_t epoch, const float *targets, uint8_t count) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, id);
  omcu_put_u64(&payload, epoch);
  omcu_put_u8(&payload, count);
  omcu_put_f32s(&payload, targets, count);
  host_sends(OMCU_SETPOINTS, &payload, frame);
}

static void host_set_rate(uint32_t id, uint8_t stream, uint16_t rate_hz) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, id);
  omcu_put_u8(&payload, stream);
  omcu_put_u16(&payload, rate_hz);
  host_sends(OMCU_SET_RATE, &payload, frame);
}

static void host_fault(uint32_t id, uint8_t fault, uint8_t joint, float value) {
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  omcu_writer payload = omcu_payload_writer(frame);
  omcu_put_u32(&payload, id);
  omcu_put_u8(&payload, fault);
  omcu_put_u8(&payload, joint);
  omcu_put_f32(&payload, value);
  host_sends(OMCU_FAULT, &payload, frame);
}

/* ---- What the MCU has sent ---- */

typedef struct {
  size_t counts[256];
  uint8_t last_type;
  uint8_t payload[256][OMCU_PAYLOAD_BYTES_MAX];
  size_t length[256];
} heard;

static heard ears;

static void on_heard(void *context, const omcu_frame *frame) {
  (void)context;
  ears.counts[frame->type] += 1;
  ears.last_type = frame->type;
  ears.length[frame->type] = frame->payload_length;
  memcpy(ears.payload[frame->type], frame->payload, frame->payload_length);
}

static const heard *host_hears(void) {
  static omcu_receiver receiver;
  omcu_receiver_reset(&receiver);
  memset(&ears, 0, sizeof ears);
  omcu_receive(&receiver, chip.tx, chip.tx_length, on_heard, NULL);
  CHECK(receiver.stats.crc_bad == 0 && receiver.stats.cobs_bad == 0 && receiver.stats.malformed == 0);
  chip.tx_length = 0;
  return &ears;
}

/* Reason of the last ACK (0) or NACK, which must be all there is. */
static int host_hears_answer(void) {
  const heard *all = host_hears();
  CHECK(all->counts[OMCU_ACK] + all->counts[OMCU_NACK] == 1);
  const uint8_t type = all->counts[OMCU_ACK] == 1 ? OMCU_ACK : OMCU_NACK;
  CHECK(all->length[type] == 15);
  const int reason = all->payload[type][14];
  CHECK((type == OMCU_ACK) == (reason == OMCU_NACK_NONE));
  return reason;
}

static void passes(uint64_t us) {
  chip.now_us += us;
  omcu_poll(&chip.core);
}

static void new_chip(void) {
  bench_boot(&chip, &BENCH_CONFIG);
  host_sequence = 0;
}

/* Session open, gate open at epoch 7, armed with command 1, moving. */
static void new_moving_chip(void) {
  new_chip();
  host_hello(11, 0);
  host_beat(1, true, 7);
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(chip.core.state == OMCU_ARMED && chip.is_motion_enabled);
  chip.tx_length = 0;
}

static uint32_t random_state = 2463534242u;

static uint32_t random_u32(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state;
}

/* ---- Wire ---- */

static void crc_has_the_check_value(void) {
  CHECK(omcu_crc32((const uint8_t *)"123456789", 9) == 0xcbf43926u);
  CHECK(omcu_crc32((const uint8_t *)"", 0) == 0);
}

static void cobs_round_trips_every_length_and_refuses_what_is_no_cobs(void) {
  static uint8_t plain[OMCU_FRAME_BYTES_MAX];
  static uint8_t encoded[OMCU_ENCODED_BYTES_MAX];
  for (size_t length = 1; length <= 1100; length += 1) {
    for (int pattern = 0; pattern < 3; pattern += 1) {
      for (size_t i = 0; i < length; i += 1) {
        plain[i] = pattern == 0 ? 0 : pattern == 1 ? (uint8_t)(i % 255 + 1) : (uint8_t)random_u32();
      }
      const size_t size = omcu_cobs_encode(plain, length, encoded);
      CHECK(size <= length + length / 254 + 1);
      CHECK(memchr(encoded, 0, size) == NULL);
      CHECK(omcu_cobs_decode(encoded, size) == length);
      CHECK(memcmp(plain, encoded, length) == 0);
    }
  }
  uint8_t past_end[] = {5, 1, 2};
  CHECK(omcu_cobs_decode(past_end, 3) == 0);
  uint8_t zero_inside[] = {3, 0, 2};
  CHECK(omcu_cobs_decode(zero_inside, 3) == 0);
  uint8_t zero_code[] = {0};
  CHECK(omcu_cobs_decode(zero_code, 1) == 0);
}

static size_t frames_seen;

static void count_frame(void *context, const omcu_frame *frame) {
  (void)context;
  (void)frame;
  frames_seen += 1;
}

static void receiver_finds_the_next_frame_after_any_garbage(void) {
  static omcu_receiver receiver;
  static uint8_t garbage[6000];
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  uint8_t line[OMCU_LINE_BYTES_MAX];
  omcu_receiver_reset(&receiver);
  frames_seen = 0;
  for (uint32_t round = 0; round < 2000; round += 1) {
    const size_t noise = random_u32() % sizeof garbage;
    for (size_t i = 0; i < noise; i += 1) garbage[i] = (uint8_t)random_u32();
    omcu_receive(&receiver, garbage, noise, count_frame, NULL);
    const uint8_t delimiter = 0;
    omcu_receive(&receiver, &delimiter, 1, count_frame, NULL);
    const omcu_writer payload = omcu_payload_writer(frame);
    const size_t length = omcu_frame_finish(frame, OMCU_STOP, round, payload.length, line);
    const size_t cut = random_u32() % length;
    omcu_receive(&receiver, line, cut, count_frame, NULL);
    omcu_receive(&receiver, line + cut, length - cut, count_frame, NULL);
    CHECK(frames_seen == round + 1);
  }
  CHECK(receiver.stats.crc_bad > 0 && receiver.stats.cobs_bad > 0);
}

static void receiver_throws_away_a_frame_without_end_and_goes_on(void) {
  static omcu_receiver receiver;
  omcu_receiver_reset(&receiver);
  frames_seen = 0;
  uint8_t ones[256];
  memset(ones, 1, sizeof ones);
  for (int i = 0; i < 100; i += 1) omcu_receive(&receiver, ones, sizeof ones, count_frame, NULL);
  CHECK(receiver.stats.oversize == 1 && frames_seen == 0);
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  uint8_t line[OMCU_LINE_BYTES_MAX];
  const uint8_t delimiter = 0;
  omcu_receive(&receiver, &delimiter, 1, count_frame, NULL);
  const size_t length = omcu_frame_finish(frame, OMCU_STOP, 0, 0, line);
  omcu_receive(&receiver, line, length, count_frame, NULL);
  CHECK(frames_seen == 1);
}

static void largest_payload_fits_and_a_larger_one_is_refused(void) {
  static uint8_t frame[OMCU_FRAME_BYTES_MAX];
  static uint8_t line[OMCU_LINE_BYTES_MAX];
  static omcu_receiver receiver;
  memset(frame, 0xa5, sizeof frame);
  omcu_receiver_reset(&receiver);
  frames_seen = 0;
  const size_t length = omcu_frame_finish(frame, 0x90, 1, OMCU_PAYLOAD_BYTES_MAX, line);
  CHECK(length > OMCU_PAYLOAD_BYTES_MAX && length <= OMCU_LINE_BYTES_MAX);
  omcu_receive(&receiver, line, length, count_frame, NULL);
  CHECK(frames_seen == 1 && receiver.stats.oversize == 0);
  CHECK(omcu_frame_finish(frame, 0x90, 1, OMCU_PAYLOAD_BYTES_MAX + 1, line) == 0);
}

static void holes_in_the_sequence_are_counted_as_lost(void) {
  new_chip();
  host_hello(11, 0);
  host_sequence += 3;
  host_beat(1, false, 0);
  CHECK(chip.core.receiver.stats.lost == 3);
  host_sequence = 0; /* a restarted sender is no loss */
  host_beat(2, false, 0);
  CHECK(chip.core.receiver.stats.lost == 3);
}

/* ---- Session ---- */

static void boots_disarmed_and_says_hello_until_a_host_speaks(void) {
  new_chip();
  CHECK(chip.core.state == OMCU_DISARMED && !chip.is_motion_enabled);
  passes(0);
  const heard *all = host_hears();
  CHECK(all->counts[OMCU_MCU_HELLO] == 1 && omcu_get_u32(all->payload[OMCU_MCU_HELLO] + 8) == 0);
  passes(1000);
  CHECK(host_hears()->counts[OMCU_MCU_HELLO] == 0);
  passes(500000);
  all = host_hears();
  CHECK(all->counts[OMCU_MCU_HELLO] == 1 && all->counts[OMCU_JOINTS] == 0);
  host_hello(11, 0);
  all = host_hears();
  CHECK(omcu_get_u32(all->payload[OMCU_MCU_HELLO] + 8) == 11);
  CHECK(omcu_get_u64(all->payload[OMCU_MCU_HELLO] + 12) == 777);
  CHECK(omcu_get_u32(all->payload[OMCU_MCU_HELLO] + 20) == chip.core.boot_nonce);
}

static void a_hello_of_another_version_is_answered_with_ours(void) {
  new_chip();
  uint8_t frame[OMCU_FRAME_BYTES_MAX] = {9, OMCU_HOST_HELLO};
  uint8_t line[OMCU_LINE_BYTES_MAX];
  const uint32_t crc = omcu_crc32(frame, 12);
  for (size_t i = 0; i < 4; i += 1) frame[12 + i] = (uint8_t)(crc >> (8 * i));
  const size_t length = omcu_cobs_encode(frame, 16, line);
  line[length] = 0;
  omcu_rx(&chip.core, line, length + 1);
  CHECK(host_hears()->counts[OMCU_MCU_HELLO] == 1);
  CHECK(chip.core.session == 0);
}

static void another_host_stops_what_the_first_one_moves(void) {
  new_moving_chip();
  host_hello(11, 0);
  CHECK(chip.core.state == OMCU_ARMED); /* the same host asks again */
  host_hello(12, 0);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_HOST_CHANGED);
  CHECK(!chip.is_motion_enabled);
  CHECK((omcu_flags(&chip.core, chip.now_us) & (OMCU_FLAG_GATE_OPEN | OMCU_FLAG_LEASE_FRESH)) == 0);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(host_hears_answer() == OMCU_NACK_NO_LEASE);
  const uint32_t malformed = chip.core.receiver.stats.malformed;
  host_hello(0, 0); /* 0 stands for "no session" */
  CHECK(chip.core.session == 12 && chip.core.receiver.stats.malformed == malformed + 1);
}

static void commands_without_a_session_are_refused_but_stop(void) {
  new_chip();
  host_beat(1, true, 7);
  CHECK(host_hears()->payload[OMCU_HEARTBEAT_ECHO][21] == 0); /* not fresh */
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(host_hears_answer() == OMCU_NACK_NO_SESSION);
  host_plain(OMCU_STOP, 2);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_STOPPED);
}

/* ---- Lease ---- */

static void silence_of_the_lease_stops_and_heartbeats_alone_do_not_rearm(void) {
  new_moving_chip();
  CHECK(omcu_next_due_us(&chip.core) <= chip.now_us + 300000);
  passes(299999);
  CHECK(chip.core.state == OMCU_ARMED && chip.is_motion_enabled);
  passes(1);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_LEASE_EXPIRED);
  CHECK(!chip.is_motion_enabled);
  for (uint32_t i = 2; i < 200; i += 1) {
    passes(20000);
    host_beat(i, true, 7);
    CHECK(chip.core.state == OMCU_STOPPED && !chip.is_motion_enabled);
  }
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 2, chip.core.boot_nonce + 1, 8);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_NONCE && chip.core.state == OMCU_STOPPED);
  host_arms(OMCU_ARM, 3, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_ARMED && !chip.is_motion_enabled);
  host_beat(300, true, 8);
  CHECK(chip.is_motion_enabled);
}

static void a_lease_that_ran_out_between_polls_is_not_hidden_by_the_next_heartbeat(void) {
  new_moving_chip();
  chip.now_us += 300000;
  host_beat(2, true, 7);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_LEASE_EXPIRED);
}

static void a_stuck_counter_is_no_heartbeat(void) {
  new_moving_chip();
  for (int i = 0; i < 15; i += 1) {
    passes(20000);
    host_beat(1, true, 7);
  }
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_LEASE_EXPIRED);
  CHECK(chip.core.heartbeats_stale == 15);
}

static void an_old_counter_is_no_heartbeat_and_a_wrapping_one_is(void) {
  new_chip();
  host_hello(11, 0);
  host_beat(0xffffffffu, true, 7);
  host_beat(0xfffffffeu, true, 7);
  CHECK(chip.core.heartbeats_stale == 1);
  host_beat(0, true, 7);
  CHECK(chip.core.heartbeats_stale == 1 && chip.core.heartbeat_counter == 0);
}

static void arming_needs_a_fresh_lease(void) {
  new_chip();
  host_hello(11, 0);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(host_hears_answer() == OMCU_NACK_NO_LEASE && chip.core.state == OMCU_DISARMED);
  host_beat(1, true, 7);
  passes(300000);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 2, chip.core.boot_nonce, 7);
  CHECK(host_hears_answer() == OMCU_NACK_NO_LEASE);
}

/* ---- Gate and epoch ---- */

static void motion_needs_an_open_gate_of_the_armed_epoch(void) {
  new_chip();
  host_hello(11, 0);
  host_beat(1, false, 6);
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(chip.core.state == OMCU_ARMED && !chip.is_motion_enabled);
  host_beat(2, false, 6);
  CHECK(chip.core.state == OMCU_ARMED && !chip.is_motion_enabled); /* the gate was not open yet */
  host_beat(3, true, 7);
  CHECK(chip.is_motion_enabled);
  host_beat(4, false, 7);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_GATE_CLOSED);
}

static void a_repeated_heartbeat_may_close_the_gate_but_not_open_it(void) {
  new_moving_chip();
  host_beat(1, false, 7);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_GATE_CLOSED);
  new_chip();
  host_hello(11, 0);
  host_beat(1, false, 7);
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  host_beat(1, true, 7);
  CHECK(!chip.is_motion_enabled);
}

static void an_open_gate_of_another_epoch_stops(void) {
  new_moving_chip();
  host_beat(2, true, 8);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_EPOCH_CHANGED);
}

/* ---- Commands ---- */

static void stop_works_from_every_state_and_keeps_the_first_reason(void) {
  new_chip();
  host_hello(11, 0);
  chip.tx_length = 0;
  host_plain(OMCU_STOP, 1);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_STOPPED);
  new_moving_chip();
  host_plain(OMCU_HOLD, 2);
  chip.tx_length = 0;
  host_plain(OMCU_STOP, 3);
  CHECK(host_hears_answer() == 0 && chip.core.stop_reason == OMCU_REASON_HOST_STOP);
  new_moving_chip();
  passes(300000);
  host_plain(OMCU_STOP, 2);
  CHECK(chip.core.stop_reason == OMCU_REASON_LEASE_EXPIRED);
}

static void a_late_double_of_an_arm_does_not_undo_a_stop(void) {
  new_moving_chip();
  host_plain(OMCU_STOP, 5);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 4, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == OMCU_NACK_STALE_COMMAND && chip.core.state == OMCU_STOPPED);
  host_arms(OMCU_ARM, 6, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_ARMED);
}

static void an_arm_that_was_done_is_answered_again_but_not_done_again(void) {
  new_moving_chip();
  passes(300000);
  CHECK(chip.core.state == OMCU_STOPPED);
  host_beat(2, true, 7);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 1, chip.core.boot_nonce, 7);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_STOPPED && !chip.is_motion_enabled);
}

static void hold_keeps_until_released_and_never_restarts_a_stopped_robot(void) {
  new_moving_chip();
  host_plain(OMCU_HOLD, 2);
  CHECK(chip.core.state == OMCU_HOLDING && !chip.is_motion_enabled && chip.output_state == OMCU_HOLDING);
  host_beat(2, false, 7);
  CHECK(chip.core.state == OMCU_HOLDING); /* a closed gate is what a hold expects */
  chip.tx_length = 0;
  host_arms(OMCU_RELEASE, 3, chip.core.boot_nonce + 1, 8);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_NONCE);
  host_arms(OMCU_RELEASE, 4, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_ARMED && !chip.is_motion_enabled);
  host_beat(3, true, 8);
  CHECK(chip.is_motion_enabled);
  chip.tx_length = 0;
  host_plain(OMCU_HOLD, 2);
  CHECK(host_hears_answer() == OMCU_NACK_STALE_COMMAND && chip.core.state == OMCU_ARMED);
  host_plain(OMCU_STOP, 5);
  chip.tx_length = 0;
  host_plain(OMCU_HOLD, 6);
  CHECK(host_hears_answer() == 0 && chip.core.state == OMCU_STOPPED);
  host_arms(OMCU_RELEASE, 7, chip.core.boot_nonce, 9);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_STATE);
}

static void a_hold_also_needs_the_lease(void) {
  new_moving_chip();
  host_plain(OMCU_HOLD, 2);
  passes(300000);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_LEASE_EXPIRED);
}

static void the_emergency_stop_stops_and_keeps_from_arming(void) {
  new_moving_chip();
  chip.is_estop_pressed = true;
  passes(5000);
  CHECK(chip.core.state == OMCU_STOPPED && chip.core.stop_reason == OMCU_REASON_ESTOP && !chip.is_motion_enabled);
  CHECK((omcu_flags(&chip.core, chip.now_us) & OMCU_FLAG_ESTOP_PRESSED) != 0);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 2, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == OMCU_NACK_ESTOP_PRESSED);
  chip.is_estop_pressed = false;
  passes(5000);
  CHECK(chip.core.state == OMCU_STOPPED);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 3, chip.core.boot_nonce, 8);
  CHECK(host_hears_answer() == 0);
}

static void setpoints_are_taken_only_while_moving_and_in_range(void) {
  new_moving_chip();
  const float good[] = {0.5f, -0.5f, 0.25f};
  const float wide[] = {0.5f, 2.5f, 0.25f};
  const float none[] = {0.5f, 0.0f / 0.0f, 0.25f};
  host_setpoints(2, 7, good, 3);
  CHECK(host_hears_answer() == 0 && chip.has_setpoints && chip.first_setpoint_rad == 0.5f);
  host_setpoints(3, 6, good, 3);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_EPOCH);
  host_setpoints(4, 7, wide, 3);
  CHECK(host_hears_answer() == OMCU_NACK_OUT_OF_RANGE);
  host_setpoints(5, 7, none, 3);
  CHECK(host_hears_answer() == OMCU_NACK_OUT_OF_RANGE && chip.first_setpoint_rad == 0.5f);
  host_setpoints(4, 7, good, 3);
  CHECK(host_hears_answer() == OMCU_NACK_STALE_COMMAND);
  host_setpoints(6, 7, good, 2);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_PAYLOAD);
  host_plain(OMCU_HOLD, 7);
  CHECK(!chip.has_setpoints);
  chip.tx_length = 0;
  host_setpoints(8, 7, good, 3);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_STATE);
  host_beat(2, false, 7);
  host_arms(OMCU_RELEASE, 9, chip.core.boot_nonce, 7);
  chip.tx_length = 0;
  host_setpoints(10, 7, good, 3);
  CHECK(host_hears_answer() == OMCU_NACK_GATE_CLOSED);
}

static void unknown_and_short_commands_are_answered_or_counted(void) {
  new_chip();
  host_hello(11, 0);
  chip.tx_length = 0;
  host_plain(0x33, 1);
  CHECK(host_hears_answer() == OMCU_NACK_UNKNOWN_TYPE);
  host_plain(OMCU_ARM, 2);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_PAYLOAD);
  const uint32_t malformed = chip.core.receiver.stats.malformed;
  uint8_t frame[OMCU_FRAME_BYTES_MAX];
  const omcu_writer empty = omcu_payload_writer(frame);
  host_sends(OMCU_STOP, &empty, frame);
  host_sends(OMCU_JOINTS, &empty, frame);
  CHECK(chip.core.receiver.stats.malformed == malformed + 2);
}

static void faults_are_refused_unless_built_in(void) {
  new_chip();
  host_hello(11, 0);
  const uint32_t capabilities = omcu_get_u32(host_hears()->payload[OMCU_MCU_HELLO] + 26);
  host_fault(1, OMCU_FAULT_OVERHEAT, 1, 0);
#ifdef OUTRIDER_FAULTS
  CHECK((capabilities & OMCU_CAN_FAULTS) != 0);
  CHECK(host_hears_answer() == 0 && chip.faults_injected == 1);
  host_fault(2, OMCU_FAULT_OVERHEAT, 3, 0);
  CHECK(host_hears_answer() == OMCU_NACK_OUT_OF_RANGE);
  host_fault(3, OMCU_FAULT_COUNT, 0, 0);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_PAYLOAD);
#else
  CHECK((capabilities & OMCU_CAN_FAULTS) == 0);
  CHECK(host_hears_answer() == OMCU_NACK_NOT_SUPPORTED && chip.faults_injected == 0);
#endif
}

static void a_reset_disarms_and_changes_the_nonce(void) {
  new_moving_chip();
  const uint32_t nonce = chip.core.boot_nonce;
  const omcu_hal hal = chip.core.hal;
  omcu_boot(&chip.core, &BENCH_CONFIG, &hal);
  CHECK(chip.core.state == OMCU_DISARMED && !chip.is_motion_enabled && chip.core.boot_nonce != nonce);
  host_hello(11, 0);
  host_beat(2, true, 7);
  chip.tx_length = 0;
  host_arms(OMCU_ARM, 2, nonce, 7);
  CHECK(host_hears_answer() == OMCU_NACK_BAD_NONCE && chip.core.state == OMCU_DISARMED);
#ifdef OUTRIDER_FAULTS
  const uint32_t second = chip.core.boot_nonce;
  host_fault(3, OMCU_FAULT_RESET, 0, 0);
  CHECK(chip.core.boot_nonce != second && chip.core.session == 0);
#endif
}

static uint32_t stuck_entropy_calls;

static uint32_t stuck_entropy(void *context) {
  (void)context;
  static const uint32_t VALUES[] = {9, 0, 9, 0, 9, 10};
  return VALUES[stuck_entropy_calls++ % 6];
}

static void a_boot_nonce_is_never_zero_nor_the_one_before(void) {
  new_chip();
  omcu_hal hal = chip.core.hal;
  hal.entropy = stuck_entropy;
  omcu_boot(&chip.core, &BENCH_CONFIG, &hal);
  CHECK(chip.core.boot_nonce == 9);
  omcu_boot(&chip.core, &BENCH_CONFIG, &hal);
  CHECK(chip.core.boot_nonce == 10);
}

/* ---- Telemetry ---- */

static void telemetry_keeps_its_rates(void) {
  new_chip();
  host_hello(11, 0);
  chip.tx_length = 0;
  for (int i = 0; i < 1000; i += 1) passes(1000);
  const heard *all = host_hears();
  CHECK(all->counts[OMCU_JOINTS] >= 49 && all->counts[OMCU_JOINTS] <= 51);
  CHECK(all->counts[OMCU_POWER] >= 9 && all->counts[OMCU_POWER] <= 11);
  CHECK(all->length[OMCU_JOINTS] == 9 + 16 * 3);
  CHECK(omcu_get_f32(all->payload[OMCU_JOINTS] + 9) == 0.25f);
  CHECK(all->length[OMCU_STATUS] == 70);
  chip.tx_length = 0;
  host_set_rate(1, OMCU_STREAM_IMU, 500);
  CHECK(host_hears_answer() == 0);
  host_set_rate(2, OMCU_STREAM_POWER, 0);
  for (int i = 0; i < 1000; i += 1) passes(1000);
  all = host_hears();
  CHECK(all->counts[OMCU_IMU] >= 499 && all->counts[OMCU_IMU] <= 501 && all->counts[OMCU_POWER] == 0);
}

static void after_a_pause_telemetry_does_not_burst(void) {
  new_chip();
  host_hello(11, 0);
  passes(20000);
  chip.tx_length = 0;
  chip.now_us += 10000000;
  for (int i = 0; i < 10; i += 1) passes(100);
  CHECK(host_hears()->counts[OMCU_JOINTS] == 1);
}

static void a_slow_line_lowers_the_rates_and_refuses_higher_ones(void) {
  new_chip();
  omcu_config thirty = BENCH_CONFIG;
  static const char *names[OMCU_JOINTS_MAX];
  for (size_t i = 0; i < OMCU_JOINTS_MAX; i += 1) names[i] = "a_joint_with_a_long_name";
  thirty.joint_names = names;
  thirty.joint_count = 30;
  bench_boot(&chip, &thirty);
  host_hello(11, 115200);
  CHECK(omcu_line_load(&chip.core, chip.core.rates_hz) <= 9216);
  CHECK(chip.core.rates_hz[OMCU_STREAM_JOINTS] >= 5 && chip.core.rates_hz[OMCU_STREAM_JOINTS] < 50);
  CHECK(chip.core.rates_hz[OMCU_STREAM_STATUS] == 10);
  chip.tx_length = 0;
  host_set_rate(1, OMCU_STREAM_JOINTS, 50);
  CHECK(host_hears_answer() == OMCU_NACK_RATE_TOO_HIGH);
  bench_boot(&chip, &thirty);
  host_hello(11, 921600);
  CHECK(chip.core.rates_hz[OMCU_STREAM_JOINTS] == 50);
  thirty.joint_count = OMCU_JOINTS_MAX;
  bench_boot(&chip, &thirty);
  host_hello(11, 0);
  passes(0);
  const heard *all = host_hears();
  CHECK(all->counts[OMCU_MCU_HELLO] == 1 && all->counts[OMCU_JOINTS] == 1 && chip.core.tx_dropped == 0);
}

static void a_full_line_drops_telemetry_before_answers(void) {
  new_moving_chip();
  chip.is_line_full = true;
  chip.line_room = 100;
  passes(20000);
  CHECK(chip.core.tx_dropped > 0 && chip.tx_length == 0);
  const uint32_t dropped = chip.core.tx_dropped;
  host_beat(2, true, 7);
  CHECK(chip.core.tx_dropped == dropped && host_hears()->counts[OMCU_HEARTBEAT_ECHO] == 1);
  CHECK((omcu_flags(&chip.core, chip.now_us) & OMCU_FLAG_TX_OVERRUN) != 0);
}

/* ---- Everything at once ---- */

/* Random frames, mostly plausible, at random times: motion is enabled only while all that allows it holds. */
static void no_sequence_of_frames_moves_without_lease_gate_and_arm(void) {
  new_chip();
  uint32_t beats = 0;
  uint32_t ids = 0;
  size_t moving = 0;
  for (uint32_t i = 0; i < 300000; i += 1) {
    const uint32_t choice = random_u32();
    const uint64_t epoch = random_u32() % 3;
    switch (choice % 16) {
      case 0:
        if (choice % 32 == 0) host_hello(1 + random_u32() % 2, 0);
        break;
      case 1:
        host_plain(OMCU_STOP, ids + random_u32() % 3);
        break;
      case 2:
        host_plain(OMCU_HOLD, ids++);
        break;
      case 3:
      case 4:
        host_arms(OMCU_ARM, ids++, chip.core.boot_nonce + (random_u32() % 4 == 0 ? 1 : 0), epoch);
        break;
      case 5:
        host_arms(OMCU_RELEASE, ids++, chip.core.boot_nonce, epoch);
        break;
      case 6:
        chip.is_estop_pressed = random_u32() % 4 == 0;
        break;
      case 7: {
        uint8_t frame[OMCU_FRAME_BYTES_MAX];
        omcu_writer payload = omcu_payload_writer(frame);
        for (uint32_t n = random_u32() % 40; n > 0; n -= 1) omcu_put_u8(&payload, (uint8_t)(random_u32() % 4));
        const uint8_t type = (uint8_t)(random_u32() % 20);
        if (type != OMCU_FAULT) host_sends(type, &payload, frame);
        break;
      }
      case 8:
        passes(random_u32() % 400000);
        break;
      default:
        beats += random_u32() % 8 == 0 ? 0 : 1;
        host_beat(beats, random_u32() % 8 != 0, epoch);
        break;
    }
    passes(random_u32() % 20000);
    const bool may_move = chip.core.state == OMCU_ARMED && chip.core.is_gate_open && !chip.is_estop_pressed &&
                          chip.core.host_epoch == chip.core.armed_epoch &&
                          omcu_is_lease_fresh(&chip.core, chip.now_us) && chip.core.session != 0;
    CHECK(!chip.is_motion_enabled || may_move);
    CHECK(chip.output_state == chip.core.state);
    moving += chip.is_motion_enabled ? 1 : 0;
    chip.tx_length = 0;
  }
  CHECK(moving > 1000); /* or the check above says nothing */
}

#define RUN(test) \
  do {            \
    test();       \
    printf("ok %s\n", #test); \
  } while (0)

int main(void) {
  RUN(crc_has_the_check_value);
  RUN(cobs_round_trips_every_length_and_refuses_what_is_no_cobs);
  RUN(receiver_finds_the_next_frame_after_any_garbage);
  RUN(receiver_throws_away_a_frame_without_end_and_goes_on);
  RUN(largest_payload_fits_and_a_larger_one_is_refused);
  RUN(holes_in_the_sequence_are_counted_as_lost);
  RUN(boots_disarmed_and_says_hello_until_a_host_speaks);
  RUN(a_hello_of_another_version_is_answered_with_ours);
  RUN(another_host_stops_what_the_first_one_moves);
  RUN(commands_without_a_session_are_refused_but_stop);
  RUN(silence_of_the_lease_stops_and_heartbeats_alone_do_not_rearm);
  RUN(a_lease_that_ran_out_between_polls_is_not_hidden_by_the_next_heartbeat);
  RUN(a_stuck_counter_is_no_heartbeat);
  RUN(an_old_counter_is_no_heartbeat_and_a_wrapping_one_is);
  RUN(arming_needs_a_fresh_lease);
  RUN(motion_needs_an_open_gate_of_the_armed_epoch);
  RUN(a_repeated_heartbeat_may_close_the_gate_but_not_open_it);
  RUN(an_open_gate_of_another_epoch_stops);
  RUN(stop_works_from_every_state_and_keeps_the_first_reason);
  RUN(a_late_double_of_an_arm_does_not_undo_a_stop);
  RUN(an_arm_that_was_done_is_answered_again_but_not_done_again);
  RUN(hold_keeps_until_released_and_never_restarts_a_stopped_robot);
  RUN(a_hold_also_needs_the_lease);
  RUN(the_emergency_stop_stops_and_keeps_from_arming);
  RUN(setpoints_are_taken_only_while_moving_and_in_range);
  RUN(unknown_and_short_commands_are_answered_or_counted);
  RUN(faults_are_refused_unless_built_in);
  RUN(a_reset_disarms_and_changes_the_nonce);
  RUN(a_boot_nonce_is_never_zero_nor_the_one_before);
  RUN(telemetry_keeps_its_rates);
  RUN(after_a_pause_telemetry_does_not_burst);
  RUN(a_slow_line_lowers_the_rates_and_refuses_higher_ones);
  RUN(a_full_line_drops_telemetry_before_answers);
  RUN(no_sequence_of_frames_moves_without_lease_gate_and_arm);
  return 0;
}
