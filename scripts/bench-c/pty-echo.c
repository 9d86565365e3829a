/*
 * The limit for "sample in, stop byte out": two processes and a pty. The first writes a sample's bytes every 20 ms and
 * takes the time until the first byte of the answer; the second, under the policy in question, waits for the delimiter
 * and answers with a stop frame's bytes. Prints one latency per line. [µs]
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* A joint state of 30 joints, and a stop, as they are on the line. */
#define SAMPLE_BYTES 512u
#define ANSWER_BYTES 21u
#define PERIOD_NS 20000000
#define PROBE_PRIORITY 40

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

static void fail(const char *what) {
  fprintf(stderr, "pty-echo: %s: %s\n", what, strerror(errno));
  exit(2);
}

static void be_fifo(int priority) {
  const struct sched_param wanted = {.sched_priority = priority};
  if (sched_setscheduler(0, SCHED_FIFO, &wanted) != 0) fail("SCHED_FIFO");
}

static void echo(const char *path) {
  const int fd = open(path, O_RDWR | O_NOCTTY);
  if (fd < 0) fail(path);
  uint8_t bytes[4096], answer[ANSWER_BYTES];
  memset(answer, 7, sizeof answer);
  for (;;) {
    const ssize_t count = read(fd, bytes, sizeof bytes);
    if (count <= 0) return;
    if (bytes[count - 1] == 0 && write(fd, answer, sizeof answer) < 0) return;
  }
}

int main(int argc, char **argv) {
  if (argc != 4) {
    fprintf(stderr, "usage: pty-echo COUNT other|fifo PRIORITY\n");
    return 2;
  }
  const int count = atoi(argv[1]);
  const int master = posix_openpt(O_RDWR | O_NOCTTY);
  if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) fail("no pty");
  char path[128];
  if (ptsname_r(master, path, sizeof path) != 0) fail("ptsname");
  const int slave = open(path, O_RDWR | O_NOCTTY);
  struct termios settings;
  if (slave < 0 || tcgetattr(slave, &settings) != 0) fail(path);
  cfmakeraw(&settings);
  if (tcsetattr(slave, TCSANOW, &settings) != 0) fail("raw mode");
  const pid_t child = fork();
  if (child < 0) fail("fork");
  if (child == 0) {
    if (strcmp(argv[2], "fifo") == 0) be_fifo(atoi(argv[3]));
    echo(path);
    _exit(0);
  }
  be_fifo(PROBE_PRIORITY);
  uint8_t sample[SAMPLE_BYTES], answer[256];
  memset(sample, 1, sizeof sample);
  sample[sizeof sample - 1] = 0;
  for (int i = 0; i < count; i += 1) {
    const struct timespec period = {.tv_nsec = PERIOD_NS};
    nanosleep(&period, NULL);
    const uint64_t from_us = now_us();
    if (write(master, sample, sizeof sample) != (ssize_t)sizeof sample) fail("write");
    size_t length = 0;
    uint64_t first_us = 0;
    while (length < ANSWER_BYTES) {
      struct pollfd ready = {.fd = master, .events = POLLIN};
      if (poll(&ready, 1, 5000) != 1) fail("no answer within 5 s");
      const ssize_t got = read(master, answer, sizeof answer);
      if (got <= 0) fail("read");
      if (first_us == 0) first_us = now_us();
      length += (size_t)got;
    }
    printf("%llu\n", (unsigned long long)(first_us - from_us));
  }
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  return 0;
}
