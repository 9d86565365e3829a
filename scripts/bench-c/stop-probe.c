/*
 * Takes the time inside the real firmware program, from a sample with an overheated motor going out to the first byte
 * of the stop frame coming in. Linked around it (-Wl,--wrap), so that the firmware itself is as it is. Whenever the
 * robot has been armed for a while, the next sample shows 120 degrees C, and all until the stop has come. Prints lines
 * of JSON: {"event":"trip","latency_us":N}
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "../../firmware-bridge/firmware/host/control.h"

#define TRIP_C 120.0f
#define TRIP_AFTER_US 40000u
#define TRIP_SPREAD_US 40000u

void __real_sim_read(sim *robot, omcu_sensors *out);
void __real_sim_actuate(sim *robot, const omcu_output *output);
void __real_line_send(line *port, const uint8_t *bytes, size_t length);
size_t __real_line_receive(line *port, uint8_t *bytes, size_t room);
void __wrap_sim_read(sim *robot, omcu_sensors *out);
void __wrap_sim_actuate(sim *robot, const omcu_output *output);
void __wrap_line_send(line *port, const uint8_t *bytes, size_t length);
size_t __wrap_line_receive(line *port, uint8_t *bytes, size_t room);

static uint64_t trip_at_us;
static bool is_hot;
static uint64_t sent_us;
static uint32_t random_state = 1;
static omcu_receiver receiver;

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

void __wrap_sim_actuate(sim *robot, const omcu_output *output) {
  __real_sim_actuate(robot, output);
  if (output->is_motion_enabled && trip_at_us == 0 && !is_hot)
    trip_at_us = now_us() + TRIP_AFTER_US + (uint64_t)(sim_random(&random_state) * TRIP_SPREAD_US);
  if (!output->is_motion_enabled) trip_at_us = 0;
}

void __wrap_sim_read(sim *robot, omcu_sensors *out) {
  __real_sim_read(robot, out);
  if (trip_at_us != 0 && !is_hot && now_us() >= trip_at_us) {
    is_hot = true;
    trip_at_us = 0;
  }
  if (is_hot) out->motor_c[0] = TRIP_C;
}

void __wrap_line_send(line *port, const uint8_t *bytes, size_t length) {
  /* Only the joint state is that long; the first one that shows the heat counts. */
  if (is_hot && sent_us == 0 && length > 256) sent_us = now_us();
  __real_line_send(port, bytes, length);
}

static void on_frame(void *context, const omcu_frame *frame) {
  const uint64_t received_us = *(const uint64_t *)context;
  if (frame->type != OMCU_STOP || sent_us == 0) return;
  printf("{\"event\":\"trip\",\"latency_us\":%llu}\n", (unsigned long long)(received_us - sent_us));
  fflush(stdout);
  is_hot = false;
  sent_us = 0;
}

size_t __wrap_line_receive(line *port, uint8_t *bytes, size_t room) {
  const size_t count = __real_line_receive(port, bytes, room);
  uint64_t received_us = now_us();
  if (count > 0) omcu_receive(&receiver, bytes, count, on_frame, &received_us);
  return count;
}
