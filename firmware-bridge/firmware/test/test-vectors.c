/*
 * Runs the vectors that the TypeScript side runs too.
 *
 *   test-vectors FOLDER          checks every vector of the folder
 *   test-vectors --fill FILE     lets the core answer the host lines of a dialogue and prints the whole dialogue
 *
 * A `.hex` file has bytes as hexadecimal digits; `#` starts a comment. Beside it stands a `.json` with what the bytes
 * mean, of which this program reads the keys it needs. In a `dialogue-….hex` each line is `@TIME_US > BYTES` (host to
 * MCU), `@TIME_US < BYTES` (MCU to host) or `@TIME_US ! estop on|off`.
 */
#define _POSIX_C_SOURCE 200809L
#include <ctype.h>
#include <dirent.h>

#include "bench.h"

#define FILE_BYTES_MAX 1048576u

static bench chip;
static char file_text[FILE_BYTES_MAX + 1];
static uint8_t wanted_bytes[FILE_BYTES_MAX];

static const char *read_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (file == NULL) {
    fprintf(stderr, "%s cannot be read; npm run vectors -w firmware-bridge makes it\n", path);
    exit(1);
  }
  const size_t length = fread(file_text, 1, FILE_BYTES_MAX, file);
  fclose(file);
  file_text[length] = '\0';
  return file_text;
}

static int digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/* Bytes of hexadecimal digits up to `end`, skipping white space and comments. */
static size_t from_hex(const char *text, const char *end, uint8_t *out) {
  size_t length = 0;
  while (text < end) {
    if (*text == '#') {
      while (text < end && *text != '\n') text += 1;
    } else if (isspace((unsigned char)*text)) {
      text += 1;
    } else {
      CHECK(text + 1 < end && digit(text[0]) >= 0 && digit(text[1]) >= 0);
      out[length] = (uint8_t)(digit(text[0]) * 16 + digit(text[1]));
      length += 1;
      text += 2;
    }
  }
  return length;
}

/* The number after `"key": `, searched from `text` on. */
static unsigned long number_of(const char *text, const char *key) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\": ", key);
  const char *at = strstr(text, quoted);
  if (at == NULL) fprintf(stderr, "no %s in the vector\n", quoted);
  CHECK(at != NULL);
  return strtoul(at + strlen(quoted), NULL, 10);
}

/* ---- Frames and streams ---- */

typedef struct {
  const char *next;
  size_t frames;
  size_t other_version;
  uint8_t line[FILE_BYTES_MAX];
  size_t line_length;
} expectation;

static expectation expected;

static void on_frame(void *context, const omcu_frame *frame) {
  (void)context;
  if (frame->version != OMCU_PROTOCOL_VERSION) {
    expected.other_version += 1;
    return;
  }
  expected.next = strstr(expected.next, "\"type\": ");
  CHECK(expected.next != NULL); /* one frame more than the vector has */
  CHECK(number_of(expected.next, "type") == frame->type);
  CHECK(number_of(expected.next, "sequence") == frame->sequence);
  const char *payload = strstr(expected.next, "\"payload\": \"");
  CHECK(payload != NULL);
  payload += strlen("\"payload\": \"");
  static uint8_t bytes[OMCU_PAYLOAD_BYTES_MAX * 2];
  const size_t length = from_hex(payload, strchr(payload, '"'), bytes);
  CHECK(length == frame->payload_length && memcmp(bytes, frame->payload, length) == 0);
  expected.next = payload;
  expected.frames += 1;
  static uint8_t again[OMCU_FRAME_BYTES_MAX];
  memcpy(again + OMCU_HEADER_BYTES, frame->payload, length);
  expected.line_length +=
      omcu_frame_finish(again, frame->type, frame->sequence, length, expected.line + expected.line_length);
}

static void check_stream(const char *hex_path, const char *json_path, size_t piece) {
  static omcu_receiver receiver;
  static uint8_t bytes[FILE_BYTES_MAX];
  const char *hex = read_file(hex_path);
  const size_t length = from_hex(hex, hex + strlen(hex), bytes);
  const char *json = read_file(json_path);
  omcu_receiver_reset(&receiver);
  expected.next = strstr(json, "\"frames\": ");
  CHECK(expected.next != NULL);
  expected.frames = 0;
  expected.other_version = 0;
  expected.line_length = 0;
  for (size_t at = 0; at < length; at += piece) {
    omcu_receive(&receiver, bytes + at, length - at < piece ? length - at : piece, on_frame, NULL);
  }
  CHECK(strstr(expected.next, "\"type\": ") == NULL); /* the vector has a frame more */
  CHECK(receiver.stats.frames_ok == number_of(json, "frames_ok"));
  CHECK(receiver.stats.crc_bad == number_of(json, "crc_bad"));
  CHECK(receiver.stats.cobs_bad == number_of(json, "cobs_bad"));
  CHECK(receiver.stats.oversize == number_of(json, "oversize"));
  CHECK(receiver.stats.malformed == number_of(json, "length_bad"));
  CHECK(receiver.stats.lost == number_of(json, "lost"));
  CHECK(expected.other_version == number_of(json, "other_version"));
  if (strstr(json, "\"canonical\": true") != NULL) {
    CHECK(expected.line_length == length && memcmp(expected.line, bytes, length) == 0);
  }
}

/* ---- Dialogues ---- */

/* Moves the chip to the line's time and gives it what the line says. */
static void play(const char *text, const char *end) {
  chip.now_us = strtoull(text + 1, NULL, 10);
  const char *mark = strchr(text, ' ');
  CHECK(mark != NULL && mark + 2 < end);
  if (mark[1] == '!') {
    chip.is_estop_pressed = strncmp(mark, " ! estop on", 11) == 0;
  } else {
    const size_t length = from_hex(mark + 2, end, wanted_bytes);
    omcu_rx(&chip.core, wanted_bytes, length);
  }
  omcu_poll(&chip.core);
}

static void print_tx(void) {
  printf("@%llu < ", (unsigned long long)chip.now_us);
  for (size_t i = 0; i < chip.tx_length; i += 1) printf("%02x", chip.tx[i]);
  printf("\n");
}

static void run_dialogue(const char *path, bool is_fill) {
  const char *text = read_file(path);
  bench_boot(&chip, &BENCH_CONFIG);
  bool has_output = false;
  while (*text != '\0') {
    const char *end = strchr(text, '\n');
    CHECK(end != NULL);
    const char *mark = memchr(text, ' ', (size_t)(end - text));
    const bool is_answer = *text == '@' && mark != NULL && mark[1] == '<';
    if (is_answer && !is_fill) {
      const size_t length = from_hex(mark + 2, end, wanted_bytes);
      CHECK(chip.now_us == strtoull(text + 1, NULL, 10));
      CHECK(length == chip.tx_length && memcmp(wanted_bytes, chip.tx, length) == 0);
      chip.tx_length = 0;
    } else if (*text == '@' && !is_answer) {
      CHECK(is_fill || chip.tx_length == 0); /* something was sent that the vector has not */
      if (is_fill) printf("%.*s\n", (int)(end - text), text);
      play(text, end);
      has_output = chip.tx_length > 0;
      if (is_fill && has_output) {
        print_tx();
        chip.tx_length = 0;
      }
    } else if (is_fill && !is_answer) {
      printf("%.*s\n", (int)(end - text), text);
    }
    text = end + 1;
  }
  CHECK(is_fill || chip.tx_length == 0);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--fill") == 0) {
    run_dialogue(argv[2], true);
    return 0;
  }
  CHECK(argc == 2);
  DIR *folder = opendir(argv[1]);
  if (folder == NULL) fprintf(stderr, "%s: no such folder\n", argv[1]);
  CHECK(folder != NULL);
  size_t vectors = 0;
  for (const struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
    const char *dot = strrchr(entry->d_name, '.');
    if (dot == NULL || strcmp(dot, ".hex") != 0) continue;
    char hex_path[512];
    char json_path[512];
    snprintf(hex_path, sizeof hex_path, "%s/%s", argv[1], entry->d_name);
    snprintf(json_path, sizeof json_path, "%s/%.*s.json", argv[1], (int)(dot - entry->d_name), entry->d_name);
    printf("vector %s\n", entry->d_name);
    if (strncmp(entry->d_name, "dialogue-", 9) == 0) {
      run_dialogue(hex_path, false);
    } else {
      check_stream(hex_path, json_path, FILE_BYTES_MAX);
      check_stream(hex_path, json_path, 1);
      check_stream(hex_path, json_path, 7);
    }
    vectors += 1;
  }
  closedir(folder);
  CHECK(vectors >= 20); /* an empty folder proves nothing */
  printf("ok %zu vectors\n", vectors);
  return 0;
}
