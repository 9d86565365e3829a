/*
 * The MCU's side of the protocol: session, lease, states, commands, telemetry. Knows neither a chip nor an operating
 * system; all of that is in `omcu_hal`. One instance per line. No heap. Not reentrant: call it from one context.
 */
#ifndef OUTRIDER_MCU_H
#define OUTRIDER_MCU_H

#include "wire.h"

#define OMCU_JOINTS_MAX 64u
#define OMCU_SENSORS_MAX 8u
/** Longest name of a joint or a sensor, so that the largest HELLO fits a frame. */
#define OMCU_NAME_LENGTH_MAX 24u
/** The promise to the host: silence of this length stops the robot. [FB-19] */
#define OMCU_LEASE_MS 300u

enum {
  OMCU_HOST_HELLO = 0x01,
  OMCU_HEARTBEAT = 0x02,
  OMCU_STOP = 0x03,
  OMCU_HOLD = 0x04,
  OMCU_ARM = 0x05,
  OMCU_RELEASE = 0x06,
  OMCU_SETPOINTS = 0x07,
  OMCU_SET_RATE = 0x08,
  OMCU_FAULT = 0x0f,
  OMCU_MCU_HELLO = 0x81,
  OMCU_HEARTBEAT_ECHO = 0x82,
  OMCU_ACK = 0x83,
  OMCU_NACK = 0x84,
  OMCU_JOINTS = 0x90,
  OMCU_IMU = 0x91,
  OMCU_POWER = 0x92,
  OMCU_TEMPERATURE = 0x93,
  OMCU_STATUS = 0x94,
};

typedef enum { OMCU_DISARMED, OMCU_ARMED, OMCU_HOLDING, OMCU_STOPPED } omcu_state;

typedef enum {
  OMCU_REASON_NONE,
  OMCU_REASON_BOOT,
  OMCU_REASON_HOST_STOP,
  OMCU_REASON_LEASE_EXPIRED,
  OMCU_REASON_GATE_CLOSED,
  OMCU_REASON_EPOCH_CHANGED,
  OMCU_REASON_HOST_CHANGED,
  OMCU_REASON_ESTOP,
} omcu_stop_reason;

typedef enum {
  OMCU_NACK_NONE,
  OMCU_NACK_BAD_STATE,
  OMCU_NACK_BAD_NONCE,
  OMCU_NACK_NO_LEASE,
  OMCU_NACK_ESTOP_PRESSED,
  OMCU_NACK_BAD_PAYLOAD,
  OMCU_NACK_UNKNOWN_TYPE,
  OMCU_NACK_NOT_SUPPORTED,
  OMCU_NACK_STALE_COMMAND,
  OMCU_NACK_BAD_EPOCH,
  OMCU_NACK_RATE_TOO_HIGH,
  OMCU_NACK_GATE_CLOSED,
  OMCU_NACK_OUT_OF_RANGE,
  OMCU_NACK_NO_SESSION,
} omcu_nack;

enum {
  OMCU_CAN_HOLD = 1,
  OMCU_CAN_SETPOINTS = 2,
  OMCU_CAN_SET_RATE = 4,
  OMCU_CAN_ESTOP_INPUT = 8,
  OMCU_CAN_FAULTS = 16,
};

enum {
  OMCU_FLAG_ESTOP_PRESSED = 1 << 0,
  OMCU_FLAG_LEASE_FRESH = 1 << 1,
  OMCU_FLAG_GATE_OPEN = 1 << 2,
  OMCU_FLAG_MOTION_ENABLED = 1 << 3,
  OMCU_FLAG_FAULT_INJECTED = 1 << 4,
  OMCU_FLAG_MOTOR_HOT = 1 << 5,
  OMCU_FLAG_JOINT_LIMIT = 1 << 6,
  OMCU_FLAG_SENSOR_INVALID = 1 << 7,
  OMCU_FLAG_TX_OVERRUN = 1 << 8,
  OMCU_FLAG_SESSION_OPEN = 1 << 9,
};

/** Streams with a rate of their own, in the order of HELLO. */
enum {
  OMCU_STREAM_JOINTS,
  OMCU_STREAM_IMU,
  OMCU_STREAM_POWER,
  OMCU_STREAM_TEMPERATURE,
  OMCU_STREAM_STATUS,
  OMCU_STREAM_COUNT,
};

/** Faults of FAULT frames. [FB-26] */
enum {
  OMCU_FAULT_CLEAR,
  OMCU_FAULT_OVERHEAT,
  OMCU_FAULT_FREEZE,
  OMCU_FAULT_LIMIT,
  OMCU_FAULT_NAN,
  OMCU_FAULT_ESTOP,
  OMCU_FAULT_DROP,
  OMCU_FAULT_CORRUPT,
  OMCU_FAULT_SILENT,
  OMCU_FAULT_RESET,
  OMCU_FAULT_COUNT,
};

/** One reading of everything. SI units, °C. */
typedef struct {
  float position_rad[OMCU_JOINTS_MAX];
  float velocity_radps[OMCU_JOINTS_MAX];
  float torque_nm[OMCU_JOINTS_MAX];
  float motor_c[OMCU_JOINTS_MAX];
  /** x y z w. */
  float orientation[4];
  float angular_velocity_radps[3];
  float linear_acceleration_mps2[3];
  float voltage_v;
  /** Positive while discharging. */
  float current_a;
  /** 0 to 1. */
  float state_of_charge;
  /** Positive while discharging. */
  float draw_w;
  float sensor_c[OMCU_SENSORS_MAX];
  /** A test fault is on. */
  bool is_fault_injected;
} omcu_sensors;

/** What the actuators shall do. Given on every change; nothing else moves the robot. */
typedef struct {
  omcu_state state;
  /** Only while this is true may a joint be driven. */
  bool is_motion_enabled;
  /** One target per joint, or NULL when the host has sent none since ARM. [rad] */
  const float *setpoints_rad;
} omcu_output;

/** The chip. Every member must be set, `inject_fault` only with OUTRIDER_FAULTS. */
typedef struct {
  void *context;
  /** Monotonic since boot. [µs] */
  uint64_t (*now_us)(void *context);
  /** A value that differs from boot to boot. */
  uint32_t (*entropy)(void *context);
  /** Bytes that `tx` would take now. */
  size_t (*tx_room)(void *context);
  void (*tx)(void *context, const uint8_t *bytes, size_t length);
  bool (*is_estop_pressed)(void *context);
  void (*read_sensors)(void *context, omcu_sensors *out);
  void (*actuate)(void *context, const omcu_output *output);
  /** Returns false for a joint or value that it cannot do. */
  bool (*inject_fault)(void *context, uint8_t fault, uint8_t joint, float value);
} omcu_hal;

typedef struct {
  const char *firmware;
  uint8_t joint_count;
  uint8_t sensor_count;
  const char *const *joint_names;
  const char *const *sensor_names;
  /** The same for all joints; the flags and setpoints are judged by them. [rad] */
  float position_min_rad;
  float position_max_rad;
  /** From here the flag MOTOR_HOT is set. [°C] */
  float motor_hot_c;
  /** OMCU_CAN_HOLD and so on; OMCU_CAN_FAULTS is added by the build. */
  uint32_t capabilities;
  /** Wanted rates; a slow line lowers them. [Hz] */
  uint16_t rates_hz[OMCU_STREAM_COUNT];
} omcu_config;

typedef struct {
  const omcu_config *config;
  omcu_hal hal;
  omcu_receiver receiver;

  omcu_state state;
  omcu_stop_reason stop_reason;
  uint32_t boot_nonce;
  uint64_t boot_us;

  uint32_t session;
  uint32_t baud;

  bool has_heartbeat;
  uint32_t heartbeat_counter;
  uint64_t heartbeat_us;
  uint32_t heartbeats_stale;
  bool is_gate_open;
  uint64_t host_epoch;

  uint64_t armed_epoch;
  bool was_gate_open;
  bool is_motion_enabled;
  bool has_setpoints;
  float setpoints_rad[OMCU_JOINTS_MAX];

  bool has_motion_command;
  uint32_t motion_command_id;
  uint8_t motion_command_type;
  omcu_nack motion_command_result;
  bool has_stop_command;
  uint32_t stop_command_id;

  bool is_estop_pressed;
  bool is_reset_wanted;

  uint16_t rates_hz[OMCU_STREAM_COUNT];
  uint64_t due_us[OMCU_STREAM_COUNT];
  uint64_t hello_due_us;
  omcu_sensors sensors;

  uint32_t tx_sequence;
  uint32_t tx_dropped;
  uint8_t tx_frame[OMCU_FRAME_BYTES_MAX];
  uint8_t tx_line[OMCU_LINE_BYTES_MAX];
} omcu;

/**
 * Boots: DISARMED, a new boot nonce, nothing remembered. `config` and what it points to must outlive `mcu`. Also how a
 * reset is done; the nonce is then never the one before.
 */
void omcu_boot(omcu *mcu, const omcu_config *config, const omcu_hal *hal);

/** Takes received bytes, in pieces of any size. */
void omcu_rx(omcu *mcu, const uint8_t *bytes, size_t length);

/** Judges lease and emergency stop, sends what is due. Call it at `omcu_next_due_us` and at least every 5 ms. */
void omcu_poll(omcu *mcu);

/** When `omcu_poll` next has something to do. [µs] */
uint64_t omcu_next_due_us(const omcu *mcu);

/* Between the parts of the core. */

bool omcu_is_lease_fresh(const omcu *mcu, uint64_t now_us);
uint32_t omcu_flags(const omcu *mcu, uint64_t now_us);
/** Bytes per second that telemetry of these rates needs on the line. */
uint32_t omcu_line_load(const omcu *mcu, const uint16_t *rates_hz);
/** Bytes per second that telemetry may use at this baud rate; UINT32_MAX for 0, "it does not matter". */
uint32_t omcu_line_budget(uint32_t baud);
void omcu_fit_rates(omcu *mcu);
/** Sends the payload that stands in `tx_frame`. Telemetry gives way to answers on a full line. */
bool omcu_send(omcu *mcu, uint8_t type, const omcu_writer *payload, bool is_telemetry);
void omcu_send_hello(omcu *mcu, uint32_t session, uint64_t host_mono_us);
void omcu_send_due_telemetry(omcu *mcu, uint64_t now_us);

#endif
