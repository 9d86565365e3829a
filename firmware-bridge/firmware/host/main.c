/* outrider-mcu: the reference firmware as a program, with a pty for a UART and a simulated robot for a robot. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control.h"

#define FIRMWARE "outrider-mcu 0.1.0"
/* The emergency stop is polled, as on a chip. */
#define POLL_US 5000u
#define CONTROL_LINE_BYTES 256u

typedef struct {
  uint32_t joints;
  uint32_t rate_hz;
  uint32_t baud_limit;
  uint32_t seed;
  bool has_seed;
  const char *link;
  const char *control;
} options;

/* A file descriptor that gives text lines. */
typedef struct {
  int fd;
  char text[CONTROL_LINE_BYTES];
  size_t length;
  bool is_too_long;
} line_reader;

static machine it;
static omcu core;

static uint64_t now_us(void *context) {
  (void)context;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Not from --seed: a nonce that repeats after a restart would let an old ARM in. */
static uint32_t entropy(void *context) {
  (void)context;
  uint32_t value = 0;
  if (getrandom(&value, sizeof value, 0) != (ssize_t)sizeof value) value = (uint32_t)now_us(NULL) ^ (uint32_t)getpid();
  return value;
}

static size_t tx_room(void *context) {
  (void)context;
  return line_room(&it.port);
}

static void tx(void *context, const uint8_t *bytes, size_t length) {
  (void)context;
  line_send(&it.port, bytes, length);
  line_flush(&it.port, now_us(NULL));
}

static bool is_estop_pressed(void *context) {
  (void)context;
  return it.is_estop_pressed;
}

static void read_sensors(void *context, omcu_sensors *out) {
  (void)context;
  sim_advance(&it.robot, now_us(NULL));
  sim_read(&it.robot, out);
  out->is_fault_injected = out->is_fault_injected || line_has_fault(&it.port) || it.is_estop_pressed;
}

static void actuate(void *context, const omcu_output *output) {
  (void)context;
  sim_advance(&it.robot, now_us(NULL));
  sim_actuate(&it.robot, output);
}

static bool inject_fault(void *context, uint8_t fault, uint8_t joint, float value) {
  (void)context;
  return control_fault(&it, fault, joint, value);
}

/* One JSON line on standard output. Left out rather than waited for when nobody reads: the lease must go on. */
__attribute__((format(printf, 1, 2))) static void say(const char *format, ...) {
  struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
  if (poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return;
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text - 1, format, arguments);
  va_end(arguments);
  if (length < 0 || (size_t)length >= sizeof text - 1) return;
  text[length] = '\n';
  if (write(STDOUT_FILENO, text, (size_t)length + 1) < 0) return; /* nobody is there */
}

static void say_state(void) {
  static const char *const STATES[] = {"DISARMED", "ARMED", "HOLD", "STOPPED"};
  static const char *const REASONS[] = {"none",        "boot",          "host_stop",    "lease_expired",
                                        "gate_closed", "epoch_changed", "host_changed", "estop"};
  static int last_state = -1;
  static uint32_t last_nonce = 0;
  static bool last_motion = false;
  if (last_state == (int)core.state && last_nonce == core.boot_nonce && last_motion == core.is_motion_enabled) return;
  last_state = (int)core.state;
  last_nonce = core.boot_nonce;
  last_motion = core.is_motion_enabled;
  say("{\"event\":\"state\",\"state\":\"%s\",\"reason\":\"%s\",\"motion\":%s,\"mono_us\":%llu}", STATES[core.state],
      REASONS[core.stop_reason], core.is_motion_enabled ? "true" : "false", (unsigned long long)now_us(NULL));
}

static void do_control_line(char *text) {
  char copy[CONTROL_LINE_BYTES];
  size_t kept = 0;
  for (const char *at = text; *at != '\0'; at += 1) {
    /* What comes back in JSON must need no escapes. */
    if (*at >= ' ' && *at <= '~' && *at != '"' && *at != '\\') copy[kept++] = *at;
  }
  copy[kept] = '\0';
  const char *problem = control_do(&it, text);
  const unsigned long long done_us = (unsigned long long)now_us(NULL);
  if (problem == NULL) say("{\"event\":\"control\",\"line\":\"%s\",\"ok\":true,\"mono_us\":%llu}", copy, done_us);
  else say("{\"event\":\"control\",\"line\":\"%s\",\"ok\":false,\"problem\":\"%s\"}", copy, problem);
}

static void read_control(line_reader *reader) {
  char bytes[256];
  const ssize_t count = read(reader->fd, bytes, sizeof bytes);
  if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
    reader->fd = -1; /* the other end closed it; the robot goes on */
    return;
  }
  for (ssize_t i = 0; i < count; i += 1) {
    if (bytes[i] != '\n') {
      if (reader->length + 1 < sizeof reader->text) reader->text[reader->length++] = bytes[i];
      else reader->is_too_long = true;
      continue;
    }
    reader->text[reader->length] = '\0';
    if (reader->is_too_long) say("{\"event\":\"control\",\"ok\":false,\"problem\":\"the line is too long\"}");
    else do_control_line(reader->text);
    reader->length = 0;
    reader->is_too_long = false;
  }
}

static void run(line_reader readers[2], int signals) {
  uint64_t flush_us = UINT64_MAX;
  for (;;) {
    const uint64_t now = now_us(NULL);
    uint64_t due_us = omcu_next_due_us(&core);
    if (flush_us < due_us) due_us = flush_us;
    if (now + POLL_US < due_us) due_us = now + POLL_US;
    const uint64_t wait_us = due_us > now ? due_us - now : 0;
    const struct timespec timeout = {.tv_sec = 0, .tv_nsec = (long)wait_us * 1000};
    struct pollfd ready[4] = {
        {.fd = it.port.master, .events = POLLIN},
        {.fd = signals, .events = POLLIN},
        {.fd = readers[0].fd, .events = POLLIN},
        {.fd = readers[1].fd, .events = POLLIN},
    };
    if (ppoll(ready, 4, &timeout, NULL) < 0 && errno != EINTR) return;
    if (ready[1].revents != 0) return;
    if (ready[0].revents != 0) {
      uint8_t bytes[4096];
      const size_t count = line_receive(&it.port, bytes, sizeof bytes);
      if (count > 0) omcu_rx(&core, bytes, count);
    }
    for (size_t i = 0; i < 2; i += 1) {
      if (ready[2 + i].revents != 0) read_control(&readers[i]);
    }
    if (it.is_reset_wanted) {
      it.is_reset_wanted = false;
      const omcu_hal hal = core.hal;
      omcu_boot(&core, core.config, &hal);
    }
    omcu_poll(&core);
    say_state();
    flush_us = line_flush(&it.port, now_us(NULL));
  }
}

static void fail(const char *what, const char *fix) {
  fprintf(stderr, "outrider-mcu: %s: %s\n", what, fix);
  exit(2);
}

static uint32_t number(const char *name, const char *text, uint32_t min, uint32_t max) {
  char *end = NULL;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < min || value > max) {
    fprintf(stderr, "outrider-mcu: --%s must be a whole number from %u to %u, not %s\n", name, min, max, text);
    exit(2);
  }
  return (uint32_t)value;
}

static void help(void) {
  printf("Usage: outrider-mcu [options]\n"
         "\n"
         "The reference MCU firmware on a pty, with a simulated robot. Prints one JSON line with the path of the\n"
         "pty, then one for each change of state. Ends on SIGTERM or SIGINT.\n"
         "\n"
         "  --joints N       joints of the robot, 1 to %u (default 30)\n"
         "  --rate-hz N      joints and IMU per second, 1 to 1000 (default 50)\n"
         "  --baud-limit N   send no faster than a UART of N bit/s would (default 0: no limit)\n"
         "  --seed N         seed of noise and line faults (default: random)\n"
         "  --link PATH      keep a symbolic link to the pty there\n"
         "  --control PATH   also read control lines from this FIFO, made if missing\n"
         "  --help           this text\n"
         "\n"
         "Control lines, from standard input (closing it is harmless) or the FIFO:\n%s",
         OMCU_JOINTS_MAX, CONTROL_HELP);
}

static options parse(int argc, char **argv) {
  static const struct option LONG[] = {
      {"joints", required_argument, NULL, 'j'}, {"rate-hz", required_argument, NULL, 'r'},
      {"baud-limit", required_argument, NULL, 'b'}, {"seed", required_argument, NULL, 's'},
      {"link", required_argument, NULL, 'l'},   {"control", required_argument, NULL, 'c'},
      {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
  };
  options wanted = {.joints = 30, .rate_hz = 50};
  int option = 0;
  while ((option = getopt_long(argc, argv, "", LONG, NULL)) != -1) {
    switch (option) {
      case 'j':
        wanted.joints = number("joints", optarg, 1, OMCU_JOINTS_MAX);
        break;
      case 'r':
        wanted.rate_hz = number("rate-hz", optarg, 1, 1000);
        break;
      case 'b':
        wanted.baud_limit = number("baud-limit", optarg, 0, 12000000);
        break;
      case 's':
        wanted.seed = number("seed", optarg, 0, UINT32_MAX);
        wanted.has_seed = true;
        break;
      case 'l':
        wanted.link = optarg;
        break;
      case 'c':
        wanted.control = optarg;
        break;
      case 'h':
        help();
        exit(0);
      default:
        fprintf(stderr, "outrider-mcu: --help lists the options\n");
        exit(2);
    }
  }
  if (optind != argc) fail(argv[optind], "is no option; --help lists them");
  if (!wanted.has_seed) wanted.seed = entropy(NULL);
  return wanted;
}

/* Put in place in one step, so that a host never sees a missing link, and never over something that is no link. */
static void make_link(const char *path) {
  struct stat there;
  if (lstat(path, &there) == 0 && !S_ISLNK(there.st_mode)) fail(path, "exists and is no symbolic link; name another");
  char beside[4096];
  const int length = snprintf(beside, sizeof beside, "%s.%d", path, (int)getpid());
  if (length < 0 || (size_t)length >= sizeof beside) fail(path, "is too long");
  if (symlink(it.port.path, beside) != 0) fail(path, strerror(errno));
  if (rename(beside, path) != 0) {
    unlink(beside);
    fail(path, strerror(errno));
  }
}

/* Only our own link: a newer program may have put its own there. */
static void remove_link(const char *path) {
  char target[sizeof it.port.path + 1] = {0};
  const ssize_t length = readlink(path, target, sizeof target - 1);
  if (length > 0 && strcmp(target, it.port.path) == 0) unlink(path);
}

static int open_control(const char *path) {
  if (mkfifo(path, 0600) != 0 && errno != EEXIST) fail(path, strerror(errno));
  struct stat there;
  if (stat(path, &there) != 0 || !S_ISFIFO(there.st_mode)) fail(path, "is no FIFO; name another or remove it");
  /* For reading and writing, so that it never comes to an end when a writer leaves. */
  const int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) fail(path, strerror(errno));
  return fd;
}

int main(int argc, char **argv) {
  const options wanted = parse(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  sigset_t ending;
  sigemptyset(&ending);
  sigaddset(&ending, SIGTERM);
  sigaddset(&ending, SIGINT);
  sigprocmask(SIG_BLOCK, &ending, NULL);
  const int signals = signalfd(-1, &ending, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) fail("signalfd", strerror(errno));

  sim_init(&it.robot, wanted.joints, wanted.seed, now_us(NULL));
  if (!line_open(&it.port, wanted.baud_limit, wanted.seed, now_us(NULL))) fail("no pty", strerror(errno));
  const uint16_t rate_hz = (uint16_t)wanted.rate_hz;
  const omcu_config config = {
      .firmware = FIRMWARE,
      .joint_count = (uint8_t)wanted.joints,
      .sensor_count = SIM_SENSOR_COUNT,
      .joint_names = sim_joint_names(),
      .sensor_names = sim_sensor_names(),
      .position_min_rad = -SIM_POSITION_MAX_RAD,
      .position_max_rad = SIM_POSITION_MAX_RAD,
      .motor_hot_c = SIM_MOTOR_HOT_C,
      .capabilities = OMCU_CAN_HOLD | OMCU_CAN_SETPOINTS | OMCU_CAN_SET_RATE | OMCU_CAN_ESTOP_INPUT,
      .rates_hz = {rate_hz, rate_hz, 10, 5, 10},
  };
  const omcu_hal hal = {
      .now_us = now_us,
      .entropy = entropy,
      .tx_room = tx_room,
      .tx = tx,
      .is_estop_pressed = is_estop_pressed,
      .read_sensors = read_sensors,
      .actuate = actuate,
      .inject_fault = inject_fault,
  };
  omcu_boot(&core, &config, &hal);
  line_reader readers[2] = {{.fd = -1}, {.fd = -1}};
  /* Reading a terminal from the background would stop this program. */
  if (!isatty(STDIN_FILENO)) readers[0].fd = STDIN_FILENO;
  if (wanted.control != NULL) readers[1].fd = open_control(wanted.control);
  if (wanted.link != NULL) make_link(wanted.link);
  say("{\"event\":\"ready\",\"path\":\"%s\",\"joints\":%u,\"seed\":%u,\"pid\":%d}", it.port.path, wanted.joints,
      wanted.seed, (int)getpid());
  run(readers, signals);
  if (wanted.link != NULL) remove_link(wanted.link);
  return 0;
}
