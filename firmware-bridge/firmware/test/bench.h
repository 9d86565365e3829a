/* A chip made of variables, on which the core runs in tests: the clock stands where the test puts it. */
#ifndef OUTRIDER_BENCH_H
#define OUTRIDER_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../core/mcu.h"

#define BENCH_TX_BYTES 262144u

/* Ends the test program at the first thing that does not hold. */
#define CHECK(condition)                                                          \
  do {                                                                            \
    if (!(condition)) {                                                           \
      fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                                    \
    }                                                                             \
  } while (0)

typedef struct {
  omcu core;
  uint64_t now_us;
  uint32_t entropy;
  bool is_estop_pressed;
  bool is_line_full;
  size_t line_room;
  uint8_t tx[BENCH_TX_BYTES];
  size_t tx_length;
  omcu_state output_state;
  bool is_motion_enabled;
  bool has_setpoints;
  float first_setpoint_rad;
  size_t faults_injected;
} bench;

static inline uint64_t bench_now(void *context) {
  return ((bench *)context)->now_us;
}

static inline uint32_t bench_entropy(void *context) {
  bench *chip = context;
  chip->entropy = chip->entropy * 1664525u + 1013904223u;
  return chip->entropy;
}

static inline size_t bench_room(void *context) {
  const bench *chip = context;
  return chip->is_line_full ? chip->line_room : BENCH_TX_BYTES - chip->tx_length;
}

static inline void bench_tx(void *context, const uint8_t *bytes, size_t length) {
  bench *chip = context;
  CHECK(length <= bench_room(chip));
  memcpy(chip->tx + chip->tx_length, bytes, length);
  chip->tx_length += length;
}

static inline bool bench_estop(void *context) {
  return ((bench *)context)->is_estop_pressed;
}

static inline void bench_sensors(void *context, omcu_sensors *out) {
  const bench *chip = context;
  memset(out, 0, sizeof *out);
  for (size_t i = 0; i < chip->core.config->joint_count; i += 1) {
    out->position_rad[i] = 0.25f * (float)(i + 1);
    out->velocity_radps[i] = -0.5f;
    out->torque_nm[i] = 1.125f;
    out->motor_c[i] = 40.0f + (float)i;
  }
  out->orientation[3] = 1.0f;
  out->linear_acceleration_mps2[2] = 9.80665f;
  out->voltage_v = 52.5f;
  out->current_a = 2.0f;
  out->state_of_charge = 0.75f;
  out->draw_w = 105.0f;
  for (size_t i = 0; i < chip->core.config->sensor_count; i += 1) out->sensor_c[i] = 20.0f + (float)i;
}

static inline void bench_actuate(void *context, const omcu_output *output) {
  bench *chip = context;
  chip->output_state = output->state;
  chip->is_motion_enabled = output->is_motion_enabled;
  chip->has_setpoints = output->setpoints_rad != NULL;
  if (chip->has_setpoints) chip->first_setpoint_rad = output->setpoints_rad[0];
}

static inline bool bench_fault(void *context, uint8_t fault, uint8_t joint, float value) {
  bench *chip = context;
  (void)fault;
  (void)value;
  if (joint >= chip->core.config->joint_count) return false;
  chip->faults_injected += 1;
  return true;
}

static const char *const BENCH_JOINTS[] = {"shoulder", "elbow", "wrist"};
static const char *const BENCH_SENSORS[] = {"battery", "ambient"};

static const omcu_config BENCH_CONFIG = {
    .firmware = "bench 1.2.3",
    .joint_count = 3,
    .sensor_count = 2,
    .joint_names = BENCH_JOINTS,
    .sensor_names = BENCH_SENSORS,
    .position_min_rad = -2.0f,
    .position_max_rad = 2.0f,
    .motor_hot_c = 85.0f,
    .capabilities = OMCU_CAN_HOLD | OMCU_CAN_SETPOINTS | OMCU_CAN_SET_RATE | OMCU_CAN_ESTOP_INPUT,
    .rates_hz = {50, 50, 10, 5, 10},
};

static inline void bench_boot(bench *chip, const omcu_config *config) {
  memset(chip, 0, sizeof *chip);
  chip->now_us = 1000000;
  chip->entropy = 42;
  const omcu_hal hal = {
      .context = chip,
      .now_us = bench_now,
      .entropy = bench_entropy,
      .tx_room = bench_room,
      .tx = bench_tx,
      .is_estop_pressed = bench_estop,
      .read_sensors = bench_sensors,
      .actuate = bench_actuate,
      .inject_fault = bench_fault,
  };
  omcu_boot(&chip->core, config, &hal);
}

#endif
