#include "wire.h"

#include <string.h>

/* A hole wider than this is a restarted sender, not a loss. [FB-8] */
#define LOST_AT_ONCE_MAX 65536u

/* One nibble at a time: 64 bytes of table instead of 1,024, which suits small flash. */
static const uint32_t CRC_NIBBLES[16] = {
    0x00000000u, 0x1db71064u, 0x3b6e20c8u, 0x26d930acu, 0x76dc4190u, 0x6b6b51f4u, 0x4db26158u, 0x5005713cu,
    0xedb88320u, 0xf00f9344u, 0xd6d6a3e8u, 0xcb61b38cu, 0x9b64c2b0u, 0x86d3d2d4u, 0xa00ae278u, 0xbdbdf21cu,
};

uint32_t omcu_crc32(const uint8_t *bytes, size_t length) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < length; i += 1) {
    crc ^= bytes[i];
    crc = (crc >> 4) ^ CRC_NIBBLES[crc & 0x0fu];
    crc = (crc >> 4) ^ CRC_NIBBLES[crc & 0x0fu];
  }
  return ~crc;
}

size_t omcu_cobs_encode(const uint8_t *plain, size_t length, uint8_t *out) {
  size_t code_at = 0;
  size_t at = 1;
  uint8_t code = 1;
  for (size_t i = 0; i < length; i += 1) {
    if (plain[i] != 0) {
      out[at] = plain[i];
      at += 1;
      code += 1;
    }
    /* A full group stands for no zero, so at the very end nothing follows it. */
    if (plain[i] == 0 || (code == 0xffu && i + 1 < length)) {
      out[code_at] = code;
      code_at = at;
      at += 1;
      code = 1;
    }
  }
  out[code_at] = code;
  return at;
}

size_t omcu_cobs_decode(uint8_t *bytes, size_t length) {
  size_t at = 0;
  size_t plain = 0;
  while (at < length) {
    const uint8_t code = bytes[at];
    const size_t end = at + code;
    if (code == 0 || end > length) return 0;
    for (size_t i = at + 1; i < end; i += 1) {
      if (bytes[i] == 0) return 0;
      bytes[plain] = bytes[i];
      plain += 1;
    }
    at = end;
    if (code != 0xffu && at < length) {
      bytes[plain] = 0;
      plain += 1;
    }
  }
  return plain;
}

static void store_u16(uint8_t *at, uint16_t value) {
  at[0] = (uint8_t)value;
  at[1] = (uint8_t)(value >> 8);
}

static void store_u32(uint8_t *at, uint32_t value) {
  store_u16(at, (uint16_t)value);
  store_u16(at + 2, (uint16_t)(value >> 16));
}

size_t omcu_frame_finish(uint8_t *frame, uint8_t type, uint32_t sequence, size_t payload_length, uint8_t *line) {
  if (payload_length > OMCU_PAYLOAD_BYTES_MAX) return 0;
  frame[0] = OMCU_PROTOCOL_VERSION;
  frame[1] = type;
  store_u16(frame + 2, (uint16_t)payload_length);
  store_u32(frame + 4, sequence);
  const size_t body = OMCU_HEADER_BYTES + payload_length;
  store_u32(frame + body, omcu_crc32(frame, body));
  const size_t encoded = omcu_cobs_encode(frame, body + OMCU_CRC_BYTES, line);
  line[encoded] = 0;
  return encoded + 1;
}

void omcu_receiver_reset(omcu_receiver *receiver) {
  memset(receiver, 0, sizeof *receiver);
}

static void count_sequence(omcu_receiver *receiver, uint32_t sequence) {
  if (receiver->has_sequence) {
    const uint32_t hole = sequence - receiver->next_sequence;
    if (hole <= LOST_AT_ONCE_MAX) receiver->stats.lost += hole;
  }
  receiver->has_sequence = true;
  receiver->next_sequence = sequence + 1u;
}

static void finish_frame(omcu_receiver *receiver, omcu_frame_handler handler, void *context) {
  const size_t encoded = receiver->pending_length;
  const bool was_skipping = receiver->is_skipping;
  receiver->pending_length = 0;
  receiver->is_skipping = false;
  if (was_skipping || encoded == 0) return; /* an empty frame is an idle line [FB-2] */
  uint8_t *bytes = receiver->pending;
  const size_t plain = omcu_cobs_decode(bytes, encoded);
  if (plain == 0) {
    receiver->stats.cobs_bad += 1;
    return;
  }
  if (plain < OMCU_HEADER_BYTES + OMCU_CRC_BYTES || plain > OMCU_FRAME_BYTES_MAX) {
    receiver->stats.malformed += 1;
    return;
  }
  const size_t body = plain - OMCU_CRC_BYTES;
  if (omcu_get_u32(bytes + body) != omcu_crc32(bytes, body)) {
    receiver->stats.crc_bad += 1;
    return;
  }
  const omcu_frame frame = {
      .version = bytes[0],
      .type = bytes[1],
      .sequence = omcu_get_u32(bytes + 4),
      .payload = bytes + OMCU_HEADER_BYTES,
      .payload_length = body - OMCU_HEADER_BYTES,
  };
  if (frame.version == OMCU_PROTOCOL_VERSION) {
    if (omcu_get_u16(bytes + 2) != frame.payload_length) {
      receiver->stats.malformed += 1;
      return;
    }
    receiver->stats.frames_ok += 1;
    count_sequence(receiver, frame.sequence);
  }
  handler(context, &frame);
}

void omcu_receive(omcu_receiver *receiver, const uint8_t *bytes, size_t length, omcu_frame_handler handler,
                  void *context) {
  for (size_t i = 0; i < length; i += 1) {
    if (bytes[i] == 0) {
      finish_frame(receiver, handler, context);
    } else if (receiver->is_skipping) {
      continue;
    } else if (receiver->pending_length == OMCU_ENCODED_BYTES_MAX) {
      receiver->stats.oversize += 1;
      receiver->is_skipping = true;
    } else {
      receiver->pending[receiver->pending_length] = bytes[i];
      receiver->pending_length += 1;
    }
  }
}

uint16_t omcu_get_u16(const uint8_t *at) {
  return (uint16_t)(at[0] | (uint16_t)(at[1] << 8));
}

uint32_t omcu_get_u32(const uint8_t *at) {
  return (uint32_t)omcu_get_u16(at) | ((uint32_t)omcu_get_u16(at + 2) << 16);
}

uint64_t omcu_get_u64(const uint8_t *at) {
  return (uint64_t)omcu_get_u32(at) | ((uint64_t)omcu_get_u32(at + 4) << 32);
}

float omcu_get_f32(const uint8_t *at) {
  const uint32_t bits = omcu_get_u32(at);
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

omcu_writer omcu_payload_writer(uint8_t *frame) {
  const omcu_writer writer = {.at = frame + OMCU_HEADER_BYTES, .room = OMCU_PAYLOAD_BYTES_MAX};
  return writer;
}

static uint8_t *grow(omcu_writer *writer, size_t width) {
  if (writer->is_full || writer->room - writer->length < width) {
    writer->is_full = true;
    return NULL;
  }
  uint8_t *start = writer->at + writer->length;
  writer->length += width;
  return start;
}

void omcu_put_u8(omcu_writer *writer, uint8_t value) {
  uint8_t *at = grow(writer, 1);
  if (at != NULL) at[0] = value;
}

void omcu_put_u16(omcu_writer *writer, uint16_t value) {
  uint8_t *at = grow(writer, 2);
  if (at != NULL) store_u16(at, value);
}

void omcu_put_u32(omcu_writer *writer, uint32_t value) {
  uint8_t *at = grow(writer, 4);
  if (at != NULL) store_u32(at, value);
}

void omcu_put_u64(omcu_writer *writer, uint64_t value) {
  omcu_put_u32(writer, (uint32_t)value);
  omcu_put_u32(writer, (uint32_t)(value >> 32));
}

void omcu_put_f32(omcu_writer *writer, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  omcu_put_u32(writer, bits);
}

void omcu_put_f32s(omcu_writer *writer, const float *values, size_t count) {
  for (size_t i = 0; i < count; i += 1) omcu_put_f32(writer, values[i]);
}

void omcu_put_text(omcu_writer *writer, const char *text) {
  size_t length = 0;
  while (length < 255 && text[length] != '\0') length += 1;
  omcu_put_u8(writer, (uint8_t)length);
  uint8_t *at = grow(writer, length);
  if (at != NULL) memcpy(at, text, length);
}
