#include <string.h>

#include "mcu.h"

/* Kept free on the line's buffer for answers: an echo and an ACK must get out when telemetry fills it. */
#define ANSWER_RESERVE_BYTES 256u
/* Header, CRC, COBS and delimiter of a frame of up to 1,270 bytes. */
#define FRAME_OVERHEAD_BYTES (OMCU_HEADER_BYTES + OMCU_CRC_BYTES + 7u)

bool omcu_send(omcu *mcu, uint8_t type, const omcu_writer *payload, bool is_telemetry) {
  /* A frame that cannot be sent uses up its number, so that the host sees the loss. [FB-8] */
  const uint32_t sequence = mcu->tx_sequence;
  mcu->tx_sequence += 1;
  const size_t length =
      payload->is_full ? 0 : omcu_frame_finish(mcu->tx_frame, type, sequence, payload->length, mcu->tx_line);
  const size_t room = mcu->hal.tx_room(mcu->hal.context);
  if (length == 0 || room < length + (is_telemetry ? ANSWER_RESERVE_BYTES : 0)) {
    mcu->tx_dropped += 1;
    return false;
  }
  mcu->hal.tx(mcu->hal.context, mcu->tx_line, length);
  return true;
}

void omcu_send_hello(omcu *mcu, uint32_t session, uint64_t host_mono_us) {
  const omcu_config *config = mcu->config;
  uint32_t capabilities = config->capabilities;
#ifdef OUTRIDER_FAULTS
  capabilities |= OMCU_CAN_FAULTS;
#else
  capabilities &= ~(uint32_t)OMCU_CAN_FAULTS;
#endif
  omcu_writer payload = omcu_payload_writer(mcu->tx_frame);
  omcu_put_u64(&payload, mcu->hal.now_us(mcu->hal.context) - mcu->boot_us);
  omcu_put_u32(&payload, session);
  omcu_put_u64(&payload, host_mono_us);
  omcu_put_u32(&payload, mcu->boot_nonce);
  omcu_put_u8(&payload, (uint8_t)mcu->state);
  omcu_put_u8(&payload, (uint8_t)mcu->stop_reason);
  omcu_put_u32(&payload, capabilities);
  omcu_put_u16(&payload, OMCU_FRAME_BYTES_MAX);
  omcu_put_u16(&payload, OMCU_LEASE_MS);
  for (size_t i = 0; i < OMCU_STREAM_COUNT; i += 1) omcu_put_u16(&payload, mcu->rates_hz[i]);
  omcu_put_text(&payload, config->firmware);
  omcu_put_u8(&payload, config->joint_count);
  for (size_t i = 0; i < config->joint_count; i += 1) omcu_put_text(&payload, config->joint_names[i]);
  omcu_put_u8(&payload, config->sensor_count);
  for (size_t i = 0; i < config->sensor_count; i += 1) omcu_put_text(&payload, config->sensor_names[i]);
  omcu_send(mcu, OMCU_MCU_HELLO, &payload, false);
}

static uint32_t payload_bytes(const omcu *mcu, size_t stream) {
  switch (stream) {
    case OMCU_STREAM_JOINTS:
      return 9u + 16u * mcu->config->joint_count;
    case OMCU_STREAM_IMU:
      return 48u;
    case OMCU_STREAM_POWER:
      return 24u;
    case OMCU_STREAM_TEMPERATURE:
      return 9u + 4u * mcu->config->sensor_count;
    default:
      return 70u; /* STATUS */
  }
}

uint32_t omcu_line_load(const omcu *mcu, const uint16_t *rates_hz) {
  uint32_t bytes_per_s = 0;
  for (size_t i = 0; i < OMCU_STREAM_COUNT; i += 1) {
    bytes_per_s += rates_hz[i] * (payload_bytes(mcu, i) + FRAME_OVERHEAD_BYTES);
  }
  return bytes_per_s;
}

uint32_t omcu_line_budget(uint32_t baud) {
  if (baud == 0) return UINT32_MAX;
  /* Ten bits a byte; a fifth is left to echoes (2.2 kB/s) and answers. [FB-25] */
  return baud / 10u / 5u * 4u;
}

void omcu_fit_rates(omcu *mcu) {
  const uint64_t now_us = mcu->hal.now_us(mcu->hal.context);
  const uint32_t budget = omcu_line_budget(mcu->baud);
  memcpy(mcu->rates_hz, mcu->config->rates_hz, sizeof mcu->rates_hz);
  /* Whoever asks for most gives way first: that keeps STATUS and POWER alive on a slow line. */
  while (omcu_line_load(mcu, mcu->rates_hz) > budget) {
    size_t widest = 0;
    for (size_t i = 1; i < OMCU_STREAM_COUNT; i += 1) {
      const uint32_t load = mcu->rates_hz[i] * (payload_bytes(mcu, i) + FRAME_OVERHEAD_BYTES);
      if (load > mcu->rates_hz[widest] * (payload_bytes(mcu, widest) + FRAME_OVERHEAD_BYTES)) widest = i;
    }
    if (mcu->rates_hz[widest] <= 1) break;
    mcu->rates_hz[widest] -= 1;
  }
  for (size_t i = 0; i < OMCU_STREAM_COUNT; i += 1) mcu->due_us[i] = now_us;
}

/* NaN and infinity, without libm. */
static bool is_finite(float value) {
  return value - value == 0.0f;
}

static bool all_finite(const float *values, size_t count) {
  for (size_t i = 0; i < count; i += 1) {
    if (!is_finite(values[i])) return false;
  }
  return true;
}

static uint32_t sensor_flags(const omcu *mcu) {
  const omcu_sensors *sensors = &mcu->sensors;
  const size_t joints = mcu->config->joint_count;
  uint32_t flags = 0;
  for (size_t i = 0; i < joints; i += 1) {
    if (sensors->motor_c[i] >= mcu->config->motor_hot_c) flags |= OMCU_FLAG_MOTOR_HOT;
    if (sensors->position_rad[i] < mcu->config->position_min_rad ||
        sensors->position_rad[i] > mcu->config->position_max_rad) {
      flags |= OMCU_FLAG_JOINT_LIMIT;
    }
  }
  const bool is_valid = all_finite(sensors->position_rad, joints) && all_finite(sensors->velocity_radps, joints) &&
                        all_finite(sensors->torque_nm, joints) && all_finite(sensors->motor_c, joints) &&
                        all_finite(sensors->orientation, 4) && all_finite(sensors->angular_velocity_radps, 3) &&
                        all_finite(sensors->linear_acceleration_mps2, 3) && is_finite(sensors->voltage_v) &&
                        is_finite(sensors->current_a) && is_finite(sensors->state_of_charge) &&
                        is_finite(sensors->draw_w) && all_finite(sensors->sensor_c, mcu->config->sensor_count);
  if (!is_valid) flags |= OMCU_FLAG_SENSOR_INVALID;
  if (sensors->is_fault_injected) flags |= OMCU_FLAG_FAULT_INJECTED;
  return flags;
}

uint32_t omcu_flags(const omcu *mcu, uint64_t now_us) {
  uint32_t flags = sensor_flags(mcu);
  if (mcu->is_estop_pressed) flags |= OMCU_FLAG_ESTOP_PRESSED;
  if (omcu_is_lease_fresh(mcu, now_us)) flags |= OMCU_FLAG_LEASE_FRESH;
  if (mcu->is_gate_open) flags |= OMCU_FLAG_GATE_OPEN;
  if (mcu->is_motion_enabled) flags |= OMCU_FLAG_MOTION_ENABLED;
  if (mcu->tx_dropped != 0) flags |= OMCU_FLAG_TX_OVERRUN;
  if (mcu->session != 0) flags |= OMCU_FLAG_SESSION_OPEN;
  return flags;
}

static uint32_t lease_age_ms(const omcu *mcu, uint64_t now_us) {
  if (!mcu->has_heartbeat) return UINT32_MAX;
  const uint64_t age_ms = (now_us - mcu->heartbeat_us) / 1000u;
  return age_ms < UINT32_MAX - 1u ? (uint32_t)age_ms : UINT32_MAX - 1u;
}

static void put_status(const omcu *mcu, omcu_writer *payload, uint64_t now_us) {
  const omcu_rx_stats *stats = &mcu->receiver.stats;
  omcu_put_u64(payload, (now_us - mcu->boot_us) / 1000u);
  omcu_put_u32(payload, mcu->boot_nonce);
  omcu_put_u32(payload, omcu_flags(mcu, now_us));
  omcu_put_u8(payload, (uint8_t)mcu->state);
  omcu_put_u8(payload, (uint8_t)mcu->stop_reason);
  omcu_put_u64(payload, mcu->host_epoch);
  omcu_put_u32(payload, lease_age_ms(mcu, now_us));
  omcu_put_u32(payload, stats->frames_ok);
  omcu_put_u32(payload, stats->crc_bad);
  omcu_put_u32(payload, stats->cobs_bad);
  omcu_put_u32(payload, stats->oversize);
  omcu_put_u32(payload, stats->malformed);
  omcu_put_u32(payload, stats->lost);
  omcu_put_u32(payload, mcu->heartbeats_stale);
  omcu_put_u32(payload, mcu->tx_dropped);
}

/* [FB-11] */
static void send_stream(omcu *mcu, size_t stream, uint64_t now_us) {
  static const uint8_t TYPES[OMCU_STREAM_COUNT] = {OMCU_JOINTS, OMCU_IMU, OMCU_POWER, OMCU_TEMPERATURE, OMCU_STATUS};
  const omcu_sensors *sensors = &mcu->sensors;
  const size_t joints = mcu->config->joint_count;
  omcu_writer payload = omcu_payload_writer(mcu->tx_frame);
  omcu_put_u64(&payload, now_us - mcu->boot_us);
  switch (stream) {
    case OMCU_STREAM_JOINTS:
      omcu_put_u8(&payload, mcu->config->joint_count);
      omcu_put_f32s(&payload, sensors->position_rad, joints);
      omcu_put_f32s(&payload, sensors->velocity_radps, joints);
      omcu_put_f32s(&payload, sensors->torque_nm, joints);
      omcu_put_f32s(&payload, sensors->motor_c, joints);
      break;
    case OMCU_STREAM_IMU:
      omcu_put_f32s(&payload, sensors->orientation, 4);
      omcu_put_f32s(&payload, sensors->angular_velocity_radps, 3);
      omcu_put_f32s(&payload, sensors->linear_acceleration_mps2, 3);
      break;
    case OMCU_STREAM_POWER:
      omcu_put_f32(&payload, sensors->voltage_v);
      omcu_put_f32(&payload, sensors->current_a);
      omcu_put_f32(&payload, sensors->state_of_charge);
      omcu_put_f32(&payload, sensors->draw_w);
      break;
    case OMCU_STREAM_TEMPERATURE:
      omcu_put_u8(&payload, mcu->config->sensor_count);
      omcu_put_f32s(&payload, sensors->sensor_c, mcu->config->sensor_count);
      break;
    default:
      put_status(mcu, &payload, now_us);
      break;
  }
  omcu_send(mcu, TYPES[stream], &payload, true);
}

void omcu_send_due_telemetry(omcu *mcu, uint64_t now_us) {
  bool has_read = false;
  for (size_t i = 0; i < OMCU_STREAM_COUNT; i += 1) {
    const uint16_t rate_hz = mcu->rates_hz[i];
    if (rate_hz == 0 || now_us < mcu->due_us[i]) continue;
    if (!has_read) mcu->hal.read_sensors(mcu->hal.context, &mcu->sensors);
    has_read = true;
    send_stream(mcu, i, now_us);
    const uint64_t period_us = 1000000u / rate_hz;
    /* After a pause the rate goes on from now; what was missed is not sent in a burst. */
    mcu->due_us[i] = now_us - mcu->due_us[i] > period_us ? now_us + period_us : mcu->due_us[i] + period_us;
  }
}
