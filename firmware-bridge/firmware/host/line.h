/* A UART made of a pty: a bounded send buffer, an optional baud rate, and the faults that lines have. */
#ifndef OUTRIDER_LINE_H
#define OUTRIDER_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_BUFFER_BYTES 4096u

typedef struct {
  int master;
  /** Kept open: a pty whose last slave closes forgets that it is raw, and would echo at the next host. */
  int slave;
  char path[128];
  uint8_t buffer[LINE_BUFFER_BYTES];
  size_t length;
  /** 0: as fast as the pty takes it. [bytes/s] */
  uint32_t bytes_per_s;
  double credit_bytes;
  uint64_t credit_us;
  double drop_probability;
  double corrupt_probability;
  bool is_silent;
  uint32_t random_state;
} line;

/** Opens a new pty in raw mode. False with errno set when that fails. */
bool line_open(line *port, uint32_t baud_limit, uint32_t seed, uint64_t now_us);
size_t line_room(const line *port);
/** Buffers bytes; faults are applied here. */
void line_send(line *port, const uint8_t *bytes, size_t length);
/** Writes what the pty and the baud rate allow. Returns when to call again, UINT64_MAX when nothing waits. [µs] */
uint64_t line_flush(line *port, uint64_t now_us);
/** Reads what has come. Returns the bytes, 0 when there are none now. */
size_t line_receive(line *port, uint8_t *bytes, size_t room);
bool line_has_fault(const line *port);
void line_clear_faults(line *port);

#endif
