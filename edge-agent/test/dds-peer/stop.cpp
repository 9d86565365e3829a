// The two ends of a stop over ROS 2. `relay` is what rmw_fastrtps does with a serialized message: the bytes go to a
// writer as they are. `listen` is a robot's driver: it knows the messages from their definition alone, and each line
// that it prints is
//   TOPIC MICROSECONDS HEX VALUE...
// with the monotonic time of the arrival, the message as the generated code serializes it again, and its values.

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include <fastdds/dds/publisher/DataWriter.hpp>
#include <fastdds/dds/publisher/Publisher.hpp>
#include <fastdds/dds/subscriber/DataReader.hpp>
#include <fastdds/dds/subscriber/SampleInfo.hpp>
#include <fastdds/dds/subscriber/Subscriber.hpp>
#include <fastdds/dds/topic/Topic.hpp>
#include <fastdds/dds/topic/TopicDataType.hpp>
#include <fastdds/dds/topic/TypeSupport.hpp>

#include "messages.h"
#include "messagesPubSubTypes.h"
#include "peer.h"

using namespace eprosima::fastdds::dds;
using eprosima::fastrtps::rtps::InstanceHandle_t;
using eprosima::fastrtps::rtps::SerializedPayload_t;
using geometry_msgs::msg::dds_::Twist_;
using geometry_msgs::msg::dds_::TwistStamped_;
using std_msgs::msg::dds_::Bool_;

namespace {

constexpr uint32_t kMessageBytesMax = 1024;
constexpr int kLookEveryMs = 2;
using Bytes = std::vector<uint8_t>;

// Passes bytes through, encapsulation included.
class RawType : public TopicDataType {
 public:
  explicit RawType(const std::string& name) {
    setName(name.c_str());
    m_typeSize = kMessageBytesMax;
  }
  bool serialize(void* data, SerializedPayload_t* payload) override {
    const Bytes& bytes = *static_cast<Bytes*>(data);
    if (bytes.size() > payload->max_size) return false;
    std::memcpy(payload->data, bytes.data(), bytes.size());
    payload->length = static_cast<uint32_t>(bytes.size());
    payload->encapsulation = CDR_LE;
    return true;
  }
  bool deserialize(SerializedPayload_t*, void*) override { return false; }
  std::function<uint32_t()> getSerializedSizeProvider(void* data) override {
    return [data] { return static_cast<uint32_t>(static_cast<Bytes*>(data)->size()); };
  }
  void* createData() override { return new Bytes(); }
  void deleteData(void* data) override { delete static_cast<Bytes*>(data); }
  bool getKey(void*, InstanceHandle_t*, bool) override { return false; }
};

// "/cmd_vel" is "rt/cmd_vel", and "geometry_msgs/msg/Twist" is "geometry_msgs::msg::dds_::Twist_".
std::string dds_type(const std::string& ros) {
  const size_t first = ros.find('/');
  const size_t last = ros.rfind('/');
  return ros.substr(0, first) + "::" + ros.substr(first + 1, last - first - 1) + "::dds_::" + ros.substr(last + 1) + "_";
}

Topic* create_topic(DomainParticipant* participant, const TypeSupport& type, const std::string& name) {
  if (type.register_type(participant) != ReturnCode_t::RETCODE_OK) fail("cannot register a type");
  Topic* topic = participant->create_topic(name, type.get_type_name(), TOPIC_QOS_DEFAULT);
  if (topic == nullptr) fail("cannot create topic " + name);
  return topic;
}

// rmw_qos_profile_default, on both sides: reliable, volatile, the last ten.
template <typename Qos>
Qos default_profile() {
  Qos qos;
  qos.reliability().kind = RELIABLE_RELIABILITY_QOS;
  qos.durability().kind = VOLATILE_DURABILITY_QOS;
  qos.history().kind = KEEP_LAST_HISTORY_QOS;
  qos.history().depth = 10;
  return qos;
}

Bytes bytes_of(const std::string& hex) {
  Bytes bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
  return bytes;
}

std::string hex_of(const uint8_t* bytes, size_t size) {
  std::string hex;
  char digits[3];
  for (size_t i = 0; i < size; ++i) {
    std::snprintf(digits, sizeof digits, "%02x", bytes[i]);
    hex += digits;
  }
  return hex;
}

int64_t monotonic_us() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000 + now.tv_nsec / 1000;
}

void print_values(std::ostream& out, const Bool_& message) { out << ' ' << (message.data() ? 1 : 0); }
void print_values(std::ostream& out, const Twist_& message) {
  for (const auto* part : {&message.linear(), &message.angular()})
    out << ' ' << part->x() << ' ' << part->y() << ' ' << part->z();
}
void print_values(std::ostream& out, const TwistStamped_& message) { print_values(out, message.twist()); }

template <typename Message, typename PubSubType>
DataReader* create_reader(DomainParticipant* participant, Subscriber* subscriber, const std::string& name) {
  Topic* topic = create_topic(participant, TypeSupport(new PubSubType()), name);
  DataReader* reader = subscriber->create_datareader(topic, default_profile<DataReaderQos>());
  if (reader == nullptr) fail("cannot create a reader");
  return reader;
}

template <typename Message, typename PubSubType>
void print_new(DataReader* reader) {
  Message message;
  SampleInfo info;
  while (reader->take_next_sample(&message, &info) == ReturnCode_t::RETCODE_OK) {
    if (!info.valid_data) continue;
    const int64_t at_us = monotonic_us();
    SerializedPayload_t again(kMessageBytesMax);
    if (!PubSubType().serialize(&message, &again)) fail("cannot serialize what was heard");
    std::cout << reader->get_topicdescription()->get_name() << ' ' << at_us << ' ' << hex_of(again.data, again.length);
    print_values(std::cout, message);
    std::cout << std::endl;
  }
}

}  // namespace

void relay(DomainParticipant* participant) {
  Publisher* publisher = participant->create_publisher(PUBLISHER_QOS_DEFAULT);
  if (publisher == nullptr) fail("cannot create a publisher");
  std::map<std::string, DataWriter*> writers;
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string topic, type, hex;
    if (!(words >> topic >> type >> hex)) fail("not TOPIC TYPE HEX: " + line);
    DataWriter*& writer = writers[topic];
    if (writer == nullptr) {
      TypeSupport raw(new RawType(dds_type(type)));
      writer = publisher->create_datawriter(create_topic(participant, raw, "rt" + topic), default_profile<DataWriterQos>());
      if (writer == nullptr) fail("cannot create a writer");
    }
    Bytes bytes = bytes_of(hex);
    if (!writer->write(&bytes)) fail("cannot write to " + topic);
  }
}

void listen(DomainParticipant* participant) {
  Subscriber* subscriber = participant->create_subscriber(SUBSCRIBER_QOS_DEFAULT);
  if (subscriber == nullptr) fail("cannot create a subscriber");
  using geometry_msgs::msg::dds_::Twist_PubSubType;
  using geometry_msgs::msg::dds_::TwistStamped_PubSubType;
  using std_msgs::msg::dds_::Bool_PubSubType;
  DataReader* twist = create_reader<Twist_, Twist_PubSubType>(participant, subscriber, "rt/cmd_vel");
  DataReader* stamped = create_reader<TwistStamped_, TwistStamped_PubSubType>(participant, subscriber, "rt/cmd_vel_stamped");
  DataReader* stop = create_reader<Bool_, Bool_PubSubType>(participant, subscriber, "rt/stop");
  std::cout << "listening" << std::endl;
  pollfd input = {STDIN_FILENO, POLLIN, 0};
  for (;;) {
    print_new<Twist_, Twist_PubSubType>(twist);
    print_new<TwistStamped_, TwistStamped_PubSubType>(stamped);
    print_new<Bool_, Bool_PubSubType>(stop);
    if (poll(&input, 1, kLookEveryMs) == 0) continue;
    char byte;
    if (read(STDIN_FILENO, &byte, 1) <= 0) return;
  }
}
