/* A plausible N-joint robot: smooth motion, motor heat, a draining battery, an IMU that feels gravity. */
#ifndef OUTRIDER_SIM_H
#define OUTRIDER_SIM_H

#include "../core/mcu.h"

/** All joints have the same limits. `limit JOINT` drives past the upper one. [rad] */
#define SIM_POSITION_MAX_RAD 2.0f
#define SIM_MOTOR_HOT_C 85.0f
#define SIM_SENSOR_COUNT 3u

/** What a sensor can be made to show instead of what there is. */
typedef enum {
  SIM_NOTHING,
  SIM_POSITION,
  SIM_VELOCITY,
  SIM_TORQUE,
  SIM_MOTOR,
  SIM_ROLL,
  SIM_CHARGE,
} sim_quantity;

typedef struct {
  uint32_t random_state;
  size_t joint_count;
  uint64_t now_us;
  omcu_state state;
  bool is_driven;
  bool has_setpoints;
  double setpoint_rad[OMCU_JOINTS_MAX];
  /** 0 at rest, 1 in full motion; what makes starts and stops smooth. */
  double pace;
  /** Time along the motion; stands still when the robot does. */
  double motion_s;
  double position_rad[OMCU_JOINTS_MAX];
  double velocity_radps[OMCU_JOINTS_MAX];
  double torque_nm[OMCU_JOINTS_MAX];
  double motor_c[OMCU_JOINTS_MAX];
  double board_c;
  double battery_c;
  double state_of_charge;
  double draw_w;
  bool is_overheating[OMCU_JOINTS_MAX];
  bool is_frozen[OMCU_JOINTS_MAX];
  bool is_past_limit[OMCU_JOINTS_MAX];
  bool is_nan[OMCU_JOINTS_MAX];
  sim_quantity shown;
  size_t shown_joint;
  double shown_value;
  float frozen_position_rad[OMCU_JOINTS_MAX];
  float frozen_velocity_radps[OMCU_JOINTS_MAX];
  float frozen_torque_nm[OMCU_JOINTS_MAX];
  float frozen_motor_c[OMCU_JOINTS_MAX];
} sim;

void sim_init(sim *robot, size_t joint_count, uint32_t seed, uint64_t now_us);
/** Names of the joints and sensors; valid for the life of the program. */
const char *const *sim_joint_names(void);
const char *const *sim_sensor_names(void);
void sim_actuate(sim *robot, const omcu_output *output);
/** Moves the robot's time on. */
void sim_advance(sim *robot, uint64_t now_us);
void sim_read(sim *robot, omcu_sensors *out);
/** OMCU_FAULT_OVERHEAT, FREEZE, LIMIT or NAN of one joint. False when there is no such joint or fault. */
bool sim_fault(sim *robot, uint8_t fault, size_t joint);
/** Lets one sensor show a value from now on; of joint `joint` where the quantity is a joint's. */
bool sim_show(sim *robot, sim_quantity quantity, double value, size_t joint);
void sim_clear_faults(sim *robot);
/** Puts a motor back to the temperature of the room, so that nobody has to wait for it. */
bool sim_cool(sim *robot, size_t joint);
bool sim_has_fault(const sim *robot);
/** xorshift32, in 0 to 1. */
double sim_random(uint32_t *state);

#endif
