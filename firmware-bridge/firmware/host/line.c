#define _GNU_SOURCE
#include "line.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "sim.h"

/* While the pty is full nobody reads; looking again this often costs nothing. */
#define RETRY_US 2000u

bool line_open(line *port, uint32_t baud_limit, uint32_t seed, uint64_t now_us) {
  memset(port, 0, sizeof *port);
  port->bytes_per_s = baud_limit / 10u;
  port->credit_us = now_us;
  port->random_state = seed ^ 0x5bd1e995u;
  if (port->random_state == 0) port->random_state = 1;
  port->master = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (port->master < 0) return false;
  if (grantpt(port->master) != 0 || unlockpt(port->master) != 0) return false;
  const int error = ptsname_r(port->master, port->path, sizeof port->path);
  if (error != 0) {
    errno = error;
    return false;
  }
  port->slave = open(port->path, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (port->slave < 0) return false;
  struct termios settings;
  if (tcgetattr(port->slave, &settings) != 0) return false;
  cfmakeraw(&settings);
  return tcsetattr(port->slave, TCSANOW, &settings) == 0;
}

size_t line_room(const line *port) {
  return LINE_BUFFER_BYTES - port->length;
}

void line_send(line *port, const uint8_t *bytes, size_t length) {
  if (port->is_silent) return;
  for (size_t i = 0; i < length && port->length < LINE_BUFFER_BYTES; i += 1) {
    uint8_t byte = bytes[i];
    if (port->drop_probability > 0 && sim_random(&port->random_state) < port->drop_probability) continue;
    if (port->corrupt_probability > 0 && sim_random(&port->random_state) < port->corrupt_probability) {
      byte ^= (uint8_t)(1u << (unsigned)(sim_random(&port->random_state) * 8.0));
    }
    port->buffer[port->length] = byte;
    port->length += 1;
  }
}

uint64_t line_flush(line *port, uint64_t now_us) {
  size_t allowed = port->length;
  if (port->bytes_per_s != 0) {
    port->credit_bytes += (double)(now_us - port->credit_us) / 1e6 * (double)port->bytes_per_s;
    /* An idle UART saves nothing up, beyond what one wake-up of this program is late. */
    const double burst_bytes = (double)port->bytes_per_s * 0.004 + 16.0;
    if (port->credit_bytes > burst_bytes) port->credit_bytes = burst_bytes;
    port->credit_us = now_us;
    if ((double)allowed > port->credit_bytes) allowed = (size_t)port->credit_bytes;
  }
  if (allowed > 0) {
    const ssize_t written = write(port->master, port->buffer, allowed);
    if (written > 0) {
      port->length -= (size_t)written;
      memmove(port->buffer, port->buffer + written, port->length);
      port->credit_bytes -= (double)written;
    }
  }
  return port->length == 0 ? UINT64_MAX : now_us + RETRY_US;
}

size_t line_receive(line *port, uint8_t *bytes, size_t room) {
  const ssize_t count = read(port->master, bytes, room);
  return count > 0 ? (size_t)count : 0;
}

bool line_has_fault(const line *port) {
  return port->is_silent || port->drop_probability > 0 || port->corrupt_probability > 0;
}

void line_clear_faults(line *port) {
  port->is_silent = false;
  port->drop_probability = 0;
  port->corrupt_probability = 0;
}
