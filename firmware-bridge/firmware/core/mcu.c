#include "mcu.h"

#include <string.h>

/* Unasked HELLO while no host has spoken. [FB-24] */
#define HELLO_PERIOD_US 500000u

static const uint64_t LEASE_US = (uint64_t)OMCU_LEASE_MS * 1000u;

static bool is_moving_state(omcu_state state) {
  return state == OMCU_ARMED || state == OMCU_HOLDING;
}

bool omcu_is_lease_fresh(const omcu *mcu, uint64_t now_us) {
  return mcu->has_heartbeat && now_us - mcu->heartbeat_us < LEASE_US;
}

static void actuate(omcu *mcu) {
  mcu->is_motion_enabled = mcu->state == OMCU_ARMED && mcu->is_gate_open && mcu->host_epoch == mcu->armed_epoch &&
                           !mcu->is_estop_pressed;
  const omcu_output output = {
      .state = mcu->state,
      .is_motion_enabled = mcu->is_motion_enabled,
      .setpoints_rad = mcu->has_setpoints ? mcu->setpoints_rad : NULL,
  };
  mcu->hal.actuate(mcu->hal.context, &output);
}

/* The first reason stays: it is the cause, the others are consequences. [FB-21] */
static void stop(omcu *mcu, omcu_stop_reason reason) {
  if (mcu->state != OMCU_STOPPED) mcu->stop_reason = reason;
  mcu->state = OMCU_STOPPED;
  mcu->has_setpoints = false;
  actuate(mcu);
}

void omcu_boot(omcu *mcu, const omcu_config *config, const omcu_hal *hal) {
  const omcu_hal chip = *hal; /* `hal` may be the one inside `mcu` */
  const uint32_t nonce_before = mcu->boot_nonce;
  memset(mcu, 0, sizeof *mcu);
  mcu->config = config;
  mcu->hal = chip;
  mcu->boot_us = chip.now_us(chip.context);
  do {
    mcu->boot_nonce = chip.entropy(chip.context);
  } while (mcu->boot_nonce == 0 || mcu->boot_nonce == nonce_before);
  mcu->state = OMCU_DISARMED;
  mcu->stop_reason = OMCU_REASON_BOOT;
  mcu->is_estop_pressed = chip.is_estop_pressed(chip.context);
  omcu_fit_rates(mcu);
  actuate(mcu);
}

static void answer(omcu *mcu, uint32_t command_id, uint8_t type, omcu_nack reason) {
  omcu_writer payload = omcu_payload_writer(mcu->tx_frame);
  omcu_put_u64(&payload, mcu->hal.now_us(mcu->hal.context) - mcu->boot_us);
  omcu_put_u32(&payload, command_id);
  omcu_put_u8(&payload, type);
  omcu_put_u8(&payload, (uint8_t)mcu->state);
  omcu_put_u8(&payload, (uint8_t)reason);
  omcu_send(mcu, reason == OMCU_NACK_NONE ? OMCU_ACK : OMCU_NACK, &payload, false);
}

/* [FB-12] [FB-13] */
static bool on_hello(omcu *mcu, const omcu_frame *frame) {
  if (frame->payload_length != 18) return false;
  const uint32_t session = omcu_get_u32(frame->payload);
  const uint64_t host_mono_us = omcu_get_u64(frame->payload + 4);
  if (session == 0) return false;
  if (session != mcu->session) {
    if (is_moving_state(mcu->state)) stop(mcu, OMCU_REASON_HOST_CHANGED);
    mcu->session = session;
    mcu->has_heartbeat = false;
    mcu->is_gate_open = false;
    mcu->has_motion_command = false;
    mcu->has_stop_command = false;
    mcu->baud = omcu_get_u32(frame->payload + 12);
    omcu_fit_rates(mcu);
    actuate(mcu);
  }
  omcu_send_hello(mcu, session, host_mono_us);
  return true;
}

static void obey_gate(omcu *mcu) {
  if (mcu->state == OMCU_ARMED) {
    if (mcu->is_gate_open && mcu->host_epoch != mcu->armed_epoch) {
      stop(mcu, OMCU_REASON_EPOCH_CHANGED);
      return;
    }
    if (!mcu->is_gate_open && mcu->was_gate_open) {
      stop(mcu, OMCU_REASON_GATE_CLOSED);
      return;
    }
    mcu->was_gate_open = mcu->is_gate_open;
  }
  actuate(mcu);
}

/* [FB-18] [FB-19] */
static bool on_heartbeat(omcu *mcu, const omcu_frame *frame) {
  if (frame->payload_length != 21 || frame->payload[4] > 1) return false;
  const uint64_t now_us = mcu->hal.now_us(mcu->hal.context);
  const uint32_t counter = omcu_get_u32(frame->payload);
  const bool is_gate_open = frame->payload[4] == 1;
  const uint32_t advance = counter - mcu->heartbeat_counter;
  const bool is_fresh =
      mcu->session != 0 && (!mcu->has_heartbeat || (advance != 0 && advance < UINT32_C(0x80000000)));
  if (is_fresh) {
    /* A lease that ran out before this frame came is judged first, or the frame would hide it. */
    if (is_moving_state(mcu->state) && !omcu_is_lease_fresh(mcu, now_us)) stop(mcu, OMCU_REASON_LEASE_EXPIRED);
    mcu->has_heartbeat = true;
    mcu->heartbeat_counter = counter;
    mcu->heartbeat_us = now_us;
    mcu->host_epoch = omcu_get_u64(frame->payload + 5);
    mcu->is_gate_open = is_gate_open;
    obey_gate(mcu);
  } else {
    mcu->heartbeats_stale += 1;
    /* A repeated frame may close the gate, never open it. */
    if (!is_gate_open && mcu->is_gate_open) {
      mcu->is_gate_open = false;
      obey_gate(mcu);
    }
  }
  omcu_writer payload = omcu_payload_writer(mcu->tx_frame);
  omcu_put_u64(&payload, now_us - mcu->boot_us);
  omcu_put_u32(&payload, counter);
  omcu_put_u64(&payload, omcu_get_u64(frame->payload + 13));
  omcu_put_u8(&payload, (uint8_t)mcu->state);
  omcu_put_u8(&payload, is_fresh ? 1 : 0);
  omcu_send(mcu, OMCU_HEARTBEAT_ECHO, &payload, false);
  return true;
}

/* [FB-20] */
static omcu_nack arm(omcu *mcu, const omcu_frame *frame) {
  if (frame->payload_length != 16) return OMCU_NACK_BAD_PAYLOAD;
  const bool is_release = frame->type == OMCU_RELEASE;
  if (omcu_get_u32(frame->payload + 4) != mcu->boot_nonce) return OMCU_NACK_BAD_NONCE;
  if (is_release && mcu->state != OMCU_HOLDING) return OMCU_NACK_BAD_STATE;
  if (mcu->is_estop_pressed) return OMCU_NACK_ESTOP_PRESSED;
  if (!omcu_is_lease_fresh(mcu, mcu->hal.now_us(mcu->hal.context))) return OMCU_NACK_NO_LEASE;
  mcu->armed_epoch = omcu_get_u64(frame->payload + 8);
  mcu->state = OMCU_ARMED;
  mcu->stop_reason = OMCU_REASON_NONE;
  mcu->was_gate_open = mcu->is_gate_open && mcu->host_epoch == mcu->armed_epoch;
  mcu->has_setpoints = false;
  actuate(mcu);
  return OMCU_NACK_NONE;
}

/* [FB-23] */
static omcu_nack setpoints(omcu *mcu, const omcu_frame *frame) {
  const size_t count = mcu->config->joint_count;
  if (frame->payload_length != 13 + 4 * count || frame->payload[12] != count) return OMCU_NACK_BAD_PAYLOAD;
  if ((mcu->config->capabilities & OMCU_CAN_SETPOINTS) == 0) return OMCU_NACK_NOT_SUPPORTED;
  if (mcu->state != OMCU_ARMED) return OMCU_NACK_BAD_STATE;
  if (omcu_get_u64(frame->payload + 4) != mcu->armed_epoch) return OMCU_NACK_BAD_EPOCH;
  if (!mcu->is_motion_enabled) return OMCU_NACK_GATE_CLOSED;
  for (size_t i = 0; i < count; i += 1) {
    const float target = omcu_get_f32(frame->payload + 13 + 4 * i);
    /* Written so that NaN is refused too. */
    const bool is_in_range = target >= mcu->config->position_min_rad && target <= mcu->config->position_max_rad;
    if (!is_in_range) return OMCU_NACK_OUT_OF_RANGE;
  }
  for (size_t i = 0; i < count; i += 1) mcu->setpoints_rad[i] = omcu_get_f32(frame->payload + 13 + 4 * i);
  mcu->has_setpoints = true;
  actuate(mcu);
  return OMCU_NACK_NONE;
}

/* A command that starts motion is done at most once, and never after a stop that was sent later. [FB-16] */
static omcu_nack motion_command(omcu *mcu, const omcu_frame *frame, uint32_t command_id) {
  if (mcu->has_stop_command && command_id < mcu->stop_command_id) return OMCU_NACK_STALE_COMMAND;
  if (mcu->has_motion_command && command_id < mcu->motion_command_id) return OMCU_NACK_STALE_COMMAND;
  if (mcu->has_motion_command && command_id == mcu->motion_command_id) {
    return frame->type == mcu->motion_command_type ? mcu->motion_command_result : OMCU_NACK_STALE_COMMAND;
  }
  mcu->motion_command_result = frame->type == OMCU_SETPOINTS ? setpoints(mcu, frame) : arm(mcu, frame);
  mcu->has_motion_command = true;
  mcu->motion_command_id = command_id;
  mcu->motion_command_type = frame->type;
  return mcu->motion_command_result;
}

static void note_stop_command(omcu *mcu, uint32_t command_id) {
  if (!mcu->has_stop_command || command_id > mcu->stop_command_id) mcu->stop_command_id = command_id;
  mcu->has_stop_command = true;
}

static omcu_nack hold(omcu *mcu, const omcu_frame *frame, uint32_t command_id) {
  if (frame->payload_length != 4) return OMCU_NACK_BAD_PAYLOAD;
  if ((mcu->config->capabilities & OMCU_CAN_HOLD) == 0) return OMCU_NACK_NOT_SUPPORTED;
  /* A late double of a HOLD must not undo what came after it. */
  if (mcu->has_motion_command && command_id < mcu->motion_command_id) return OMCU_NACK_STALE_COMMAND;
  note_stop_command(mcu, command_id);
  if (mcu->state == OMCU_ARMED) {
    mcu->state = OMCU_HOLDING;
    mcu->has_setpoints = false;
    actuate(mcu);
  }
  return OMCU_NACK_NONE; /* stopped and disarmed are more than what was asked for */
}

static omcu_nack set_rate(omcu *mcu, const omcu_frame *frame) {
  if (frame->payload_length != 7 || frame->payload[4] >= OMCU_STREAM_COUNT) return OMCU_NACK_BAD_PAYLOAD;
  if ((mcu->config->capabilities & OMCU_CAN_SET_RATE) == 0) return OMCU_NACK_NOT_SUPPORTED;
  const uint8_t stream = frame->payload[4];
  const uint16_t rate_hz = omcu_get_u16(frame->payload + 5);
  uint16_t rates_hz[OMCU_STREAM_COUNT];
  memcpy(rates_hz, mcu->rates_hz, sizeof rates_hz);
  rates_hz[stream] = rate_hz;
  if (rate_hz > 1000 || omcu_line_load(mcu, rates_hz) > omcu_line_budget(mcu->baud)) return OMCU_NACK_RATE_TOO_HIGH;
  mcu->rates_hz[stream] = rate_hz;
  mcu->due_us[stream] = mcu->hal.now_us(mcu->hal.context);
  return OMCU_NACK_NONE;
}

static omcu_nack fault(omcu *mcu, const omcu_frame *frame) {
#ifdef OUTRIDER_FAULTS
  if (frame->payload_length != 10 || frame->payload[4] >= OMCU_FAULT_COUNT) return OMCU_NACK_BAD_PAYLOAD;
  if (frame->payload[4] == OMCU_FAULT_RESET) {
    mcu->is_reset_wanted = true; /* after the answer */
    return OMCU_NACK_NONE;
  }
  const float value = omcu_get_f32(frame->payload + 6);
  const bool is_done = mcu->hal.inject_fault(mcu->hal.context, frame->payload[4], frame->payload[5], value);
  return is_done ? OMCU_NACK_NONE : OMCU_NACK_OUT_OF_RANGE;
#else
  (void)mcu;
  (void)frame;
  return OMCU_NACK_NOT_SUPPORTED;
#endif
}

static void on_command(omcu *mcu, const omcu_frame *frame) {
  if (frame->payload_length < 4) {
    mcu->receiver.stats.malformed += 1;
    return;
  }
  const uint32_t command_id = omcu_get_u32(frame->payload);
  if (frame->type == OMCU_STOP) {
    /* Done whatever else is wrong: no session, an old number, bytes too many. [FB-15] */
    note_stop_command(mcu, command_id);
    stop(mcu, OMCU_REASON_HOST_STOP);
    answer(mcu, command_id, frame->type, OMCU_NACK_NONE);
    return;
  }
  omcu_nack result = OMCU_NACK_NONE;
  if (mcu->session == 0) {
    result = OMCU_NACK_NO_SESSION;
  } else {
    switch (frame->type) {
      case OMCU_ARM:
      case OMCU_RELEASE:
      case OMCU_SETPOINTS:
        result = motion_command(mcu, frame, command_id);
        break;
      case OMCU_HOLD:
        result = hold(mcu, frame, command_id);
        break;
      case OMCU_SET_RATE:
        result = set_rate(mcu, frame);
        break;
      case OMCU_FAULT:
        result = fault(mcu, frame);
        break;
      default:
        result = OMCU_NACK_UNKNOWN_TYPE;
        mcu->receiver.stats.malformed += 1;
        break;
    }
  }
  if (result == OMCU_NACK_BAD_PAYLOAD) mcu->receiver.stats.malformed += 1;
  answer(mcu, command_id, frame->type, result);
}

static void on_frame(void *context, const omcu_frame *frame) {
  omcu *mcu = context;
  if (frame->version != OMCU_PROTOCOL_VERSION) {
    /* The header's version byte of the answer tells the host what to speak. [FB-5] */
    if (frame->type == OMCU_HOST_HELLO) omcu_send_hello(mcu, 0, 0);
    return;
  }
  bool is_understood = true;
  if (frame->type == OMCU_HOST_HELLO) {
    is_understood = on_hello(mcu, frame);
  } else if (frame->type == OMCU_HEARTBEAT) {
    is_understood = on_heartbeat(mcu, frame);
  } else if (frame->type < 0x80) {
    on_command(mcu, frame);
  } else {
    is_understood = false; /* our own direction: an echoing line */
  }
  if (!is_understood) mcu->receiver.stats.malformed += 1;
}

void omcu_rx(omcu *mcu, const uint8_t *bytes, size_t length) {
  omcu_receive(&mcu->receiver, bytes, length, on_frame, mcu);
  if (mcu->is_reset_wanted) omcu_boot(mcu, mcu->config, &mcu->hal);
}

void omcu_poll(omcu *mcu) {
  const uint64_t now_us = mcu->hal.now_us(mcu->hal.context);
  const bool was_pressed = mcu->is_estop_pressed;
  mcu->is_estop_pressed = mcu->hal.is_estop_pressed(mcu->hal.context);
  if (mcu->is_estop_pressed && is_moving_state(mcu->state)) stop(mcu, OMCU_REASON_ESTOP);
  if (is_moving_state(mcu->state) && !omcu_is_lease_fresh(mcu, now_us)) stop(mcu, OMCU_REASON_LEASE_EXPIRED);
  if (was_pressed != mcu->is_estop_pressed) actuate(mcu);
  if (mcu->session == 0) {
    if (now_us >= mcu->hello_due_us) {
      mcu->hello_due_us = now_us + HELLO_PERIOD_US;
      omcu_send_hello(mcu, 0, 0);
    }
    return;
  }
  omcu_send_due_telemetry(mcu, now_us);
}

uint64_t omcu_next_due_us(const omcu *mcu) {
  if (mcu->session == 0) return mcu->hello_due_us;
  uint64_t due_us = UINT64_MAX;
  if (is_moving_state(mcu->state)) due_us = mcu->heartbeat_us + LEASE_US;
  for (size_t i = 0; i < OMCU_STREAM_COUNT; i += 1) {
    if (mcu->rates_hz[i] != 0 && mcu->due_us[i] < due_us) due_us = mcu->due_us[i];
  }
  return due_us;
}
