#define _GNU_SOURCE
#include "control.h"

#include <stdlib.h>
#include <string.h>

const char CONTROL_HELP[] =
    "  overheat JOINT   heat the motor by 20 degrees C per second, up to 130\n"
    "  cool JOINT       put the motor back to room temperature and end its overheating\n"
    "  freeze JOINT     report the same bits for ever\n"
    "  limit JOINT      drive the joint to 2.25 rad; the limits are -2 and 2\n"
    "  nan JOINT        report NaN as the position\n"
    "  show WHAT VALUE  report VALUE as roll [rad] or charge [0 to 1]\n"
    "  show WHAT VALUE JOINT   report VALUE as position [rad], velocity [rad/s], torque [N m] or motor [C]\n"
    "  estop on|off     press or release the emergency stop\n"
    "  drop P           lose each sent byte with probability P\n"
    "  corrupt P        flip one bit of each sent byte with probability P\n"
    "  silent           send nothing; hearing goes on\n"
    "  resume           end silent, drop and corrupt\n"
    "  clear            end every fault, the emergency stop included\n"
    "  reset            reset the MCU: disarmed, new boot nonce\n"
    "JOINT is a name or an index from 0.\n";

static bool find_joint(const machine *it, const char *word, size_t *joint) {
  for (size_t i = 0; i < it->robot.joint_count; i += 1) {
    if (strcmp(word, sim_joint_names()[i]) == 0) {
      *joint = i;
      return true;
    }
  }
  char *end = NULL;
  const unsigned long index = strtoul(word, &end, 10);
  *joint = index;
  return end != word && *end == '\0' && index < it->robot.joint_count;
}

static bool find_probability(const char *word, double *probability) {
  char *end = NULL;
  *probability = strtod(word, &end);
  return end != word && *end == '\0' && *probability >= 0 && *probability <= 1;
}

static const char *joint_line(machine *it, const char *verb, const char *word) {
  static const struct {
    const char *verb;
    uint8_t fault;
  } FAULTS[] = {{"overheat", OMCU_FAULT_OVERHEAT},
                {"freeze", OMCU_FAULT_FREEZE},
                {"limit", OMCU_FAULT_LIMIT},
                {"nan", OMCU_FAULT_NAN}};
  size_t joint = 0;
  if (word == NULL || !find_joint(it, word, &joint)) return "JOINT is no name or index of a joint";
  if (strcmp(verb, "cool") == 0) {
    it->robot.is_overheating[joint] = false;
    sim_cool(&it->robot, joint);
    return NULL;
  }
  for (size_t i = 0; i < sizeof FAULTS / sizeof FAULTS[0]; i += 1) {
    if (strcmp(verb, FAULTS[i].verb) == 0) sim_fault(&it->robot, FAULTS[i].fault, joint);
  }
  return NULL;
}

static const char *show_line(machine *it, const char *what, const char *value_word, const char *joint_word) {
  static const struct {
    const char *what;
    sim_quantity quantity;
    bool is_joints;
  } QUANTITIES[] = {{"position", SIM_POSITION, true}, {"velocity", SIM_VELOCITY, true}, {"torque", SIM_TORQUE, true},
                    {"motor", SIM_MOTOR, true},       {"roll", SIM_ROLL, false},        {"charge", SIM_CHARGE, false}};
  if (what == NULL || value_word == NULL) return "say show WHAT VALUE";
  char *end = NULL;
  const double value = strtod(value_word, &end);
  if (end == value_word || *end != '\0') return "VALUE must be a number";
  for (size_t i = 0; i < sizeof QUANTITIES / sizeof QUANTITIES[0]; i += 1) {
    if (strcmp(what, QUANTITIES[i].what) != 0) continue;
    size_t joint = 0;
    if (QUANTITIES[i].is_joints ? joint_word == NULL || !find_joint(it, joint_word, &joint) : joint_word != NULL) {
      return "JOINT is no name or index of a joint, or WHAT has none";
    }
    sim_show(&it->robot, QUANTITIES[i].quantity, value, joint);
    return NULL;
  }
  return "WHAT must be position, velocity, torque, motor, roll or charge";
}

static const char *bare_line(machine *it, const char *verb) {
  if (strcmp(verb, "silent") == 0) {
    it->port.is_silent = true;
  } else if (strcmp(verb, "resume") == 0) {
    line_clear_faults(&it->port);
  } else if (strcmp(verb, "clear") == 0) {
    control_fault(it, OMCU_FAULT_CLEAR, 0, 0);
  } else if (strcmp(verb, "reset") == 0) {
    it->is_reset_wanted = true;
  } else {
    return "unknown; --help lists the lines";
  }
  return NULL;
}

const char *control_do(machine *it, char *text) {
  char *rest = NULL;
  const char *verb = strtok_r(text, " \t\r", &rest);
  const char *word = strtok_r(NULL, " \t\r", &rest);
  if (verb == NULL) return NULL; /* an empty line */
  if (strcmp(verb, "show") == 0) {
    const char *value = strtok_r(NULL, " \t\r", &rest);
    const char *joint = strtok_r(NULL, " \t\r", &rest);
    if (strtok_r(NULL, " \t\r", &rest) != NULL) return "too many words";
    return show_line(it, word, value, joint);
  }
  if (strtok_r(NULL, " \t\r", &rest) != NULL) return "too many words";
  if (strcmp(verb, "overheat") == 0 || strcmp(verb, "cool") == 0 || strcmp(verb, "freeze") == 0 ||
      strcmp(verb, "limit") == 0 || strcmp(verb, "nan") == 0) {
    return joint_line(it, verb, word);
  }
  if (strcmp(verb, "drop") == 0 || strcmp(verb, "corrupt") == 0) {
    double probability = 0;
    if (word == NULL || !find_probability(word, &probability)) return "P must be a number from 0 to 1";
    if (strcmp(verb, "drop") == 0) it->port.drop_probability = probability;
    else it->port.corrupt_probability = probability;
    return NULL;
  }
  if (strcmp(verb, "estop") == 0) {
    const bool is_on = word != NULL && strcmp(word, "on") == 0;
    if (!is_on && (word == NULL || strcmp(word, "off") != 0)) return "say estop on or estop off";
    it->is_estop_pressed = is_on;
    return NULL;
  }
  if (word != NULL) return "too many words";
  return bare_line(it, verb);
}

bool control_fault(machine *it, uint8_t fault, uint8_t joint, float value) {
  switch (fault) {
    case OMCU_FAULT_CLEAR:
      sim_clear_faults(&it->robot);
      line_clear_faults(&it->port);
      it->is_estop_pressed = false;
      return true;
    case OMCU_FAULT_ESTOP:
      it->is_estop_pressed = value != 0;
      return true;
    case OMCU_FAULT_DROP:
    case OMCU_FAULT_CORRUPT:
      if (!(value >= 0 && value <= 1)) return false;
      if (fault == OMCU_FAULT_DROP) it->port.drop_probability = (double)value;
      else it->port.corrupt_probability = (double)value;
      return true;
    case OMCU_FAULT_SILENT:
      it->port.is_silent = true;
      return true;
    default:
      return sim_fault(&it->robot, fault, joint);
  }
}
