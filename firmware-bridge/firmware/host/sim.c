#include "sim.h"

#include <math.h>
#include <string.h>

#define PI 3.14159265358979323846
#define AMBIENT_C 24.0
#define GRAVITY_MPS2 9.80665
/* Longest step of the integration. */
#define STEP_S 0.005
/* From rest to full pace, and back on the brake. */
#define START_S 0.6
#define BRAKE_S 0.06
#define SETPOINT_SPEED_RADPS 1.5
/* A motor: heat per torque squared, heat capacity, heat resistance to the room. Time constant 90 s. */
#define MOTOR_W_PER_NM2 0.012
#define MOTOR_J_PER_K 60.0
#define MOTOR_K_PER_W 1.5
#define OVERHEAT_K_PER_S 20.0
#define OVERHEAT_MAX_C 130.0
#define PAST_LIMIT_RAD 2.25
#define PAST_LIMIT_SPEED_RADPS 2.0
#define BATTERY_WH 480.0
#define BATTERY_OHM 0.05
#define IDLE_W 55.0

static const char *const JOINT_NAMES[OMCU_JOINTS_MAX] = {
    "left_hip_yaw",         "left_hip_roll",      "left_hip_pitch",     "left_knee_pitch",  "left_ankle_pitch",
    "left_ankle_roll",      "right_hip_yaw",      "right_hip_roll",     "right_hip_pitch",  "right_knee_pitch",
    "right_ankle_pitch",    "right_ankle_roll",   "waist_yaw",          "waist_roll",       "waist_pitch",
    "left_shoulder_pitch",  "left_shoulder_roll", "left_shoulder_yaw",  "left_elbow",       "left_wrist_roll",
    "left_wrist_pitch",     "right_shoulder_pitch", "right_shoulder_roll", "right_shoulder_yaw", "right_elbow",
    "right_wrist_roll",     "right_wrist_pitch",  "neck_yaw",           "neck_pitch",       "neck_roll",
    "joint_31", "joint_32", "joint_33", "joint_34", "joint_35", "joint_36", "joint_37", "joint_38", "joint_39",
    "joint_40", "joint_41", "joint_42", "joint_43", "joint_44", "joint_45", "joint_46", "joint_47", "joint_48",
    "joint_49", "joint_50", "joint_51", "joint_52", "joint_53", "joint_54", "joint_55", "joint_56", "joint_57",
    "joint_58", "joint_59", "joint_60", "joint_61", "joint_62", "joint_63", "joint_64",
};

static const char *const SENSOR_NAMES[SIM_SENSOR_COUNT] = {"battery", "board", "ambient"};

const char *const *sim_joint_names(void) {
  return JOINT_NAMES;
}

const char *const *sim_sensor_names(void) {
  return SENSOR_NAMES;
}

double sim_random(uint32_t *state) {
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  *state = x;
  return x / 4294967296.0;
}

/* Sum of three uniforms: near enough to a bell for sensor noise. */
static double noise(sim *robot, double width) {
  const double sum = sim_random(&robot->random_state) + sim_random(&robot->random_state) +
                     sim_random(&robot->random_state);
  return (sum - 1.5) * width;
}

/* Where the motion has joint `i` at motion time `t`: two slow sines, well inside the limits. */
static double path_rad(size_t i, double t) {
  const double phase = 0.7 * (double)i;
  const double rate = 2.0 * PI * (0.15 + 0.02 * (double)(i % 5));
  return 0.1 * (double)((int)(i % 3) - 1) + 0.45 * sin(rate * t + phase) + 0.1 * sin(2.3 * rate * t + 2.0 * phase);
}

void sim_init(sim *robot, size_t joint_count, uint32_t seed, uint64_t now_us) {
  memset(robot, 0, sizeof *robot);
  robot->random_state = seed * 2654435761u + 1u;
  if (robot->random_state == 0) robot->random_state = 1;
  robot->joint_count = joint_count;
  robot->now_us = now_us;
  robot->state_of_charge = 0.87;
  robot->board_c = AMBIENT_C + 9.0;
  robot->battery_c = AMBIENT_C + 4.0;
  for (size_t i = 0; i < joint_count; i += 1) {
    robot->position_rad[i] = path_rad(i, 0.0);
    robot->motor_c[i] = AMBIENT_C + 8.0 + noise(robot, 2.0);
  }
}

void sim_actuate(sim *robot, const omcu_output *output) {
  robot->state = output->state;
  robot->is_driven = output->is_motion_enabled;
  robot->has_setpoints = output->setpoints_rad != NULL;
  for (size_t i = 0; robot->has_setpoints && i < robot->joint_count; i += 1) {
    robot->setpoint_rad[i] = (double)output->setpoints_rad[i];
  }
}

static double toward(double from, double to, double step_max) {
  const double step = to - from;
  return from + (step > step_max ? step_max : step < -step_max ? -step_max : step);
}

static void move_joint(sim *robot, size_t i, double step_s) {
  const double before_rad = robot->position_rad[i];
  const double speed_before = robot->velocity_radps[i];
  if (robot->is_past_limit[i]) {
    robot->position_rad[i] = toward(before_rad, PAST_LIMIT_RAD, PAST_LIMIT_SPEED_RADPS * step_s);
  } else if (robot->has_setpoints) {
    robot->position_rad[i] =
        toward(before_rad, robot->setpoint_rad[i], robot->pace * SETPOINT_SPEED_RADPS * step_s);
  } else {
    /* Back onto the path gently, wherever setpoints or a fault have left the joint. */
    robot->position_rad[i] =
        toward(before_rad, path_rad(i, robot->motion_s), robot->pace * 2.0 * SETPOINT_SPEED_RADPS * step_s);
  }
  const double speed = (robot->position_rad[i] - before_rad) / step_s;
  robot->velocity_radps[i] = speed;
  const double acceleration = (speed - speed_before) / step_s;
  /* Gravity on the limb, friction, inertia; a stopped robot stands on its brakes and carries little. */
  const double is_powered = robot->state == OMCU_ARMED || robot->state == OMCU_HOLDING ? 1.0 : 0.15;
  robot->torque_nm[i] = is_powered * (12.0 + (double)(i % 6)) * sin(robot->position_rad[i]) + 1.5 * speed +
                        0.02 * (acceleration > 200 ? 200 : acceleration < -200 ? -200 : acceleration);
}

static void heat_joint(sim *robot, size_t i, double step_s) {
  const double torque = robot->torque_nm[i];
  const double heat_w = MOTOR_W_PER_NM2 * torque * torque + 0.4 * fabs(robot->velocity_radps[i]);
  const double loss_w = (robot->motor_c[i] - AMBIENT_C) / MOTOR_K_PER_W;
  robot->motor_c[i] += (heat_w - loss_w) / MOTOR_J_PER_K * step_s;
  if (robot->is_overheating[i] && robot->motor_c[i] < OVERHEAT_MAX_C) robot->motor_c[i] += OVERHEAT_K_PER_S * step_s;
}

static void step(sim *robot, double step_s) {
  const double wanted_pace = robot->is_driven ? 1.0 : 0.0;
  robot->pace = toward(robot->pace, wanted_pace, step_s / (robot->is_driven ? START_S : BRAKE_S));
  robot->motion_s += robot->pace * step_s;
  double draw_w = IDLE_W;
  for (size_t i = 0; i < robot->joint_count; i += 1) {
    move_joint(robot, i, step_s);
    heat_joint(robot, i, step_s);
    const double torque = robot->torque_nm[i];
    draw_w += fabs(torque * robot->velocity_radps[i]) + MOTOR_W_PER_NM2 * torque * torque;
  }
  robot->draw_w = draw_w;
  robot->state_of_charge -= draw_w * step_s / 3600.0 / BATTERY_WH;
  if (robot->state_of_charge < 0) robot->state_of_charge = 0;
  robot->board_c += (AMBIENT_C + 9.0 + draw_w / 60.0 - robot->board_c) / 120.0 * step_s;
  robot->battery_c += (AMBIENT_C + draw_w / 25.0 - robot->battery_c) / 600.0 * step_s;
}

void sim_advance(sim *robot, uint64_t now_us) {
  double left_s = (double)(now_us - robot->now_us) / 1e6;
  robot->now_us = now_us;
  /* After a pause of the whole process the robot goes on; it does not catch up. */
  if (left_s > 0.5) left_s = 0.5;
  while (left_s > 1e-6) {
    const double step_s = left_s < STEP_S ? left_s : STEP_S;
    step(robot, step_s);
    left_s -= step_s;
  }
}

static void read_joint(sim *robot, size_t i, omcu_sensors *out) {
  if (robot->is_frozen[i]) {
    out->position_rad[i] = robot->frozen_position_rad[i];
    out->velocity_radps[i] = robot->frozen_velocity_radps[i];
    out->torque_nm[i] = robot->frozen_torque_nm[i];
    out->motor_c[i] = robot->frozen_motor_c[i];
  } else {
    out->position_rad[i] = (float)(robot->position_rad[i] + noise(robot, 2e-5));
    out->velocity_radps[i] = (float)(robot->velocity_radps[i] + noise(robot, 1e-3));
    out->torque_nm[i] = (float)(robot->torque_nm[i] + noise(robot, 0.02));
    out->motor_c[i] = (float)(robot->motor_c[i] + noise(robot, 0.05));
    robot->frozen_position_rad[i] = out->position_rad[i];
    robot->frozen_velocity_radps[i] = out->velocity_radps[i];
    robot->frozen_torque_nm[i] = out->torque_nm[i];
    robot->frozen_motor_c[i] = out->motor_c[i];
  }
  if (robot->is_nan[i]) out->position_rad[i] = NAN;
}

static void show(const sim *robot, omcu_sensors *out) {
  const float value = (float)robot->shown_value;
  const size_t joint = robot->shown_joint;
  switch (robot->shown) {
    case SIM_NOTHING:
      return;
    case SIM_POSITION:
      out->position_rad[joint] = value;
      return;
    case SIM_VELOCITY:
      out->velocity_radps[joint] = value;
      return;
    case SIM_TORQUE:
      out->torque_nm[joint] = value;
      return;
    case SIM_MOTOR:
      out->motor_c[joint] = value;
      return;
    case SIM_ROLL:
      out->orientation[0] = (float)sin(robot->shown_value / 2);
      out->orientation[1] = 0;
      out->orientation[2] = 0;
      out->orientation[3] = (float)cos(robot->shown_value / 2);
      return;
    case SIM_CHARGE:
      out->state_of_charge = value;
      return;
  }
}

void sim_read(sim *robot, omcu_sensors *out) {
  for (size_t i = 0; i < robot->joint_count; i += 1) read_joint(robot, i, out);
  /* The trunk sways with the motion, by a degree. */
  const double sway = 0.0175 * robot->pace;
  const double roll = sway * sin(1.1 * robot->motion_s);
  const double pitch = sway * cos(0.8 * robot->motion_s);
  out->orientation[0] = (float)(sin(roll / 2) * cos(pitch / 2));
  out->orientation[1] = (float)(cos(roll / 2) * sin(pitch / 2));
  out->orientation[2] = (float)(-sin(roll / 2) * sin(pitch / 2));
  out->orientation[3] = (float)(cos(roll / 2) * cos(pitch / 2));
  out->angular_velocity_radps[0] = (float)(sway * 1.1 * cos(1.1 * robot->motion_s) + noise(robot, 2e-3));
  out->angular_velocity_radps[1] = (float)(-sway * 0.8 * sin(0.8 * robot->motion_s) + noise(robot, 2e-3));
  out->angular_velocity_radps[2] = (float)noise(robot, 2e-3);
  /* What an accelerometer feels at rest: the floor pushing up. x forward, y left, z up. */
  out->linear_acceleration_mps2[0] = (float)(-GRAVITY_MPS2 * sin(pitch) + noise(robot, 0.03));
  out->linear_acceleration_mps2[1] = (float)(GRAVITY_MPS2 * cos(pitch) * sin(roll) + noise(robot, 0.03));
  out->linear_acceleration_mps2[2] = (float)(GRAVITY_MPS2 * cos(pitch) * cos(roll) + noise(robot, 0.03));
  const double open_v = 42.0 + 12.0 * robot->state_of_charge;
  const double current_a = robot->draw_w / open_v;
  const double voltage_v = open_v - BATTERY_OHM * current_a + noise(robot, 0.02);
  out->voltage_v = (float)voltage_v;
  out->current_a = (float)(robot->draw_w / voltage_v);
  out->state_of_charge = (float)robot->state_of_charge;
  out->draw_w = (float)robot->draw_w;
  out->sensor_c[0] = (float)(robot->battery_c + noise(robot, 0.05));
  out->sensor_c[1] = (float)(robot->board_c + noise(robot, 0.05));
  out->sensor_c[2] = (float)(AMBIENT_C + noise(robot, 0.05));
  show(robot, out);
  out->is_fault_injected = sim_has_fault(robot);
}

bool sim_fault(sim *robot, uint8_t fault, size_t joint) {
  if (joint >= robot->joint_count) return false;
  switch (fault) {
    case OMCU_FAULT_OVERHEAT:
      robot->is_overheating[joint] = true;
      return true;
    case OMCU_FAULT_FREEZE:
      robot->is_frozen[joint] = true;
      return true;
    case OMCU_FAULT_LIMIT:
      robot->is_past_limit[joint] = true;
      return true;
    case OMCU_FAULT_NAN:
      robot->is_nan[joint] = true;
      return true;
    default:
      return false;
  }
}

bool sim_show(sim *robot, sim_quantity quantity, double value, size_t joint) {
  if (joint >= robot->joint_count) return false;
  robot->shown = quantity;
  robot->shown_value = value;
  robot->shown_joint = joint;
  return true;
}

void sim_clear_faults(sim *robot) {
  robot->shown = SIM_NOTHING;
  memset(robot->is_overheating, 0, sizeof robot->is_overheating);
  memset(robot->is_frozen, 0, sizeof robot->is_frozen);
  memset(robot->is_nan, 0, sizeof robot->is_nan);
  for (size_t i = 0; i < robot->joint_count; i += 1) {
    /* Otherwise a stopped robot would stay past its limit, and never be let move back. */
    if (robot->is_past_limit[i]) robot->position_rad[i] = path_rad(i, robot->motion_s);
    robot->is_past_limit[i] = false;
  }
}

bool sim_cool(sim *robot, size_t joint) {
  if (joint >= robot->joint_count) return false;
  robot->motor_c[joint] = AMBIENT_C + 8.0;
  return true;
}

bool sim_has_fault(const sim *robot) {
  if (robot->shown != SIM_NOTHING) return true;
  for (size_t i = 0; i < robot->joint_count; i += 1) {
    if (robot->is_overheating[i] || robot->is_frozen[i] || robot->is_past_limit[i] || robot->is_nan[i]) return true;
  }
  return false;
}
