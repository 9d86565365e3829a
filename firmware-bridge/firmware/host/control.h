/* Faults by text lines, for people and test rigs. */
#ifndef OUTRIDER_CONTROL_H
#define OUTRIDER_CONTROL_H

#include "line.h"
#include "sim.h"

/** The simulated machine around the core. */
typedef struct {
  sim robot;
  line port;
  bool is_estop_pressed;
  bool is_reset_wanted;
} machine;

/** Does one line. Returns NULL, or what is wrong with it. */
const char *control_do(machine *it, char *text);

/** A FAULT frame. False when joint, value or fault are none. */
bool control_fault(machine *it, uint8_t fault, uint8_t joint, float value);

extern const char CONTROL_HELP[];

#endif
