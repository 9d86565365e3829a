/* Frames on the line: COBS, CRC-32, header. No heap, no libc beyond memcpy/memmove. See ../../PROTOCOL.md. */
#ifndef OUTRIDER_WIRE_H
#define OUTRIDER_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OMCU_PROTOCOL_VERSION 1u
#define OMCU_HEADER_BYTES 8u
#define OMCU_CRC_BYTES 4u
#define OMCU_PAYLOAD_BYTES_MAX 2048u
#define OMCU_FRAME_BYTES_MAX (OMCU_HEADER_BYTES + OMCU_PAYLOAD_BYTES_MAX + OMCU_CRC_BYTES)
/* COBS adds one byte per 254, and one. */
#define OMCU_ENCODED_BYTES_MAX (OMCU_FRAME_BYTES_MAX + OMCU_FRAME_BYTES_MAX / 254u + 1u)
/* With its delimiter. */
#define OMCU_LINE_BYTES_MAX (OMCU_ENCODED_BYTES_MAX + 1u)

/** CRC-32 (IEEE 802.3, reflected), as zlib has it. [FB-6] */
uint32_t omcu_crc32(const uint8_t *bytes, size_t length);

/** Encodes without delimiter. `out` has room for length + length / 254 + 1 bytes. Returns the bytes written. [FB-3] */
size_t omcu_cobs_encode(const uint8_t *plain, size_t length, uint8_t *out);

/** Decodes in place. Returns the plain length, or 0 when the bytes are no COBS (an empty frame cannot be). [FB-3] */
size_t omcu_cobs_decode(uint8_t *bytes, size_t length);

/**
 * Completes a frame whose payload already stands at `frame + OMCU_HEADER_BYTES` and writes it as a line, delimiter
 * included. `frame` has OMCU_FRAME_BYTES_MAX bytes, `line` OMCU_LINE_BYTES_MAX. Returns the bytes of the line, 0 when
 * the payload is too long. [FB-2] to [FB-6]
 */
size_t omcu_frame_finish(uint8_t *frame, uint8_t type, uint32_t sequence, size_t payload_length, uint8_t *line);

/** Counters of a receiver. They only grow, and wrap. */
typedef struct {
  uint32_t frames_ok;
  uint32_t crc_bad;
  uint32_t cobs_bad;
  uint32_t oversize;
  /** Wrong length, unknown type or wrong payload in a frame whose CRC was right. */
  uint32_t malformed;
  uint32_t lost;
} omcu_rx_stats;

typedef struct {
  uint8_t version;
  uint8_t type;
  uint32_t sequence;
  const uint8_t *payload;
  size_t payload_length;
} omcu_frame;

/** Gets each frame with a right CRC; the payload is valid during the call. Frames of other versions come too. */
typedef void (*omcu_frame_handler)(void *context, const omcu_frame *frame);

/** Cuts a byte stream into frames; finds the next good one after any garbage. [FB-7] */
typedef struct {
  uint8_t pending[OMCU_ENCODED_BYTES_MAX];
  size_t pending_length;
  bool is_skipping;
  bool has_sequence;
  uint32_t next_sequence;
  omcu_rx_stats stats;
} omcu_receiver;

void omcu_receiver_reset(omcu_receiver *receiver);

void omcu_receive(omcu_receiver *receiver, const uint8_t *bytes, size_t length, omcu_frame_handler handler,
                  void *context);

/* Little-endian access that works at any alignment. [FB-9] */
uint16_t omcu_get_u16(const uint8_t *at);
uint32_t omcu_get_u32(const uint8_t *at);
uint64_t omcu_get_u64(const uint8_t *at);
float omcu_get_f32(const uint8_t *at);

/** Writes values one after the other; once something did not fit, `is_full` stays set and nothing more is written. */
typedef struct {
  uint8_t *at;
  size_t room;
  size_t length;
  bool is_full;
} omcu_writer;

omcu_writer omcu_payload_writer(uint8_t *frame);
void omcu_put_u8(omcu_writer *writer, uint8_t value);
void omcu_put_u16(omcu_writer *writer, uint16_t value);
void omcu_put_u32(omcu_writer *writer, uint32_t value);
void omcu_put_u64(omcu_writer *writer, uint64_t value);
void omcu_put_f32(omcu_writer *writer, float value);
void omcu_put_f32s(omcu_writer *writer, const float *values, size_t count);
/** Length in one byte, then the characters; cut at 255. */
void omcu_put_text(omcu_writer *writer, const char *text);

#endif
